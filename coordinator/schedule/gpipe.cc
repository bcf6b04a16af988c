// GPipe (arXiv 1811.06965, section 2.3): all forwards, then all backwards.
//
// Backwards run in the order of the forwards, so that every boundary carries
// micro-batches in the same order in both directions.
#include "coordinator/schedule/orders.h"

namespace deltapipe {

Program GpipeOrder(const PipelineShape& shape, int /*stage*/,
                   int /*warmup_depth*/) {
  Program order;
  order.reserve(2 * static_cast<size_t>(shape.num_microbatches));
  for (int mb = 0; mb < shape.num_microbatches; ++mb) {
    order.push_back({v1::Instruction::FORWARD, mb});
  }
  for (int mb = 0; mb < shape.num_microbatches; ++mb) {
    order.push_back({v1::Instruction::BACKWARD, mb});
  }
  return order;
}

}  // namespace deltapipe
