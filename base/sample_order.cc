#include "base/sample_order.h"

#include <array>
#include <cstddef>
#include <numeric>
#include <utility>

#include "base/philox.h"

namespace deltapipe {

SampleOrder::SampleOrder(const SampleOrderOptions& options)
    : options_(options),
      steps_per_epoch_(options.num_samples / samples_per_step()),
      orders_(static_cast<std::size_t>(options.num_slots)) {}

int64_t SampleOrder::samples_per_step() const {
  return options_.num_slots * options_.microbatch;
}

int64_t SampleOrder::shard_size(int64_t slot) const {
  return (options_.num_samples - slot + options_.num_slots - 1) /
         options_.num_slots;
}

const std::vector<uint32_t>& SampleOrder::ShardOrder(int64_t epoch,
                                                     int64_t slot) {
  CachedOrder& cached = orders_[static_cast<std::size_t>(slot)];
  if (cached.epoch == epoch) return cached.order;
  const int64_t size = shard_size(slot);
  cached.order.resize(static_cast<std::size_t>(size));
  std::iota(cached.order.begin(), cached.order.end(), 0u);
  // Fisher and Yates' shuffle; the bias of a 64-bit product is below 2^-32.
  const std::array<uint32_t, 2> key = {
      static_cast<uint32_t>(options_.seed),
      static_cast<uint32_t>(options_.seed >> 32)};
  for (uint32_t i = static_cast<uint32_t>(size); i > 1; --i) {
    const PhiloxBlock words =
        Philox4x32({i, static_cast<uint32_t>(epoch),
                    static_cast<uint32_t>(slot), 0x6F726472u},
                   key);
    const uint32_t j = static_cast<uint32_t>((uint64_t{words[0]} * i) >> 32);
    std::swap(cached.order[i - 1], cached.order[j]);
  }
  cached.epoch = epoch;
  return cached.order;
}

std::vector<int64_t> SampleOrder::Indices(int64_t step, int64_t slot) {
  const std::vector<uint32_t>& order =
      ShardOrder(step / steps_per_epoch_, slot);
  const auto first =
      order.begin() + step % steps_per_epoch_ * options_.microbatch;
  std::vector<int64_t> indices;
  for (auto it = first; it != first + options_.microbatch; ++it) {
    indices.push_back(int64_t{*it} * options_.num_slots + slot);
  }
  return indices;
}

}  // namespace deltapipe
