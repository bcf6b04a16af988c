#include "compression/delta/channel_memory.h"

#include <cstring>
#include <utility>

namespace deltapipe {

void ChannelMemory::CopyStaged(State* state) const {
  for (size_t which = 0; which < kCount; ++which) {
    std::vector<float>& memory = (*state)[which];
    memory.clear();
    const RecordPtr record = store_->Read(which);
    if (record == nullptr) continue;
    const auto* const values =
        reinterpret_cast<const float*>(record->values.data());
    memory.assign(values, values + static_cast<size_t>(record->values.size()) /
                                       sizeof(float));
  }
}

void ChannelMemory::Begin() { CopyStaged(&working_); }

void ChannelMemory::Stage(uint32_t step) {
  for (size_t which = 0; which < kCount; ++which) {
    const std::vector<float>& memory = working_[which];
    if (memory.empty()) continue;
    // A store in memory has room.
    std::shared_ptr<Record> record =
        store_
            ->NewRecord(store_->usage().last_version + 1,
                        static_cast<int64_t>(memory.size() * sizeof(float)))
            .value();
    std::memcpy(record->values.data(), memory.data(),
                memory.size() * sizeof(float));
    store_->Stage(step, which, std::move(record));
  }
}

ChannelMemory::State ChannelMemory::Take() const {
  State state;
  CopyStaged(&state);
  return state;
}

void ChannelMemory::Put(State state, uint32_t step) {
  working_ = std::move(state);
  Stage(step);
  CommitStep(step);
}

}  // namespace deltapipe
