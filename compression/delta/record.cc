#include "compression/delta/record.h"

#include <algorithm>
#include <utility>

namespace deltapipe {

RecordPool::RecordPool(int64_t record_bytes, int64_t max_idle_bytes)
    : record_bytes_(record_bytes),
      max_idle_records_(max_idle_bytes / std::max<int64_t>(1, record_bytes)),
      idle_(std::make_shared<Idle>()) {}

std::shared_ptr<Record> RecordPool::Make(uint32_t version) {
  std::unique_ptr<Record> record;
  {
    MutexLock lock(&idle_->mutex);
    if (!idle_->records.empty()) {
      record = std::move(idle_->records.back());
      idle_->records.pop_back();
    }
  }
  if (record == nullptr) {
    record = std::make_unique<Record>();
    record->values = Buffer(record_bytes_);
  }
  record->version = version;
  const auto give_back = [idle = idle_,
                          max_idle = max_idle_records_](Record* dropped) {
    std::unique_ptr<Record> owned(dropped);
    MutexLock lock(&idle->mutex);
    if (static_cast<int64_t>(idle->records.size()) < max_idle) {
      idle->records.push_back(std::move(owned));
    }
  };
  return std::shared_ptr<Record>(record.release(), give_back);
}

}  // namespace deltapipe
