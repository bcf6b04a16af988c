// TuningService.GetTuning.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_TUNING_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_TUNING_H_

#include "absl/status/statusor.h"
#include "coordinator/rpc/tuning_control.h"

namespace deltapipe {

/// INVALID_ARGUMENT without a job; the errors of TuningControl::Get.
absl::StatusOr<v1::Tuning> GetTuning(TuningControl* control,
                                     const v1::GetTuningRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_TUNING_H_
