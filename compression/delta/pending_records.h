// The records that the rows of one body have made so far, before any of them is
// staged: a later row of the same sample builds on them, and an error drops
// them all.
//
// Used inside an encode or a decode by one thread.
#ifndef DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_
#define DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

class PendingRecords {
 public:
  explicit PendingRecords(StateStore* store) : store_(store) {}

  /// The record of `key` as the next row sees it, or null.
  RecordPtr Read(uint64_t key) const {
    const auto found = latest_.find(key);
    return found == latest_.end() ? store_->Read(key) : found->second;
  }

  void Put(uint64_t key, RecordPtr record) {
    latest_[key] = record;
    in_order_.emplace_back(key, std::move(record));
  }

  /// All records, in the order of their rows; a key may occur more than once.
  const std::vector<std::pair<uint64_t, RecordPtr>>& in_order() const {
    return in_order_;
  }

  /// Stages the last record of each key.
  void StageAll(uint32_t step) {
    for (auto& [key, record] : latest_) {
      store_->Stage(step, key, std::move(record));
    }
    latest_.clear();
  }

 private:
  StateStore* const store_;
  absl::flat_hash_map<uint64_t, RecordPtr> latest_;
  std::vector<std::pair<uint64_t, RecordPtr>> in_order_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_
