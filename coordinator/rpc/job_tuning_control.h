// JobTuningControl: the knobs of a coordinator's jobs.
//
// A job that is being run is asked itself, on its thread; the knobs of one at
// rest are read from the store. Thread-safe.
#ifndef DELTAPIPE_COORDINATOR_RPC_JOB_TUNING_CONTROL_H_
#define DELTAPIPE_COORDINATOR_RPC_JOB_TUNING_CONTROL_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/rpc/tuning_control.h"

namespace deltapipe {

class JobTuningControl : public TuningControl {
 public:
  /// `plane` outlives this object.
  explicit JobTuningControl(ControlPlane* plane) : plane_(plane) {}

  absl::StatusOr<v1::Tuning> Get(const std::string& job_id) override;
  absl::StatusOr<v1::Tuning> Update(const v1::UpdateTuningRequest& request,
                                    const TuningCaller& caller) override;
  absl::StatusOr<v1::Tuning> SetBudget(const v1::SetBudgetRequest& request,
                                       const TuningCaller& caller) override;

 private:
  /// Posts the request and waits for what becomes of it.
  absl::StatusOr<v1::Tuning> Ask(const std::string& job_id,
                                 TuningRequested request,
                                 const TuningCaller& caller);

  ControlPlane* const plane_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_JOB_TUNING_CONTROL_H_
