// 1F1B (PipeDream-Flush, arXiv 2006.09503, section 3.2) with a warm-up depth.
//
// Plain 1F1B keeps P - r micro-batches in flight at stage r: just enough when
// links are free. With a round trip of c seconds per boundary and t seconds of
// the slowest resource per micro-batch, stage r needs (P - r - 1) c / t more to
// stay busy: hence a depth that tapers linearly towards the last stage.
//
// The bound on micro-batches in flight never grows from a stage to the next, so
// that a stage always has what its successor waits for: no deadlock.
#include <algorithm>

#include "coordinator/schedule/orders.h"

namespace deltapipe {

int OneForwardOneBackwardInFlight(const PipelineShape& shape, int stage,
                                  int warmup_depth) {
  const int after = shape.num_stages - 1 - stage;
  int64_t bound = after + 1;
  if (warmup_depth >= 0) {
    if (after > 0) {
      const int64_t last = shape.num_stages - 1;
      bound += (static_cast<int64_t>(warmup_depth) * after + last - 1) / last;
    }
  } else {
    bound = std::min<int64_t>(
        bound, static_cast<int64_t>(shape.num_stages) + warmup_depth);
  }
  return static_cast<int>(
      std::clamp<int64_t>(bound, 1, shape.num_microbatches));
}

Program OneForwardOneBackwardOrder(const PipelineShape& shape, int stage,
                                   int warmup_depth) {
  const int in_flight =
      OneForwardOneBackwardInFlight(shape, stage, warmup_depth);
  Program order;
  order.reserve(2 * static_cast<size_t>(shape.num_microbatches));
  for (int mb = 0; mb < in_flight - 1; ++mb) {
    order.push_back({v1::Instruction::FORWARD, mb});
  }
  int backward = 0;
  for (int mb = in_flight - 1; mb < shape.num_microbatches; ++mb) {
    order.push_back({v1::Instruction::FORWARD, mb});
    order.push_back({v1::Instruction::BACKWARD, backward++});
  }
  while (backward < shape.num_microbatches) {
    order.push_back({v1::Instruction::BACKWARD, backward++});
  }
  return order;
}

}  // namespace deltapipe
