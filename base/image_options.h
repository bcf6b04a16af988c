// How images are shown in training, as a job spec writes it: data.views and
// data.sizes. The coordinator checks it, workers train with it.
#ifndef DELTAPIPE_BASE_IMAGE_OPTIONS_H_
#define DELTAPIPE_BASE_IMAGE_OPTIONS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// data.views.
struct ViewChoice {
  /// Of each sample in a micro-batch, 1 to 64.
  int64_t count = 1;
  /// One, which is another one at each visit.
  bool is_unbounded = false;
};

/// From "4" or "unbounded".
absl::StatusOr<ViewChoice> ParseViewChoice(absl::string_view text);

struct SizeShare {
  int64_t size = 0;  // pixels of a side
  double share = 0;  // of the micro-batches
};

/// From "28:0.5,20:0.3,14:0.2"; empty from "". INVALID_ARGUMENT for a size out
/// of 8..kImageSize or named twice, a share that is not above 0, or shares that
/// do not add up to 1 (to 1e-6).
absl::StatusOr<std::vector<SizeShare>> ParseSizeShares(absl::string_view text);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_IMAGE_OPTIONS_H_
