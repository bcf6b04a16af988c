#include "compression/delta/channel_memory.h"

#include <cstring>
#include <utility>

namespace deltapipe {

void ChannelMemory::Begin() {
  for (size_t which = 0; which < kCount; ++which) {
    std::vector<float>& memory = working_[which];
    const RecordPtr record = store_->Read(which);
    memory.resize(record == nullptr
                      ? 0
                      : static_cast<size_t>(record->values.size()) /
                            sizeof(float));
    if (!memory.empty()) {
      std::memcpy(memory.data(), record->values.data(),
                  memory.size() * sizeof(float));
    }
  }
}

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

}  // namespace deltapipe
