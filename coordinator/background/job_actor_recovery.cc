// How a job survives: workers that are lost, come back or leave, pauses, and
// the coordinator's own restart.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"
#include "base/log.h"
#include "base/units.h"
#include "coordinator/background/assignments.h"
#include "coordinator/background/job_actor.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

/// How many detection budgets workers have to come back to a coordinator that
/// was started again.
constexpr int kReturnBudgets = 3;

}  // namespace

void JobActor::GoOn(const std::optional<v1::Plan>& plan,
                    const std::optional<v1::JobProgress>& progress,
                    const std::string& stragglers,
                    const std::string& tuning_answers) {
  // Whoever trains has begun a range of the ledger.
  const bool was_training =
      plan.has_value() && progress.has_value() &&
      progress->generation() == job_.generation() &&
      progress->ranks_size() == job_.members_size() &&
      progress->ledger_size() > 0 &&
      progress->ledger(progress->ledger_size() - 1).generation() ==
          job_.generation();
  if (!was_training) {
    job_.set_resume(job_.resume() || job_.checkpoint_step() > 0);
    if (progress.has_value() && plan.has_value()) plan_ = *plan;
    Start(progress, tuning_answers);
    return;
  }
  LoadTuningAnswers(tuning_answers);
  plan_ = *plan;
  tuning_ = progress->tuning();
  ledger_.assign(progress->ledger().begin(), progress->ledger().end());
  train_samples_ = progress->train_samples();
  former_wall_seconds_ = progress->wall_seconds();
  restarts_in_vain_ = progress->restarts_in_vain();
  furthest_at_restart_ = progress->furthest_at_restart();
  running_since_ = services_.clock->Now();
  progress_saved_ = *running_since_;
  const int num_replicas = job_.spec().parallel().replicas();
  for (const v1::JobMember& told : job_.members()) {
    const auto& rank = progress->ranks(told.rank());
    Member member;
    member.info.id = told.worker_id();
    member.info.host = told.host();
    member.info.data_address = told.data_address();
    member.info.pid = told.pid();
    member.is_assigned = true;
    member.is_leaving = !told.leaves().empty();
    member.last_sequence = rank.last_sequence();
    member.steps_done = rank.last_step() + 1;
    if (rank.has_done()) {
      member.done = rank.done();
      member.is_free = true;
      is_stopped_early_ = is_stopped_early_ || rank.done().stopped_early();
    } else {
      member.is_away = true;
      services_.roster->Expect(
          member.info, job_.id(), told.rank() / num_replicas,
          told.rank() % num_replicas, job_.generation(),
          kReturnBudgets * detection_budget_, detection_budget_);
    }
    members_.push_back(std::move(member));
  }
  aggregator_ = std::make_unique<StepAggregator>(Shape());
  const absl::Status loaded = aggregator_->Load(*progress);
  if (!loaded.ok()) {
    Fail(std::string(loaded.message()));
    return;
  }
  step_ = aggregator_->num_complete();
  job_.set_step(step_);
  MakeBook();
  book_->Load(*progress, TuningJson());  // sent again as workers return
  checkpoints_ = book_->kept();
  LoadDecidedTuning(*progress);
  if (progress->has_checkpoint_after()) {
    checkpoint_after_ = progress->checkpoint_after();
  }
  back_until_ = services_.clock->Now() + detection_budget_;
  phase_ = Phase::kRunning;
  BeginTraces();
  const int64_t num_away =
      std::count_if(members_.begin(), members_.end(),
                    [](const Member& member) { return member.is_away; });
  RecordEvent(
      "worker",
      absl::StrCat("the coordinator is back at step ", step_.load(), "; ",
                   Plural(num_away, "worker"), " went on training and ",
                   num_away == 1 ? "is" : "are", " expected within ",
                   FormatDuration(kReturnBudgets * detection_budget_)));
  if (services_.metrics != nullptr) services_.metrics->JobStarted(job_, plan_);
  RestoreStragglers(stragglers);
  if (job_.wish() == v1::JOB_WISH_CANCEL) {
    phase_ = Phase::kStopping;
    cancel_reason_ = job_.wish_reason();
  } else if (job_.wish() == v1::JOB_WISH_PAUSE) {
    phase_ = Phase::kPausing;
    pause_reason_ = job_.wish_reason();
  } else if (const int rank = FirstLeaver(); rank >= 0) {
    phase_ = Phase::kPausing;
    pause_reason_ = LeaveText(rank);
    starts_again_ = true;
  }
  patience_end_ = services_.clock->Now() + kReturnBudgets * detection_budget_ +
                  StopPatience();
  if (AllFree()) OnAllDone();
}

void JobActor::On(const WorkerReturned& returned) {
  const int rank = RankOf(returned.worker_id);
  if (rank < 0) return;
  Member& member = members_[static_cast<size_t>(rank)];
  const auto info = services_.roster->Find(returned.worker_id);
  if (info.has_value()) member.info = *info;
  member.is_away = false;
  member.acknowledged = 0;
  RecordEvent("worker", absl::StrCat(Describe(member), " is back"));
  // What it may have missed. Each is idempotent.
  if (IsTraining()) {
    services_.roster->Send(member.info.id, StartMessage());
    for (const v1::CommitCheckpoint& commit :
         book_->OpenCommits(TuningJson())) {
      v1::CoordinatorMessage message;
      *message.mutable_commit_checkpoint() = commit;
      services_.roster->Send(member.info.id, message);
    }
    ResendTuning(member);
    if (checkpoint_after_.has_value()) {
      services_.roster->Send(member.info.id, RequestCheckpointMessage());
    }
  }
  if (phase_ == Phase::kStopping) {
    SendStop(member, cancel_reason_, is_stop_at_once_, false);
  } else if (phase_ == Phase::kPausing) {
    SendStop(member, pause_reason_, is_stop_at_once_, true);
  } else if (phase_ == Phase::kGoingBack || phase_ == Phase::kDraining) {
    SendStop(member, job_.reason(), /*is_at_once=*/true, false);
  }
  Acknowledge();
}

void JobActor::On(const WorkerGone& gone) {
  const int rank = RankOf(gone.departed.worker.id);
  if (rank < 0) return;
  Member& member = members_[static_cast<size_t>(rank)];
  if (member.is_free) return;
  if (gone.departed.is_away) {
    member.is_away = true;
    // Nobody waits for one that had to end, or not begun.
    if (!IsTraining() || member.is_leaving) {
      if (services_.roster->Forget(member.info.id)) {
        Lose(rank, gone.departed.reason);
      }
      return;
    }
    LoseTheMissed();
    return;
  }
  Lose(rank, gone.departed.reason);
}

void JobActor::LoseTheMissed() {
  if (!consequence_.has_value() ||
      (phase_ != Phase::kStarting && !IsTraining())) {
    return;
  }
  // Who has yet to find this coordinator may be well.
  if (services_.clock->Now() < back_until_) return;
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    const Member& member = members_[rank];
    if (!member.is_away || member.is_free ||
        !services_.roster->Forget(member.info.id)) {
      continue;
    }
    Lose(static_cast<int>(rank),
         "its connection closed, and its peers cannot reach it");
    return;
  }
}

void JobActor::Lose(int rank, const std::string& why) {
  Member& member = members_[static_cast<size_t>(rank)];
  member.is_free = true;  // gone from the roster as well
  member.is_away = false;
  const std::string lost =
      absl::StrCat(Describe(member), " was lost ",
                   running_since_.has_value()
                       ? absl::StrCat("at step ", member.steps_done + 1)
                       : std::string("before the first step"),
                   ": ", why);
  switch (phase_) {
    case Phase::kDraining:
      Drain();
      return;
    case Phase::kStopping:
    case Phase::kPausing:
      is_stopped_early_ = true;
      is_stop_at_once_ = true;
      if (stop_trouble_.empty()) stop_trouble_ = lost;
      StopMembers(lost, /*is_at_once=*/true);
      if (AllFree()) OnAllDone();
      return;
    case Phase::kGoingBack:
      if (AllFree()) WaitAgain(job_.reason());
      return;
    case Phase::kProfiling:
    case Phase::kStarting:
    case Phase::kRunning:
      GoBack(lost, kWorkerLost);
      return;
    case Phase::kWaiting:
    case Phase::kDone:
      return;
  }
}

void JobActor::GoBack(const std::string& reason, const char* cause) {
  const int max_restarts = job_.spec().failure().max_restarts();
  if (job_.furthest_step() > furthest_at_restart_) {
    furthest_at_restart_ = job_.furthest_step();
    restarts_in_vain_ = 0;
  }
  if (restarts_in_vain_ >= max_restarts) {
    Fail(max_restarts == 0
             ? reason
             : absl::StrCat(reason, "; the job was started again ",
                            Plural(restarts_in_vain_, "time"),
                            " without getting further than step ",
                            furthest_at_restart_, " (failure.max_restarts)"));
    return;
  }
  ++restarts_in_vain_;
  if (services_.metrics != nullptr) {
    services_.metrics->WentBack(job_.id(), cause);
  }
  job_.set_restarts(job_.restarts() + 1);
  EndTuning(absl::UnavailableError(absl::StrCat(
      "the job goes back to a checkpoint and the change was dropped: ",
      reason)));
  const std::string text = absl::StrCat(
      reason, "; the job goes back to ",
      job_.checkpoint_step() > 0 ? absl::StrCat("step ", job_.checkpoint_step(),
                                                ", its last checkpoint")
                                 : std::string("its beginning"));
  RecordEvent("restart", text);
  EndGeneration(reason);
}

void JobActor::EndGeneration(const std::string& reason) {
  job_.set_reason(reason);
  phase_ = Phase::kGoingBack;
  starts_again_ = true;
  patience_end_ = services_.clock->Now() + kDrainTime;
  StopMembers(reason, /*is_at_once=*/true);
  FreeUnassigned();
  if (AllFree()) WaitAgain(reason);
}

void JobActor::WaitAgain(const std::string& reason) {
  former_ranks_.clear();
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    former_ranks_[members_[rank].info.id] = static_cast<int>(rank);
  }
  members_.clear();
  book_.reset();
  meter_.Clear();
  tuner_ = TunerState();
  sync_meter_.Clear();
  verdict_.reset();
  consequence_.reset();
  is_stopped_early_ = false;
  is_stop_at_once_ = false;
  back_until_ = Nanos{0};
  stop_trouble_.clear();
  job_.set_resume(true);
  if (!starts_again_) {  // a pause was asked for meanwhile
    Finish(v1::JOB_STATE_PAUSED, pause_reason_);
    return;
  }
  starts_again_ = false;
  phase_ = Phase::kWaiting;
  const absl::Status recorded = RecordState(
      v1::JOB_STATE_PENDING, absl::StrCat("starts again: ", reason));
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  announced_.clear();
  waiting_since_ = services_.clock->Now();
  services_.roster->WaitFirst(job_.id(), Demand());
  TryToStart();
}

void JobActor::On(const WorkerLeaves& leaves) {
  const int rank = RankOf(leaves.worker_id);
  if (rank < 0 || members_[static_cast<size_t>(rank)].is_free) {
    leaves.reply(absl::NotFoundError(absl::StrCat(
        "job '", job_.id(), "' does not hold ", leaves.worker_id)));
    return;
  }
  Member& member = members_[static_cast<size_t>(rank)];
  if (!member.is_leaving) {
    // Whoever is answered must be obeyed, also by a successor.
    job_.mutable_members(rank)->set_leaves(
        leaves.reason.empty() ? "it was asked to" : leaves.reason);
    v1::JobEvent event;
    event.set_kind("worker");
    event.set_state(job_.state());
    event.set_text(LeaveText(rank));
    const absl::Status stored =
        Store(JobChange{job_.id(), job_, std::nullopt, std::move(event)});
    if (!stored.ok()) {
      job_.mutable_members(rank)->clear_leaves();
      leaves.reply(stored);
      return;
    }
    member.is_leaving = true;
    if (phase_ == Phase::kRunning) {
      starts_again_ = true;
      BeginPause(LeaveText(rank));
    } else if (phase_ == Phase::kProfiling || phase_ == Phase::kStarting) {
      EndGeneration(LeaveText(rank));
    }
  }
  leaves.reply(absl::OkStatus());
}

int JobActor::FirstLeaver() const {
  for (const v1::JobMember& member : job_.members()) {
    if (!member.leaves().empty()) return member.rank();
  }
  return -1;
}

std::string JobActor::LeaveText(int rank) const {
  return absl::StrCat(Describe(members_[static_cast<size_t>(rank)]),
                      " leaves: ", job_.members(rank).leaves());
}

void JobActor::SendLeaversAway() {
  for (const v1::JobMember& member : job_.members()) {
    if (member.leaves().empty()) continue;
    services_.roster->SendAway(member.worker_id(), member.host(), member.pid(),
                               member.leaves());
  }
}

void JobActor::On(const PauseRequested& pause) {
  const std::string reason = pause.reason.empty()
                                 ? std::string("paused")
                                 : absl::StrCat("paused: ", pause.reason);
  if (phase_ == Phase::kStopping || phase_ == Phase::kDraining ||
      phase_ == Phase::kDone) {
    pause.reply(absl::FailedPreconditionError(
        absl::StrCat("job '", job_.id(), "' is ", StateName(job_.state()), " (",
                     job_.reason(), "): nothing to pause")));
    return;
  }
  job_.set_wish(v1::JOB_WISH_PAUSE);
  job_.set_wish_reason(reason);
  const absl::Status stored =
      Store(JobChange{job_.id(), job_, std::nullopt, std::nullopt});
  if (!stored.ok()) {
    job_.clear_wish();
    pause.reply(stored);
    return;
  }
  pause_reason_ = reason;
  switch (phase_) {
    case Phase::kWaiting:
      services_.roster->StopWaiting(job_.id());
      Finish(v1::JOB_STATE_PAUSED, reason);
      break;
    case Phase::kProfiling:
    case Phase::kStarting:
      Finish(v1::JOB_STATE_PAUSED, reason);
      break;
    case Phase::kPausing:  // for a worker that leaves: now for good
    case Phase::kGoingBack:
      starts_again_ = false;
      break;
    case Phase::kRunning:
      starts_again_ = false;
      BeginPause(reason);
      break;
    case Phase::kStopping:
    case Phase::kDraining:
    case Phase::kDone:
      break;
  }
  // Only now: whoever is answered looks at the job.
  pause.reply(absl::OkStatus());
}

void JobActor::BeginPause(const std::string& reason) {
  phase_ = Phase::kPausing;
  pause_reason_ = reason;
  is_stop_at_once_ = false;
  RecordEvent("worker",
              absl::StrCat(reason,
                           "; workers write a checkpoint after their next "
                           "step and end there"));
  StopMembers(reason, /*is_at_once=*/false, /*writes_checkpoint=*/true);
  patience_end_ = services_.clock->Now() + StopPatience();
}

Nanos JobActor::StopPatience() const {
  // Two steps (a wait for data is ten), and time to write the model, or some
  // five times as much for a checkpoint.
  return std::chrono::seconds(10) + WaitForData(plan_) / 5 +
         5 * LongestModelWrite(plan_);
}

void JobActor::OnPaused() {
  int64_t step = job_.checkpoint_step();
  std::string text = pause_reason_;
  if (!stop_trouble_.empty()) {
    absl::StrAppend(&text, "; trouble while pausing: ", stop_trouble_);
  }
  absl::StrAppend(&text, step > 0
                             ? absl::StrCat(", at step ", step)
                             : std::string(", and starts from the beginning"));
  if (starts_again_) {
    WaitAgain(text);
    return;
  }
  Finish(v1::JOB_STATE_PAUSED, text);
}

}  // namespace deltapipe
