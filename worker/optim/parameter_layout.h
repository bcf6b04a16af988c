// Where each parameter tensor of a stage lies in the flat fp32 buffers of
// weights, gradients and optimizer state.
//
// Segments are in the order of their names, without padding between them, so
// that the flat vector depends on the model alone and nothing but parameters
// enters a norm.
#ifndef DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_
#define DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor_view.h"

namespace deltapipe {

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

struct ParameterLayout {
  std::vector<ParameterSegment> segments;  // sorted by name
  int64_t num_elements = 0;                // sum over the segments
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_PARAMETER_LAYOUT_H_
