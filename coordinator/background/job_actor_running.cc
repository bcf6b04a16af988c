// What workers say while a job trains: steps, validations, parts of
// checkpoints; and what of it is stored for a successor.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/background/job_actor.h"

namespace deltapipe {
namespace {

/// How much of what workers said a successor may have to ask for again.
constexpr Nanos kSaveEvery = std::chrono::seconds(1);
/// Of one report; more of them are no news.
constexpr int kMaxToldChanges = 20;

}  // namespace

void JobActor::On(const WorkerSpoke& spoke) {
  const int rank = RankOf(spoke.worker_id);
  if (rank < 0) return;
  Member& member = members_[static_cast<size_t>(rank)];
  const v1::WorkerMessage& message = spoke.message;
  // Reports of an earlier generation are refused.
  const auto is_ours = [this](const auto& report) {
    return report.job_id() == job_.id() &&
           report.generation() == job_.generation();
  };
  // What comes over a new stream for the second time.
  const auto is_news = [&](const auto& report) {
    if (!is_ours(report)) return false;
    if (message.sequence() == 0) return true;
    if (message.sequence() <= member.last_sequence) return false;
    member.last_sequence = message.sequence();
    is_progress_dirty_ = true;
    return true;
  };
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      if (message.heartbeat().job_id() == job_.id()) {
        member.steps_done =
            std::max(member.steps_done, message.heartbeat().step());
      }
      return;
    case v1::WorkerMessage::kReady:
      if (is_news(message.ready())) OnReady(rank, message.ready());
      return;
    case v1::WorkerMessage::kStep:
      if (is_news(message.step())) OnStep(rank, message.step());
      return;
    case v1::WorkerMessage::kValidation:
      if (is_news(message.validation())) {
        OnValidation(rank, message.validation());
      }
      return;
    case v1::WorkerMessage::kDone:
      if (is_news(message.done())) OnDone(rank, message.done());
      return;
    case v1::WorkerMessage::kShards:
      if (is_news(message.shards())) OnShards(rank, message.shards());
      return;
    case v1::WorkerMessage::kStored:
      if (is_news(message.stored())) OnStored(rank, message.stored());
      return;
    case v1::WorkerMessage::kTuning:
      if (is_ours(message.tuning())) OnTuningAnswer(rank, message.tuning());
      return;
    case v1::WorkerMessage::kTuningApplied:
      if (is_news(message.tuning_applied())) {
        OnTuningApplied(message.tuning_applied());
      }
      return;
    case v1::WorkerMessage::kLog:
      OnLog(member, message.log());
      return;
    case v1::WorkerMessage::kLeaving:
      On(WorkerLeaves{spoke.worker_id, message.leaving().reason()});
      return;
    case v1::WorkerMessage::kTrace:
      if (is_ours(message.trace())) OnTrace(rank, message.trace());
      return;
    case v1::WorkerMessage::kHello:
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      return;
  }
}

void JobActor::OnLog(const Member& member, const v1::LogRecord& log) {
  v1::LogLine line;
  line.set_time_millis(log.time_millis());
  line.set_worker_id(member.info.id);
  line.set_level(log.level());
  line.set_text(log.text());
  const absl::Status stored =
      services_.logs->Append(job_.id(), std::move(line));
  if (!stored.ok()) {
    LOG_WARNING << job_.id() << ": " << stored.message();
  }
}

void JobActor::OnStep(int rank, const v1::StepReport& report) {
  if (!IsTraining()) return;
  Member& member = members_[static_cast<size_t>(rank)];
  member.steps_done = std::max(member.steps_done, report.step() + 1);
  if (services_.metrics != nullptr) {
    const int num_replicas = job_.spec().parallel().replicas();
    services_.metrics->WorkerReported(job_.id(), rank / num_replicas,
                                      rank % num_replicas, report);
  }
  for (const v1::Rebalancing& change : report.rebalancings()) {
    NoteRebalancing(change);
  }
  NoteSavedChanges(rank, report.saved());
  meter_.Add(rank, report);
  sync_meter_.Add(rank, report);
  straggler_watch_.AddReport(rank, report);
  absl::StatusOr<std::optional<v1::StepSummary>> added =
      aggregator_->Add(rank, report);
  if (!added.ok()) {
    Fail(std::string(added.status().message()));
    return;
  }
  if (!added->has_value()) return;
  const v1::StepSummary summary = **std::move(added);
  step_ = summary.step() + 1;
  job_.set_step(step_);
  job_.set_furthest_step(std::max<int64_t>(job_.furthest_step(), step_));
  if (!ledger_.empty()) {
    const int64_t dropped = aggregator_->Result().samples_dropped();
    v1::CommittedRange& range = ledger_.back();
    range.set_end_step(step_);
    range.set_samples_dropped(dropped - range.dropped_before());
    range.set_samples_applied((step_ - range.first_step()) *
                                  job_.spec().train().batch() -
                              range.samples_dropped());
  }
  if (services_.metrics != nullptr) {
    services_.metrics->StepCompleted(job_.id(), summary);
  }
  v1::JobEvent event;
  event.set_kind("step");
  event.set_state(job_.state());
  *event.mutable_step() = summary;
  services_.events->Publish(job_.id(), std::move(event));
  TuneByMeasurement(summary);
  JudgeCompression();
  AskForTraces();
}

void JobActor::NoteSavedChanges(int rank, const v1::SavedReport& saved) {
  const int num_replicas = job_.spec().parallel().replicas();
  const int num_told = std::min(saved.changes_size(), kMaxToldChanges);
  for (int i = 0; i < num_told; ++i) {
    RecordEvent("saved",
                absl::StrCat("stage ", rank / num_replicas, ", replica ",
                             rank % num_replicas, ": ", saved.changes(i)));
  }
  if (saved.changes_size() > num_told) {
    RecordEvent("saved", absl::StrCat("stage ", rank / num_replicas,
                                      ", replica ", rank % num_replicas, ": ",
                                      saved.changes_size() - num_told,
                                      " more changes in these steps"));
  }
}

void JobActor::OnValidation(int rank, const v1::ValidationReport& report) {
  if (!IsTraining()) return;
  const std::optional<ValidationSummary> summary =
      aggregator_->AddValidation(rank, report);
  if (!summary.has_value()) return;
  v1::JobEvent event;
  event.set_kind("validation");
  event.set_state(job_.state());
  v1::StepSummary* const step = event.mutable_step();
  step->set_step(summary->step);
  step->set_total_steps(job_.spec().train().steps());
  step->set_validation_loss(summary->loss);
  std::string accuracy;
  if (summary->accuracy.has_value()) {
    step->set_validation_accuracy(*summary->accuracy);
    accuracy = absl::StrFormat(", accuracy %.2f %%", *summary->accuracy * 100);
  }
  event.set_text(absl::StrFormat(
      "validation loss %.4f%s after step %d (%s tokens)", summary->loss,
      accuracy, summary->step + 1, FormatCount(summary->tokens)));
  if (services_.metrics != nullptr) {
    services_.metrics->Validated(job_.id(), *step);
  }
  Record(std::move(event));
}

void JobActor::OnShards(int rank, const v1::CheckpointShards& shards) {
  if (!IsTraining()) return;
  const auto commit = book_->AddPart(rank, shards, TuningJson());
  if (!commit.has_value()) return;
  // A successor must be able to make the same manifest.
  SaveProgress();
  SendCommit(*commit);
  NoteFailedCheckpoint();
}

void JobActor::SendCommit(const v1::CommitCheckpoint& commit) {
  v1::CoordinatorMessage message;
  *message.mutable_commit_checkpoint() = commit;
  SendToAll(message);
}

void JobActor::NoteFailedCheckpoint() {
  const std::string errors = book_->TakeErrors();
  if (errors.empty()) return;
  RecordEvent("warning", absl::StrCat("no checkpoint: ", errors));
  if (phase_ != Phase::kPausing || is_stop_at_once_) return;
  // The workers go on as if nobody had asked.
  phase_ = Phase::kRunning;
  job_.clear_wish();
  RecordEvent("warning", "not paused, training goes on");
  if (starts_again_) {
    starts_again_ = false;
    GoBack("a worker leaves, and no checkpoint could be written", kWorkerLeft);
  }
}

void JobActor::OnStored(int rank, const v1::CheckpointStored& stored) {
  if (!IsTraining()) return;
  const auto complete = book_->AddStored(rank, stored);
  if (!stored.error().empty()) {
    RecordEvent("warning",
                absl::StrCat("no checkpoint: ", book_->TakeErrors()));
  }
  if (!complete.has_value()) return;
  checkpoints_ = book_->kept();
  // Should the newest be damaged, steps since the one before are done again.
  if (checkpoints_.size() > 1) {
    int64_t oldest = complete->folder.step();
    for (const v1::CheckpointFolder& kept : checkpoints_) {
      oldest = std::min<int64_t>(oldest, kept.step());
    }
    aggregator_->ForgetExecutedBefore(oldest);
  }
  job_.set_checkpoint_step(complete->folder.step());
  if (checkpoint_after_.has_value() &&
      complete->folder.step() > *checkpoint_after_) {
    checkpoint_after_.reset();
  }
  if (services_.metrics != nullptr) {
    services_.metrics->CheckpointCommitted(
        job_.id(), complete->folder.step(), complete->folder.bytes(),
        complete->seconds, complete->stall_seconds);
  }
  v1::JobEvent event;
  event.set_kind("checkpoint");
  event.set_state(job_.state());
  event.set_text(absl::StrFormat(
      "checkpoint %s: %s, training stood for %.0f ms, written after %.1f s",
      complete->folder.name(), FormatBytes(complete->folder.bytes()),
      complete->stall_seconds * 1e3, complete->seconds));
  event.mutable_step()->set_step(complete->folder.step() - 1);
  JobChange change{job_.id(), job_, std::nullopt, std::move(event)};
  change.progress = Progress();
  const absl::Status recorded = Store(std::move(change));
  if (!recorded.ok()) {
    LOG_WARNING << job_.id() << ": " << recorded.message();
  }
}

void JobActor::On(const CheckpointRequested& request) {
  if (phase_ != Phase::kRunning) {
    request.reply(absl::FailedPreconditionError(
        absl::StrCat("job '", job_.id(), "' is ", StateName(job_.state()),
                     ": a checkpoint can be asked for while it trains")));
    return;
  }
  const std::optional<int64_t> promised = checkpoint_after_;
  checkpoint_after_ = step_;
  // Whoever is answered gets one, also from a successor.
  const absl::Status stored = StoreProgress();
  if (!stored.ok()) {
    checkpoint_after_ = promised;
    request.reply(stored);
    return;
  }
  SendToAll(RequestCheckpointMessage());
  request.reply(absl::OkStatus());
}

v1::CoordinatorMessage JobActor::RequestCheckpointMessage() const {
  v1::CoordinatorMessage message;
  message.mutable_request_checkpoint()->set_job_id(job_.id());
  message.mutable_request_checkpoint()->set_generation(job_.generation());
  message.mutable_request_checkpoint()->set_after_step(*checkpoint_after_);
  return message;
}

void JobActor::On(const Tick&) {
  const Nanos now = services_.clock->Now();
  if (is_progress_dirty_ && now - progress_saved_ >= kSaveEvery) {
    SaveProgress();
  }
  if (pending_tuning_.has_value() && !pending_tuning_->is_decided &&
      now >= pending_tuning_->patience_end) {
    DecideTuning(false);
    EndTuning(absl::DeadlineExceededError(
        "not all workers said in time that they can make the change; nothing "
        "was changed"));
  }
  LoseTheMissed();
  if (consequence_.has_value() && now >= consequence_until_ &&
      (phase_ == Phase::kStarting || phase_ == Phase::kRunning)) {
    GoBack(*consequence_, kConnection);
    return;
  }
  switch (phase_) {
    case Phase::kStarting: {
      if (now < patience_end_) return;
      if (consequence_.has_value()) {
        Fail(*consequence_);
        return;
      }
      std::vector<std::string> slow;
      for (const Member& member : members_) {
        if (!member.ready.has_value()) slow.push_back(Describe(member));
      }
      Fail(absl::StrCat("not ready within ", FormatDuration(kStartTime), ": ",
                        absl::StrJoin(slow, ", "),
                        "; see the job's logs for what they waited for"));
      return;
    }
    case Phase::kStopping:
    case Phase::kPausing:
      if (now < patience_end_) return;
      if (is_stop_at_once_) {
        if (phase_ == Phase::kStopping) {
          Finish(v1::JOB_STATE_CANCELLED,
                 absl::StrCat(cancel_reason_, "; some workers did not stop"));
        } else {
          DismissTheRest();
          OnPaused();
        }
        return;
      }
      is_stop_at_once_ = true;
      patience_end_ = now + kDrainTime;
      StopMembers(phase_ == Phase::kStopping ? cancel_reason_ : pause_reason_,
                  /*is_at_once=*/true);
      return;
    case Phase::kGoingBack:
      if (now < patience_end_) return;
      DismissTheRest();
      WaitAgain(job_.reason());
      return;
    case Phase::kDraining:
      if (now < patience_end_) return;
      DismissTheRest();
      Drain();
      return;
    case Phase::kWaiting:
      TryToStart();  // another job may have set workers free
      return;
    case Phase::kRunning:
    case Phase::kProfiling:
    case Phase::kDone:
      return;
  }
}

v1::JobProgress JobActor::Progress() const {
  v1::JobProgress progress;
  progress.set_generation(job_.generation());
  for (const Member& member : members_) {
    auto* rank = progress.add_ranks();
    rank->set_last_sequence(member.last_sequence);
    if (member.done.has_value()) *rank->mutable_done() = *member.done;
  }
  if (aggregator_ != nullptr) aggregator_->Save(&progress);
  if (book_ != nullptr) {
    book_->Save(&progress);
  } else {
    for (const v1::CheckpointFolder& folder : checkpoints_) {
      *progress.add_checkpoints() = folder;
    }
  }
  for (const v1::CommittedRange& range : ledger_)
    *progress.add_ledger() = range;
  *progress.mutable_tuning() = tuning_;
  SaveDecidedTuning(&progress);
  if (checkpoint_after_.has_value()) {
    progress.set_checkpoint_after(*checkpoint_after_);
  }
  progress.set_train_samples(train_samples_);
  progress.set_wall_seconds(WallSeconds());
  progress.set_restarts_in_vain(restarts_in_vain_);
  progress.set_furthest_at_restart(furthest_at_restart_);
  return progress;
}

double JobActor::WallSeconds() const {
  if (!running_since_.has_value()) return former_wall_seconds_;
  return former_wall_seconds_ +
         std::chrono::duration<double>(services_.clock->Now() - *running_since_)
             .count();
}

absl::Status JobActor::StoreProgress() {
  JobChange change{job_.id(), job_, std::nullopt, std::nullopt};
  change.progress = Progress();
  std::string stragglers = StragglerMemoryText(RememberStragglers());
  if (stragglers != stored_stragglers_) change.stragglers = stragglers;
  const absl::Status stored = Store(std::move(change));
  if (stored.ok()) stored_stragglers_ = std::move(stragglers);
  return stored;
}

void JobActor::SaveProgress() {
  if (aggregator_ == nullptr) return;
  // Workers keep what is not acknowledged; the next change of state meets the
  // same store.
  const absl::Status saved = StoreProgress();
  if (!saved.ok()) {
    LOG_WARNING << job_.id() << ": " << saved.message();
  }
}

void JobActor::Acknowledge() {
  for (Member& member : members_) {
    if (member.last_sequence == member.acknowledged) continue;
    v1::CoordinatorMessage message;
    message.mutable_acknowledge()->set_job_id(job_.id());
    message.mutable_acknowledge()->set_generation(job_.generation());
    message.mutable_acknowledge()->set_sequence(member.last_sequence);
    services_.roster->Send(member.info.id, message);
    member.acknowledged = member.last_sequence;
  }
}

}  // namespace deltapipe
