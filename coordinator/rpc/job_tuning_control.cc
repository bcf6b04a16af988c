#include "coordinator/rpc/job_tuning_control.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/tuning_answers.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

constexpr Nanos kPoll = std::chrono::milliseconds(100);

struct Answer {
  Mutex mutex;
  CondVar changed;
  std::optional<absl::StatusOr<v1::Tuning>> tuning DP_GUARDED_BY(mutex);
};

}  // namespace

absl::StatusOr<v1::Tuning> JobTuningControl::Ask(const std::string& job_id,
                                                 TuningRequested request,
                                                 const TuningCaller& caller) {
  // shared_ptr: the job's thread may answer when nobody waits any more.
  const auto answer = std::make_shared<Answer>();
  request.principal = caller.principal;
  const TuningRequestKey key = request.key;
  request.reply = [answer](const absl::StatusOr<v1::Tuning>& tuning) {
    {
      MutexLock lock(&answer->mutex);
      answer->tuning = tuning;
    }
    answer->changed.NotifyAll();
  };
  if (!plane_->jobs()->Post(job_id, std::move(request))) {
    DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane_, job_id));
    // It may have been answered before the job came to rest.
    DP_ASSIGN_OR_RETURN(const TuningAnswers answers,
                        TuningAnswers::Read(stored.tuning_answers));
    DP_ASSIGN_OR_RETURN(const std::optional<v1::Tuning> known,
                        answers.Find(key));
    if (known.has_value()) return *known;
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job_id, "' is ", StateName(stored.job.state()),
                     ": its knobs can be set while it trains or waits"));
  }
  while (!caller.deadline.has_passed() && !caller.is_cancelled()) {
    MutexLock lock(&answer->mutex);
    answer->changed.WaitUntil(lock,
                              std::min(caller.deadline, Deadline::After(kPoll)),
                              [&] { return answer->tuning.has_value(); });
    if (answer->tuning.has_value()) return *answer->tuning;
  }
  if (caller.is_cancelled()) return absl::CancelledError("the caller has gone");
  return absl::DeadlineExceededError(absl::StrCat(
      "job '", job_id,
      "' did not say in time what became of the change: its events will"));
}

absl::StatusOr<v1::Tuning> JobTuningControl::Get(const std::string& job_id) {
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane_, job_id));
  if (!IsAtRest(stored.job.state())) {
    TuningCaller caller;
    caller.deadline = Deadline::After(std::chrono::seconds(5));
    TuningRequested look;
    look.is_look = true;
    look.make_next = [](const v1::Tuning& current, const v1::JobSpec&,
                        const v1::Plan&) { return current; };
    absl::StatusOr<v1::Tuning> tuning = Ask(job_id, std::move(look), caller);
    // It may have come to rest meanwhile.
    if (tuning.ok() || !absl::IsDeadlineExceeded(tuning.status()))
      return tuning;
  }
  if (stored.progress.has_value() && stored.progress->has_tuning() &&
      stored.progress->tuning().revision() > 0) {
    return stored.progress->tuning();
  }
  if (!stored.plan.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job_id, "' has no plan yet, and so no knobs"));
  }
  return InitialTuning(job_id, stored.job.spec(), *stored.plan);
}

absl::StatusOr<v1::Tuning> JobTuningControl::Update(
    const v1::UpdateTuningRequest& request, const TuningCaller& caller) {
  const std::string& job_id = request.tuning().job_id();
  DP_RETURN_IF_ERROR(FindJob(plane_, job_id).status());
  TuningRequested change;
  change.reason = request.reason();
  change.is_look = request.validate_only();
  if (!change.is_look) change.key = KeyOf(request);
  change.make_next = [request](const v1::Tuning& current,
                               const v1::JobSpec& spec, const v1::Plan& plan) {
    return ApplyUpdate(current, request, spec, plan);
  };
  return Ask(job_id, std::move(change), caller);
}

absl::StatusOr<v1::Tuning> JobTuningControl::SetBudget(
    const v1::SetBudgetRequest& request, const TuningCaller& caller) {
  DP_RETURN_IF_ERROR(FindJob(plane_, request.job_id()).status());
  TuningRequested change;
  change.reason = request.reason();
  change.make_next = [request](
                         const v1::Tuning& current, const v1::JobSpec&,
                         const v1::Plan& plan) -> absl::StatusOr<v1::Tuning> {
    DP_RETURN_IF_ERROR(CheckEtag(current, request.etag()));
    return ApplyBudget(current, request.bytes_per_step(), plan, {});
  };
  return Ask(request.job_id(), std::move(change), caller);
}

}  // namespace deltapipe
