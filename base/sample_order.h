// SampleOrder: which samples of the data set each micro-batch of each step
// holds. Index arithmetic alone: the workers draw batches by it and the
// coordinator checks a job's ledger with it.
//
// A step has `num_slots` micro-batches; sample i belongs to shard i mod
// num_slots, and slot j draws from shard j alone, in an order that is a pure
// function of (seed, epoch, shard): Fisher and Yates' shuffle driven by Philox.
// An epoch has as many steps as fill all micro-batches; which samples that
// leaves out differs from epoch to epoch.
//
// Thread-compatible: the orders that were used last are kept.
//
//   SampleOrder order({.num_samples = 1000, .num_slots = 8, ...});
//   order.Indices(/*step=*/12, /*slot=*/3);
#ifndef DELTAPIPE_BASE_SAMPLE_ORDER_H_
#define DELTAPIPE_BASE_SAMPLE_ORDER_H_

#include <cstdint>
#include <vector>

namespace deltapipe {

struct SampleOrderOptions {
  int64_t num_samples = 0;  // of the data set
  int64_t num_slots = 1;    // micro-batches per step over all replicas
  int64_t microbatch = 1;   // samples
  uint64_t seed = 0;
};

class SampleOrder {
 public:
  /// Slots and microbatch are above 0, num_samples is below 2^32.
  explicit SampleOrder(const SampleOrderOptions& options);

  int64_t samples_per_step() const;
  /// 0 if there is not even one step's worth of samples.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t shard_size(int64_t slot) const;

  /// Positions within the shard of `slot`, in the order of `epoch`. Valid until
  /// the next call for this slot.
  const std::vector<uint32_t>& ShardOrder(int64_t epoch, int64_t slot);
  /// The samples of micro-batch `slot` of `step`. There must be a step's worth.
  std::vector<int64_t> Indices(int64_t step, int64_t slot);

 private:
  struct CachedOrder {
    int64_t epoch = -1;
    std::vector<uint32_t> order;
  };

  SampleOrderOptions options_;
  int64_t steps_per_epoch_;
  std::vector<CachedOrder> orders_;  // by slot
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_SAMPLE_ORDER_H_
