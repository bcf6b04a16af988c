#include "coordinator/rpc/get_tuning.h"

#include "coordinator/errors/error_details.h"

namespace deltapipe {

absl::StatusOr<v1::Tuning> GetTuning(TuningControl* control,
                                     const v1::GetTuningRequest& request) {
  if (request.job_id().empty()) {
    return FieldViolationsError({{"job_id", "expected a job's id"}});
  }
  return control->Get(request.job_id());
}

}  // namespace deltapipe
