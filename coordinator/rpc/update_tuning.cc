#include "coordinator/rpc/update_tuning.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/errors/error_details.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxTuningBytes = 1 << 20;
constexpr size_t kMaxRequestId = 256;
constexpr size_t kMaxReason = 1000;
constexpr int kMaxPaths = 100;

}  // namespace

absl::StatusOr<v1::Tuning> UpdateTuning(TuningControl* control,
                                        const v1::UpdateTuningRequest& request,
                                        const TuningCaller& caller) {
  std::vector<FieldViolation> violations;
  const auto limit = [&](const char* field, size_t size, size_t most) {
    if (size <= most) return;
    violations.push_back(
        {field, absl::StrCat("expected at most ", most, " bytes, got ", size)});
  };
  if (request.tuning().job_id().empty()) {
    violations.push_back({"tuning.job_id", "expected a job's id"});
  }
  limit("tuning", request.tuning().ByteSizeLong(), kMaxTuningBytes);
  limit("request_id", request.request_id().size(), kMaxRequestId);
  limit("reason", request.reason().size(), kMaxReason);
  if (request.update_mask().paths_size() > kMaxPaths) {
    violations.push_back(
        {"update_mask",
         absl::StrCat("expected at most ", kMaxPaths, " paths, got ",
                      request.update_mask().paths_size())});
  }
  DP_RETURN_IF_ERROR(FieldViolationsError(violations));
  return control->Update(request, caller);
}

}  // namespace deltapipe
