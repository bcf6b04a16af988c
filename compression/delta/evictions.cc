#include "compression/delta/evictions.h"

namespace deltapipe {

absl::Span<const Evictions::Victim> Evictions::After(
    absl::Span<const BoundarySample> samples) {
  victims_.clear();
  const StateStore::Usage usage = store_->usage();
  const auto num_samples = static_cast<int64_t>(samples.size());
  // Nothing to look at, whatever is new among them.
  if (usage.num_records + num_samples <= capacity_) return victims_;
  keys_.clear();
  visited_.clear();
  int64_t num_after = usage.num_records;
  for (size_t i = samples.size(); i-- > 0;) {
    const uint64_t key = samples[i].key;
    if (!keys_.insert(key).second) continue;
    visited_.push_back(
        {key, usage.last_version + 1 + static_cast<uint32_t>(i)});
    if (store_->Read(key) == nullptr) ++num_after;
  }
  if (num_after <= capacity_) return victims_;
  const auto num_victims = static_cast<size_t>(num_after - capacity_);
  store_->ForEach([&](uint64_t key, const RecordPtr& record) {
    if (victims_.size() == num_victims) return false;
    if (keys_.count(key) == 0) victims_.push_back({key, record->version});
    return true;
  });
  while (victims_.size() < num_victims && !visited_.empty()) {
    victims_.push_back(visited_.back());
    visited_.pop_back();
  }
  return victims_;
}

}  // namespace deltapipe
