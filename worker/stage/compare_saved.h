// Compares policies for saved activations on a model: bytes, time, error of the
// gradient, the largest micro-batch that fits where one fitted without, and the
// pace with that one.
//
// All policies take turns in one process, so that their times can be compared.
#ifndef DELTAPIPE_WORKER_STAGE_COMPARE_SAVED_H_
#define DELTAPIPE_WORKER_STAGE_COMPARE_SAVED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

struct SavedComparisonOptions {
  /// Besides `none`, which is always compared with and need not be named.
  std::vector<std::string> policies;
  std::string device = "cpu";
  /// Of forward and backward, after one that is not counted.
  int repeats = 5;
  /// Whether to look for the largest micro-batch, up to 64 times the spec's,
  /// and to time it.
  bool finds_batch = false;
};

struct SavedComparison {
  std::string policy;
  /// Bytes alive between forward and backward over `raw_bytes`: those that are
  /// without a policy, each element once.
  double kept_ratio = 1;
  int64_t raw_bytes = 0;
  /// Median seconds of forward and backward over those without a policy.
  double time_ratio = 1;
  double seconds = 0;
  /// ||g' - g|| / ||g||, and the same of the mean of 16 draws.
  double gradient_error = 0;
  double mean_gradient_error = 0;
  /// Samples whose peak (with what layers that are just computed again save) is
  /// within `raw_bytes`, and samples per second with so many over those of the
  /// spec's micro-batch without a policy; 0: not looked for, or not even one
  /// fits.
  int64_t largest_batch = 0;
  double batch_pace = 0;
};

/// The whole model as one stage, weights as they are initialised. The first row
/// is that without a policy.
absl::StatusOr<std::vector<SavedComparison>> CompareSaved(
    const v1::JobSpec& spec, const SavedComparisonOptions& options);

std::string ComparisonText(const std::vector<SavedComparison>& rows);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_COMPARE_SAVED_H_
