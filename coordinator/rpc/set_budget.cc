#include "coordinator/rpc/set_budget.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/errors/error_details.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxReason = 1000;

}  // namespace

absl::StatusOr<v1::Tuning> SetBudget(TuningControl* control,
                                     const v1::SetBudgetRequest& request,
                                     const TuningCaller& caller) {
  std::vector<FieldViolation> violations;
  if (request.job_id().empty()) {
    violations.push_back({"job_id", "expected a job's id"});
  }
  if (request.bytes_per_step() < 0) {
    violations.push_back(
        {"bytes_per_step", absl::StrCat("expected 0 (no budget) or more, got ",
                                        request.bytes_per_step())});
  }
  if (request.reason().size() > kMaxReason) {
    violations.push_back(
        {"reason", absl::StrCat("expected at most ", kMaxReason, " bytes, got ",
                                request.reason().size())});
  }
  DP_RETURN_IF_ERROR(FieldViolationsError(violations));
  return control->SetBudget(request, caller);
}

}  // namespace deltapipe
