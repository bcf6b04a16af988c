// TuningService.SetBudget.
#ifndef DELTAPIPE_COORDINATOR_RPC_SET_BUDGET_H_
#define DELTAPIPE_COORDINATOR_RPC_SET_BUDGET_H_

#include "absl/status/statusor.h"
#include "coordinator/rpc/tuning_control.h"

namespace deltapipe {

/// INVALID_ARGUMENT without a job, with a negative budget, or with texts that
/// are too long; the errors of TuningControl::SetBudget.
absl::StatusOr<v1::Tuning> SetBudget(TuningControl* control,
                                     const v1::SetBudgetRequest& request,
                                     const TuningCaller& caller);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_SET_BUDGET_H_
