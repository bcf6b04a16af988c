#include "coordinator/rpc/get_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/image_options.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {

absl::StatusOr<v1::JobLedger> GetLedger(ControlPlane* plane,
                                        const v1::GetLedgerRequest& request) {
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  if (!stored.progress.has_value() || !stored.plan.has_value() ||
      stored.progress->ledger().empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job '", request.id(), "' is ", StateName(stored.job.state()),
        " and has not done a step: there is nothing to audit"));
  }
  const v1::Plan& plan = *stored.plan;
  v1::JobLedger ledger;
  ledger.set_job_id(request.id());
  // Work is counted in views, of which a micro-batch has all or none of a
  // sample: samples are what is drawn.
  const auto choice = ParseViewChoice(stored.job.spec().data().views());
  const int64_t views = choice.ok() ? choice->count : 1;
  ledger.set_train_samples(stored.progress->train_samples() / views);
  ledger.set_num_slots(int64_t{plan.num_microbatches()} * plan.num_replicas());
  ledger.set_microbatch_samples(plan.microbatch_samples() / views);
  ledger.set_seed(stored.job.spec().seed());
  *ledger.mutable_ranges() = stored.progress->ledger();
  for (v1::CommittedRange& range : *ledger.mutable_ranges()) {
    range.set_samples_applied(range.samples_applied() / views);
    range.set_samples_dropped(range.samples_dropped() / views);
    if (range.dropped_before() > 0) {
      range.set_dropped_before(range.dropped_before() / views);
    }
  }
  int64_t end = 0;
  for (const v1::CommittedRange& range : ledger.ranges()) {
    end = std::max(end, range.end_step());
  }
  const bool is_training = stored.job.state() == v1::JOB_STATE_RUNNING;
  ledger.set_steps_begun(is_training ? end + 1 : end);
  return ledger;
}

}  // namespace deltapipe
