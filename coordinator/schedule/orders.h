// The compute orders that schedules.def names, one per file.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_ORDERS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_ORDERS_H_

#include "coordinator/schedule/schedule.h"

namespace deltapipe {

Program GpipeOrder(const PipelineShape& shape, int stage, int warmup_depth);

Program OneForwardOneBackwardOrder(const PipelineShape& shape, int stage,
                                   int warmup_depth);
/// The most micro-batches that its program for `stage` holds in flight.
int OneForwardOneBackwardInFlight(const PipelineShape& shape, int stage,
                                  int warmup_depth);

Program TwoBufferedWeightsOrder(const PipelineShape& shape, int stage,
                                int warmup_depth);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_ORDERS_H_
