// BatchSource: which samples each micro-batch of each step holds, and their
// bytes.
//
// A step has as many slots as micro-batches over all replicas; which samples a
// slot draws is a pure function of the seed and the step (base/sample_order.h).
// A replica owns slots, so the global batch does not depend on the number of
// replicas and a sample stays with its owner over the epochs. The position is
// the step: nothing else needs to be remembered. Of images a slot draws fewer
// samples, each in several views (image_samples.h).
//
// Thread-safe after creation, but for Train(), which one thread calls at a
// time.
#ifndef DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_
#define DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/sample_order.h"
#include "compression/delta/boundary_codec.h"
#include "worker/data/image_samples.h"

namespace deltapipe {

struct BatchSourceOptions {
  std::string path;  // empty: synthetic samples without content
  /// The path is a folder of images.
  std::optional<ImageOptions> images;
  int64_t limit_bytes = INT64_MAX;
  double validation = 0.05;
  int64_t context = 128;
  int64_t microbatch = 4;  // samples; of images, views
  int64_t num_slots = 8;   // micro-batches per step over all replicas
  uint64_t seed = 0;
  int64_t synthetic_samples = 0;
};

class BatchSource {
 public:
  /// NOT_FOUND, PERMISSION_DENIED for the file; INVALID_ARGUMENT if it is too
  /// small: it names the samples that it has and needs; errors of ReadImageSet.
  static absl::StatusOr<std::unique_ptr<BatchSource>> Create(
      const BatchSourceOptions& options);

  /// The micro-batch of `slot` at `step`.
  Microbatch Train(int64_t step, int64_t slot);
  /// The i-th of num_validation_microbatches(); the last may be smaller.
  Microbatch Validation(int64_t index) const;

  /// Of images, their views.
  int64_t num_train_samples() const { return num_train_samples_ * views(); }
  int64_t num_validation_microbatches() const;
  int64_t steps_per_epoch() const { return order_.steps_per_epoch(); }
  /// Of the bytes in use; all workers of a job must agree.
  uint64_t data_hash() const { return data_hash_; }

 private:
  explicit BatchSource(const BatchSourceOptions& options) : options_(options) {}
  absl::Status OpenBytes();
  absl::Status OpenImages();
  void AppendSample(int64_t first_byte, Microbatch* microbatch) const;
  /// Of each sample in a micro-batch.
  int64_t views() const {
    return options_.images.has_value() ? options_.images->views.count : 1;
  }

  const BatchSourceOptions options_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<ImageSamples> images_;
  uint64_t data_hash_ = 0;
  int64_t num_train_samples_ = 0;
  int64_t validation_begin_ = 0;  // byte
  int64_t num_validation_samples_ = 0;
  SampleOrder order_{SampleOrderOptions{}};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_BATCH_SOURCE_H_
