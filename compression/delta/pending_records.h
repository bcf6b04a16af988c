// The records that the rows of one body have made so far, before any of them is
// staged: a later row of the same sample builds on them, and an error drops
// them all.
//
// Used by one end of a channel, by its thread, for one body after another.
#ifndef DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_
#define DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "compression/delta/node_cache.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

class PendingRecords {
 public:
  explicit PendingRecords(StateStore* store) : store_(store) {}

  /// Before the rows of a body: gives back what the last one left.
  void Begin() {
    for (auto& [key, record] : in_order_) store_->GiveBack(std::move(record));
    in_order_.clear();
    latest_.clear();
  }

  /// The record of `key` as the next row sees it, or null.
  RecordPtr Read(uint64_t key) const {
    const auto found = latest_.find(key);
    return found == latest_.end() ? store_->Read(key)
                                  : in_order_[found->second].second;
  }

  void Put(uint64_t key, RecordPtr record) {
    latest_[key] = in_order_.size();
    in_order_.emplace_back(key, std::move(record));
  }

  /// All records, in the order of their rows; a key may occur more than once.
  const std::vector<std::pair<uint64_t, RecordPtr>>& in_order() const {
    return in_order_;
  }

  /// Stages the last record of each key, and gives back the others.
  void StageAll(uint32_t step) {
    for (const auto& [key, index] : latest_) {
      store_->Stage(step, key, in_order_[index].second);
    }
    Begin();
  }

 private:
  StateStore* const store_;
  NodeCache nodes_;
  std::pmr::unordered_map<uint64_t, size_t> latest_{&nodes_};  // in in_order_
  std::vector<std::pair<uint64_t, RecordPtr>> in_order_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_PENDING_RECORDS_H_
