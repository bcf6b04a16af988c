// PipeDream-2BW (arXiv 2006.09503, section 3.1): 1F1B whose steps follow each
// other without a flush.
//
// Where 1F1B drains, a stage begins the next step's first micro-batches. Step t
// is computed on the weights that update t - 2 made, while update t - 1 is on
// its way: two versions are alive, and every gradient is one update old. A
// stage therefore waits for update t - 1 before its first FORWARD of step
// t + 1, and where none comes early, at the end of step t.
#include "coordinator/schedule/orders.h"

namespace deltapipe {

Program TwoBufferedWeightsOrder(const PipelineShape& shape, int stage,
                                int warmup_depth) {
  const int ahead =
      OneForwardOneBackwardInFlight(shape, stage, warmup_depth) - 1;
  const int num_microbatches = shape.num_microbatches;
  const Step apply = {v1::Instruction::APPLY, 0, -1};
  Program order;
  order.reserve(2 * static_cast<size_t>(num_microbatches) + 1);
  for (int mb = 0; mb < num_microbatches; ++mb) {
    const int forward = mb + ahead;
    if (forward == num_microbatches) order.push_back(apply);
    order.push_back({v1::Instruction::FORWARD, forward % num_microbatches,
                     forward / num_microbatches});
    order.push_back({v1::Instruction::BACKWARD, mb});
  }
  if (ahead == 0) order.push_back(apply);
  return order;
}

}  // namespace deltapipe
