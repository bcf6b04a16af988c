// TuningService.UpdateTuning.
#ifndef DELTAPIPE_COORDINATOR_RPC_UPDATE_TUNING_H_
#define DELTAPIPE_COORDINATOR_RPC_UPDATE_TUNING_H_

#include "absl/status/statusor.h"
#include "coordinator/rpc/tuning_control.h"

namespace deltapipe {

/// INVALID_ARGUMENT without a job, or with texts that are too long; the errors
/// of TuningControl::Update.
absl::StatusOr<v1::Tuning> UpdateTuning(TuningControl* control,
                                        const v1::UpdateTuningRequest& request,
                                        const TuningCaller& caller);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_UPDATE_TUNING_H_
