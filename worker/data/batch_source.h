// BatchSource: which samples each micro-batch of each step holds, and their
// bytes.
//
// A step has as many slots as micro-batches over all replicas; which samples a
// slot draws is a pure function of the seed and the step (base/sample_order.h).
// A replica owns slots, so the global batch does not depend on the number of
// replicas and a sample stays with its owner over the epochs. The position is
// the step: nothing else needs to be remembered.
//
// Thread-safe after creation, but for Train(), which one thread calls at a
// time.
#ifndef DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_
#define DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/sample_order.h"
#include "compression/delta/boundary_codec.h"

namespace deltapipe {

/// One micro-batch; tokens and targets are samples x context bytes and empty
/// where the source has none (synthetic).
struct Microbatch {
  std::vector<BoundarySample> samples;
  std::vector<uint8_t> tokens;
  std::vector<uint8_t> targets;
};

struct BatchSourceOptions {
  std::string path;  // empty: synthetic samples without content
  int64_t limit_bytes = INT64_MAX;
  double validation = 0.05;
  int64_t context = 128;
  int64_t microbatch = 4;  // samples
  int64_t num_slots = 8;   // micro-batches per step over all replicas
  uint64_t seed = 0;
  int64_t synthetic_samples = 0;
};

class BatchSource {
 public:
  /// NOT_FOUND, PERMISSION_DENIED for the file; INVALID_ARGUMENT if it is too
  /// small: it names the bytes that it has and needs.
  static absl::StatusOr<std::unique_ptr<BatchSource>> Create(
      const BatchSourceOptions& options);

  /// The micro-batch of `slot` at `step`.
  Microbatch Train(int64_t step, int64_t slot);
  /// The i-th of num_validation_microbatches(); the last may be smaller.
  Microbatch Validation(int64_t index) const;

  int64_t num_train_samples() const { return num_train_samples_; }
  int64_t num_validation_microbatches() const;
  int64_t steps_per_epoch() const { return order_.steps_per_epoch(); }
  /// Of the bytes in use; all workers of a job must agree.
  uint64_t data_hash() const { return data_hash_; }

 private:
  explicit BatchSource(const BatchSourceOptions& options) : options_(options) {}
  void AppendSample(int64_t first_byte, Microbatch* microbatch) const;

  const BatchSourceOptions options_;
  std::vector<uint8_t> bytes_;
  uint64_t data_hash_ = 0;
  int64_t num_train_samples_ = 0;
  int64_t validation_begin_ = 0;  // byte
  int64_t num_validation_samples_ = 0;
  SampleOrder order_{SampleOrderOptions{}};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_
