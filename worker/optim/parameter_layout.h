// Where each parameter tensor of a stage lies in the flat fp32 buffers of
// weights, gradients and optimizer state.
//
// Segments are in the order of their names, without padding between them, so
// that the flat vector depends on the model alone and nothing but parameters
// enters a norm. What other stages hold, too (tied weights), comes last, again
// in the order of names: own and tied part are a range each.
#ifndef DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_
#define DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace deltapipe {

/// Elements [begin, end) of a flat vector.
struct ElementRange {
  int64_t begin = 0;
  int64_t end = 0;
};

inline bool operator==(const ElementRange& a, const ElementRange& b) {
  return a.begin == b.begin && a.end == b.end;
}

/// What is in both: nothing where it does not end after its begin.
inline ElementRange Overlap(const ElementRange& a, const ElementRange& b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

struct ParameterSegment {
  std::string name;
  Shape shape;
  int64_t offset = 0;
  int64_t num_elements = 0;
  /// Weight decay applies: matrices yes; biases and normalisation gains no.
  bool has_weight_decay = true;
  // What a parameter group (parameter_groups.h) says:
  double learning_rate_scale = 1;
  std::optional<double> weight_decay;  // in place of has_weight_decay
};

inline ElementRange RangeOf(const ParameterSegment& segment) {
  return {segment.offset, segment.offset + segment.num_elements};
}

struct ParameterLayout {
  std::vector<ParameterSegment> segments;  // sorted by (is tied, name)
  int64_t num_elements = 0;                // sum over the segments
  /// Whole segments at the end that each of `tied_stages` holds, under the same
  /// names and in the same order. A model has one such group of stages at most.
  int64_t num_tied = 0;
  std::vector<int> tied_stages;  // of the pipeline, ascending; empty without

  /// Where the tied part begins: num_elements without one.
  int64_t tied_begin() const { return num_elements - num_tied; }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_
