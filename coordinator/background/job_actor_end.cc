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
  member.done = done;
  Free(&member);
  if (phase_ == Phase::kDraining) {
    Acknowledge();
    Drain();
    return;
  }
  if (phase_ == Phase::kGoingBack) {
    Acknowledge();
    if (AllFree()) WaitAgain(job_.reason());
    return;
  }
  if (!done.model_path().empty()) {
    const size_t slash = done.model_path().rfind('/');
    job_.set_model_folder(absl::StrCat(
        member.info.host, ":",
        slash == std::string::npos ? "." : done.model_path().substr(0, slash)));
    RecordEvent("model", absl::StrCat("model written to ", member.info.host,
                                      ":", done.model_path()));
  }
  is_stopped_early_ = is_stopped_early_ || done.stopped_early();
  if (done.error_code() != 0) {
    const std::string error =
        absl::StrCat(Describe(member), ": ", done.error_message());
    if (phase_ == Phase::kStopping || phase_ == Phase::kPausing) {
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
      LoseTheMissed();
      if (phase_ != Phase::kRunning && phase_ != Phase::kStarting) return;
    }
  }
  if (AllFree()) {
    OnAllDone();
  } else {
    SaveProgress();
  }
}

void JobActor::OnAllDone() {
  const bool is_paused =
      phase_ == Phase::kPausing &&
      (is_stopped_early_ || is_stop_at_once_ || consequence_.has_value());
  if (is_paused) {
    OnPaused();
  } else if (phase_ == Phase::kStopping && is_stopped_early_) {
    Finish(v1::JOB_STATE_CANCELLED,
           stop_trouble_.empty()
               ? cancel_reason_
               : absl::StrCat(cancel_reason_,
                              "; trouble while stopping: ", stop_trouble_));
  } else if (consequence_.has_value()) {
    GoBack(*consequence_, kConnection);
  } else if (is_stopped_early_) {
    Fail("the workers stopped early, though nobody had asked them to");
  } else {
    Finish(
        v1::JOB_STATE_SUCCEEDED,
        absl::StrCat("trained ", Plural(aggregator_->num_complete(), "step")));
  }
}

void JobActor::On(const CancelRequested& cancel) {
  const std::string reason = cancel.reason.empty()
                                 ? std::string("cancelled")
                                 : absl::StrCat("cancelled: ", cancel.reason);
  if (phase_ == Phase::kDraining || phase_ == Phase::kDone) {
    cancel.reply(absl::FailedPreconditionError(
        absl::StrCat("job '", job_.id(), "' is ", StateName(job_.state()),
                     " already (", job_.reason(), "): nothing to cancel")));
    return;
  }
  if (phase_ != Phase::kStopping) {
    // Whoever is answered must be obeyed, also by a successor.
    job_.set_wish(v1::JOB_WISH_CANCEL);
    job_.set_wish_reason(reason);
    const absl::Status stored =
        Store(JobChange{job_.id(), job_, std::nullopt, std::nullopt});
    if (!stored.ok()) {
      job_.clear_wish();
      cancel.reply(stored);
      return;
    }
  }
  switch (phase_) {
    case Phase::kWaiting:
      services_.roster->StopWaiting(job_.id());
      Finish(v1::JOB_STATE_CANCELLED, reason);
      break;
    case Phase::kProfiling:
    case Phase::kStarting:
    case Phase::kGoingBack:
      Finish(v1::JOB_STATE_CANCELLED, reason);
      break;
    case Phase::kPausing:
    case Phase::kRunning:
      phase_ = Phase::kStopping;
      cancel_reason_ = reason;
      RecordEvent("worker",
                  absl::StrCat(reason, "; workers end at their next step"));
      StopMembers(reason, /*is_at_once=*/false);
      patience_end_ = services_.clock->Now() + StopPatience();
      break;
    case Phase::kStopping:
    case Phase::kDraining:
    case Phase::kDone:
      break;
  }
  // Only now: whoever is answered looks at the job.
  cancel.reply(absl::OkStatus());
}

void JobActor::Fail(const std::string& reason) {
  Finish(v1::JOB_STATE_FAILED, reason);
}

void JobActor::Finish(v1::JobState state, const std::string& reason) {
  job_.set_end_time_millis(services_.clock->WallMillis());
  job_.clear_wish();
  job_.clear_wish_reason();
  if (running_since_.has_value()) {
    *job_.mutable_result() = aggregator_->Result();
    job_.mutable_result()->set_wall_seconds(WallSeconds());
  }
  phase_ = Phase::kDraining;
  patience_end_ = services_.clock->Now() + kDrainTime;
  StopMembers(reason, /*is_at_once=*/true);
  FreeUnassigned();
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
  EndTuning(absl::FailedPreconditionError(
      absl::StrCat("job '", job_.id(), "' has ended: ", reason)));
  Drain();
}

void JobActor::StopMembers(const std::string& reason, bool is_at_once,
                           bool writes_checkpoint) {
  for (const Member& member : members_) {
    if (member.is_assigned && !member.is_free) {
      SendStop(member, reason, is_at_once, writes_checkpoint);
    }
  }
}

void JobActor::SendStop(const Member& member, const std::string& reason,
                        bool is_at_once, bool writes_checkpoint) {
  v1::CoordinatorMessage message;
  v1::StopTraining& stop = *message.mutable_stop();
  stop.set_job_id(job_.id());
  stop.set_generation(job_.generation());
  stop.set_reason(reason);
  stop.set_at_once(is_at_once);
  stop.set_writes_checkpoint(writes_checkpoint);
  services_.roster->Send(member.info.id, message);
}

void JobActor::DismissTheRest() {
  for (Member& member : members_) {
    if (member.is_free) continue;
    LOG_WARNING << job_.id() << ": " << Describe(member)
                << " did not stop within " << FormatDuration(kDrainTime)
                << " and is sent away";
    services_.roster->Dismiss(member.info.id,
                              "did not stop when it was asked to");
    member.is_free = true;
  }
}

void JobActor::Drain() {
  if (AllFree()) phase_ = Phase::kDone;
}

void JobActor::Free(Member* member) {
  member->is_free = true;
  if (member->is_leaving) {
    services_.roster->Dismiss(member->info.id,
                              job_.members(RankOf(member->info.id)).leaves());
  } else {
    services_.roster->Release(member->info.id, job_.id());
  }
}

void JobActor::FreeUnassigned() {
  for (Member& member : members_) {
    if (!member.is_free && !member.is_assigned) Free(&member);
  }
}

bool JobActor::AllFree() const {
  return std::all_of(members_.begin(), members_.end(),
                     [](const Member& member) { return member.is_free; });
}

}  // namespace deltapipe
