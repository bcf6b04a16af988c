// ImageSamples: micro-batches of images, of the files that base/idx_file.h
// reads, in views and sizes.
//
// With V views a micro-batch holds all views of each of its samples, one after
// the other (batch augmentation); view v of a sample is the same at each visit,
// and has a key of its own, so that what codecs remember of it is of the same
// tensor. Unbounded views differ from visit to visit, and so do their keys.
//
// BatchSource calls it. Thread-safe after Open.
#ifndef DELTAPIPE_WORKER_DATA_IMAGE_SAMPLES_H_
#define DELTAPIPE_WORKER_DATA_IMAGE_SAMPLES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/idx_file.h"
#include "base/image_options.h"
#include "compression/delta/boundary_codec.h"

namespace deltapipe {

/// One micro-batch. Of text, tokens and targets are samples x context bytes; of
/// images, square images of one size and their classes; both are empty where
/// the source has none (synthetic).
struct Microbatch {
  std::vector<BoundarySample> samples;
  std::vector<uint8_t> tokens;
  std::vector<uint8_t> targets;
  /// Pixels of a side of each image; 0: not images.
  int64_t image_size = 0;
};

struct ImageOptions {
  int64_t max_train = INT64_MAX;
  ViewChoice views;
  std::vector<SizeShare> sizes;  // empty: as they are
};

class ImageSamples {
 public:
  /// Reads the training set and the share `validation` of the test set, from
  /// their beginnings. Errors of ReadImageSet.
  static absl::StatusOr<std::unique_ptr<ImageSamples>> Open(
      const std::string& folder, double validation, uint64_t seed,
      const ImageOptions& options);

  int64_t num_train() const {
    return static_cast<int64_t>(train_.classes.size());
  }
  int64_t num_validation() const {
    return static_cast<int64_t>(test_.classes.size());
  }
  uint64_t data_hash() const { return data_hash_; }

  /// All views of the images `indices`, at the `visit`-th visit of each, of the
  /// size that is drawn for (step, slot). Slots of samples are left at 0.
  Microbatch Train(absl::Span<const int64_t> indices, int64_t visit,
                   int64_t step, int64_t slot) const;
  /// Adds an image as it is.
  void AppendValidation(int64_t index, Microbatch* microbatch) const;

 private:
  ImageSamples(uint64_t seed, const ImageOptions& options)
      : seed_(seed), options_(options) {}

  const uint64_t seed_;
  const ImageOptions options_;
  ImageSet train_;
  ImageSet test_;
  uint64_t data_hash_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_IMAGE_SAMPLES_H_
