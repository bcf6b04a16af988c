// How a job ends: done, failed or cancelled, and its workers set free.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/units.h"
#include "coordinator/background/assignments.h"
#include "coordinator/background/job_actor.h"

namespace deltapipe {

void JobActor::OnDone(int rank, const v1::AssignmentDone& done) {
  Member& member = members_[static_cast<size_t>(rank)];
  if (!member.is_assigned || member.is_free) return;
  aggregator_->SetBytes(rank, done.bytes());
  Free(&member);
  if (phase_ == Phase::kDraining) {
    Drain();
    return;
  }
  if (!done.model_path().empty()) {
    const size_t slash = done.model_path().rfind('/');
    job_.set_run_folder(absl::StrCat(
        member.info.host, ":",
        slash == std::string::npos ? "." : done.model_path().substr(0, slash)));
    RecordEvent("model", absl::StrCat("model written to ", member.info.host,
                                      ":", done.model_path()));
  }
  is_stopped_early_ = is_stopped_early_ || done.stopped_early();
  if (done.error_code() != 0) {
    const std::string error =
        absl::StrCat(Describe(member), ": ", done.error_message());
    if (phase_ == Phase::kStopping) {
      is_stopped_early_ = true;
      if (stop_trouble_.empty() && !done.is_consequence()) {
        stop_trouble_ = error;
      }
    } else if (!done.is_consequence()) {
      Fail(error);
      return;
    } else if (!consequence_.has_value()) {
      // A stopped process is found dead one budget after its last heartbeat.
      consequence_ = error;
      consequence_until_ =
          services_.clock->Now() + detection_budget_ + std::chrono::seconds(1);
    }
  }
  if (AllFree()) OnAllDone();
}

void JobActor::OnAllDone() {
  if (phase_ == Phase::kStopping && is_stopped_early_) {
    Finish(v1::JOB_STATE_CANCELLED,
           stop_trouble_.empty()
               ? cancel_reason_
               : absl::StrCat(cancel_reason_,
                              "; trouble while stopping: ", stop_trouble_));
  } else if (consequence_.has_value()) {
    Fail(*consequence_);
  } else if (is_stopped_early_) {
    Fail("the workers stopped early, though nobody had asked them to");
  } else {
    Finish(
        v1::JOB_STATE_SUCCEEDED,
        absl::StrCat("trained ", Plural(aggregator_->num_complete(), "step")));
  }
}

void JobActor::On(const WorkerGone& gone) {
  const int rank = RankOf(gone.departed.worker.id);
  if (rank < 0) return;
  Member& member = members_[static_cast<size_t>(rank)];
  if (member.is_free) return;
  member.is_free = true;  // gone from the roster as well
  const std::string lost =
      absl::StrCat(Describe(member), " was lost ",
                   running_since_.has_value()
                       ? absl::StrCat("at step ", member.steps_done + 1)
                       : std::string("before the first step"),
                   ": ", gone.departed.reason);
  if (phase_ == Phase::kDraining) {
    Drain();
  } else if (phase_ == Phase::kStopping) {
    is_stopped_early_ = true;
    if (stop_trouble_.empty()) stop_trouble_ = lost;
    StopMembers(lost, /*is_at_once=*/true);
    if (AllFree()) OnAllDone();
  } else {
    Fail(lost);
  }
}

void JobActor::On(const CancelRequested& cancel) {
  const std::string reason = cancel.reason.empty()
                                 ? std::string("cancelled")
                                 : absl::StrCat("cancelled: ", cancel.reason);
  switch (phase_) {
    case Phase::kWaiting:
      services_.roster->StopWaiting(job_.id());
      Finish(v1::JOB_STATE_CANCELLED, reason);
      return;
    case Phase::kProfiling:
    case Phase::kStarting:
      Finish(v1::JOB_STATE_CANCELLED, reason);
      return;
    case Phase::kRunning: {
      phase_ = Phase::kStopping;
      cancel_reason_ = reason;
      RecordEvent("worker",
                  absl::StrCat(reason, "; workers end at their next step"));
      StopMembers(reason, /*is_at_once=*/false);
      // Two steps (a wait for data is ten), and time to write the model.
      patience_end_ = services_.clock->Now() + std::chrono::seconds(10) +
                      WaitForData(plan_) / 5 + LongestModelWrite(plan_);
      return;
    }
    case Phase::kStopping:
    case Phase::kDraining:
    case Phase::kDone:
      return;
  }
}

void JobActor::Fail(const std::string& reason) {
  Finish(v1::JOB_STATE_FAILED, reason);
}

void JobActor::Finish(v1::JobState state, const std::string& reason) {
  job_.set_end_time_millis(services_.clock->WallMillis());
  if (running_since_.has_value()) {
    *job_.mutable_result() = aggregator_->Result();
    job_.mutable_result()->set_wall_seconds(
        std::chrono::duration<double>(services_.clock->Now() - *running_since_)
            .count());
  }
  phase_ = Phase::kDraining;
  patience_end_ = services_.clock->Now() + kDrainTime;
  StopMembers(reason, /*is_at_once=*/true);
  // Workers that never heard of the job are free at once.
  for (Member& member : members_) {
    if (!member.is_free && !member.is_assigned) Free(&member);
  }
  const absl::Status recorded = RecordState(state, reason);
  if (!recorded.ok()) {
    LOG_ERROR << job_.id() << ": " << recorded.message();
    // Those who watch must learn the end all the same.
    v1::JobEvent event;
    event.set_kind("state");
    event.set_state(v1::JOB_STATE_FAILED);
    event.set_text(absl::StrCat(
        reason, "; and the end could not be stored: ", recorded.message()));
    *event.mutable_result() = job_.result();
    services_.events->Publish(job_.id(), std::move(event));
  }
  services_.logs->Wake();
  Drain();
}

void JobActor::StopMembers(const std::string& reason, bool is_at_once) {
  v1::CoordinatorMessage message;
  v1::StopTraining& stop = *message.mutable_stop();
  stop.set_job_id(job_.id());
  stop.set_generation(job_.generation());
  stop.set_reason(reason);
  stop.set_at_once(is_at_once);
  for (const Member& member : members_) {
    if (member.is_assigned && !member.is_free) {
      services_.roster->Send(member.info.id, message);
    }
  }
}

void JobActor::Drain() {
  if (AllFree()) phase_ = Phase::kDone;
}

void JobActor::Free(Member* member) {
  member->is_free = true;
  services_.roster->Release(member->info.id, job_.id());
}

bool JobActor::AllFree() const {
  return std::all_of(members_.begin(), members_.end(),
                     [](const Member& member) { return member.is_free; });
}

}  // namespace deltapipe
