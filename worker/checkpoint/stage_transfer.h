// A stage's state on its way from a replica that has it to one that has not.
#ifndef DELTAPIPE_WORKER_CHECKPOINT_STAGE_TRANSFER_H_
#define DELTAPIPE_WORKER_CHECKPOINT_STAGE_TRANSFER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "worker/checkpoint/rank_state.h"
#include "worker/optim/parameter_layout.h"
#include "worker/optim/sharded_state.h"
#include "worker/transport/frame_channel.h"

namespace deltapipe {

absl::Status SendStageState(FrameChannel* channel, const FrameHeader& header,
                            const StageState& state, Deadline deadline);
/// DATA_LOSS if what arrives is not the state of a stage with that layout.
absl::StatusOr<StageState> ReceiveStageState(FrameChannel* channel,
                                             const ParameterLayout& layout,
                                             Deadline deadline);

/// The optimizer's state alone, of a share of the stage.
absl::Status SendOptimizerState(FrameChannel* channel,
                                const FrameHeader& header,
                                const OptimizerState& state, Deadline deadline);
absl::StatusOr<OptimizerState> ReceiveOptimizerState(FrameChannel* channel,
                                                     Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CHECKPOINT_STAGE_TRANSFER_H_
