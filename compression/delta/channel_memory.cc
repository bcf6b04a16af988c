#include "compression/delta/channel_memory.h"

#include <cstring>
#include <utility>

namespace deltapipe {

std::vector<float> ChannelMemory::Staged(size_t which) const {
  const RecordPtr record = store_->Read(which);
  if (record == nullptr) return {};
  std::vector<float> memory(static_cast<size_t>(record->values.size()) /
                            sizeof(float));
  std::memcpy(memory.data(), record->values.data(),
              memory.size() * sizeof(float));
  return memory;
}

void ChannelMemory::Begin() { working_ = Take(); }

void ChannelMemory::Stage(uint32_t step) {
  for (size_t which = 0; which < kCount; ++which) {
    const std::vector<float>& memory = working_[which];
    if (memory.empty()) continue;
    std::shared_ptr<Record> record =
        NewRecord(store_->usage().last_version + 1,
                  static_cast<int64_t>(memory.size() * sizeof(float)));
    std::memcpy(record->values.data(), memory.data(),
                memory.size() * sizeof(float));
    store_->Stage(step, which, std::move(record));
  }
}

ChannelMemory::State ChannelMemory::Take() const {
  State state;
  for (size_t which = 0; which < kCount; ++which) state[which] = Staged(which);
  return state;
}

void ChannelMemory::Put(State state, uint32_t step) {
  working_ = std::move(state);
  Stage(step);
  CommitStep(step);
}

}  // namespace deltapipe
