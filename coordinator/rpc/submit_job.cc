#include "coordinator/rpc/submit_job.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/rpc/former_checkpoints.h"
#include "coordinator/spec/carried_state.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxSpecBytes = 1 << 20;
constexpr size_t kMaxRequestId = 256;

/// Looks at what the job would go on from, and has it keep the cut.
absl::Status PrepareToGoOn(ControlPlane* plane, const std::string& run_folder,
                           v1::JobSpec* spec) {
  if (run_folder.empty() && spec->checkpoint().folder().empty()) {
    return FieldViolationsError(
        {{"run_folder",
          "expected the run folder of an earlier job (--run-folder), or "
          "checkpoint.folder in the spec, where a job that goes on finds its "
          "checkpoint, got neither: 'deltapipe describe JOB' names the folder, "
          "and 'deltapipe resume JOB' goes on with the same spec"}},
        "INVALID_SPEC");
  }
  DP_ASSIGN_OR_RETURN(const std::vector<FormerCheckpoint> checkpoints,
                      FormerCheckpoints(plane->store(), *spec, run_folder));
  KeepCut(checkpoints, spec);
  std::vector<FieldViolation> violations;
  for (const SpecViolation& uncarried : FindUncarried(checkpoints, *spec)) {
    violations.push_back({uncarried.field, uncarried.message});
  }
  return FieldViolationsError(violations, "INVALID_SPEC");
}

}  // namespace

absl::StatusOr<v1::Job> SubmitJob(ControlPlane* plane,
                                  const v1::SubmitJobRequest& request) {
  if (request.spec().ByteSizeLong() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the spec has ", request.spec().ByteSizeLong(),
                     " bytes, expected at most ", kMaxSpecBytes));
  }
  if (request.request_id().size() > kMaxRequestId) {
    return absl::InvalidArgumentError(
        absl::StrCat("request_id has ", request.request_id().size(),
                     " bytes, expected at most ", kMaxRequestId));
  }
  v1::JobSpec spec = request.spec();
  FillDefaults(&spec);
  std::vector<FieldViolation> violations;
  for (const std::string& sentence : plane->CheckSpec(spec)) {
    violations.push_back(ViolationFromText(sentence));
  }
  DP_RETURN_IF_ERROR(FieldViolationsError(violations, "INVALID_SPEC"));
  if (request.resume()) {
    DP_RETURN_IF_ERROR(PrepareToGoOn(plane, request.run_folder(), &spec));
  }
  NewJob job;
  job.spec = std::move(spec);
  job.request_id = request.request_id();
  job.run_folder = request.run_folder();
  job.resume = request.resume();
  job.time_millis = plane->clock()->WallMillis();
  job.event_text = "submitted";
  if (request.validate_only()) {
    v1::Job preview;
    *preview.mutable_spec() = job.spec;
    preview.set_state(v1::JOB_STATE_PENDING);
    preview.set_create_time_millis(job.time_millis);
    preview.set_run_folder(job.run_folder);
    preview.set_resume(job.resume);
    return preview;
  }
  return plane->jobs()->Submit(job);
}

}  // namespace deltapipe
