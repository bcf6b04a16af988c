#include "coordinator/background/job_actor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/background/assignments.h"

namespace deltapipe {
namespace {

/// Heartbeats come twice a second; a shorter budget would find everyone dead.
constexpr Nanos kLeastBudget = std::chrono::milliseconds(1500);

Nanos WantedBudget(const v1::JobSpec& spec) {
  const auto budget = ParseDuration(spec.failure().detection_budget());
  // The spec was checked at submit; an absent field is the default.
  return budget.ok() && *budget > Nanos(0) ? *budget : std::chrono::seconds(10);
}

}  // namespace

JobActor::JobActor(v1::Job job, JobServices services,
                   std::function<void(const v1::JobSpec&)> start_profile)
    : services_(std::move(services)),
      start_profile_(std::move(start_profile)),
      detection_budget_(std::max(WantedBudget(job.spec()), kLeastBudget)),
      job_(std::move(job)) {}

void JobActor::Start() {
  if (WantedBudget(job_.spec()) < detection_budget_) {
    RecordEvent(
        "warning",
        absl::StrCat("failure.detection_budget ",
                     job_.spec().failure().detection_budget(), " is raised to ",
                     FormatDuration(detection_budget_), ": three heartbeats"));
  }
  WorkerDemand demand;
  demand.count =
      job_.spec().parallel().stages() * job_.spec().parallel().replicas();
  demand.needs_cuda = job_.spec().parallel().device() == "cuda";
  services_.roster->Wait(job_.id(), demand);
  waiting_since_ = services_.clock->Now();
  TryToStart();
}

void JobActor::Handle(const JobMessage& message) {
  std::visit([this](const auto& told) { On(told); }, message);
}

void JobActor::On(const RosterChanged&) {
  if (phase_ == Phase::kWaiting) TryToStart();
}

void JobActor::TryToStart() {
  Reservation reservation =
      services_.roster->TryReserve(job_.id(), detection_budget_);
  if (reservation.workers.empty()) {
    AnnounceMissing(reservation);
  } else {
    Begin(std::move(reservation.workers));
  }
}

void JobActor::AnnounceMissing(const Reservation& reservation) {
  const int num_wanted =
      job_.spec().parallel().stages() * job_.spec().parallel().replicas();
  const bool needs_cuda = job_.spec().parallel().device() == "cuda";
  const std::string text =
      reservation.num_missing == 0
          ? std::string("waits for an earlier job to take its workers")
          : absl::StrCat("waits for ", Plural(num_wanted, "worker"),
                         needs_cuda ? " with a GPU: " : ": ",
                         num_wanted - reservation.num_missing, " idle, ",
                         reservation.num_missing,
                         " missing (each is a deltapipe-worker --coordinator "
                         "HOST:PORT)");
  // Workers that are just being started are no news.
  const bool is_news = services_.clock->Now() - waiting_since_ >= kQuietWait;
  if (text == (is_news ? announced_ : job_.reason())) return;
  job_.set_reason(text);
  if (is_news) {
    announced_ = text;
    RecordEvent("worker", text);
  } else {
    Record(std::nullopt);
  }
}

void JobActor::Begin(std::vector<WorkerInfo> workers) {
  const int num_replicas = job_.spec().parallel().replicas();
  AggregatorShape shape;
  shape.num_stages = job_.spec().parallel().stages();
  shape.num_replicas = num_replicas;
  shape.total_steps = job_.spec().train().steps();
  shape.batch_samples = job_.spec().train().batch();
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    const WorkerInfo& worker = workers[rank];
    services_.roster->SetPlace(worker.id, static_cast<int>(rank) / num_replicas,
                               static_cast<int>(rank) % num_replicas);
    shape.worker_ids.push_back(worker.id);
    job_.add_workers(absl::StrCat(worker.id, " (", worker.host, " ",
                                  worker.data_address, ")"));
    Member member;
    member.info = worker;
    members_.push_back(std::move(member));
  }
  aggregator_ = std::make_unique<StepAggregator>(std::move(shape));
  phase_ = Phase::kProfiling;

  const absl::StatusOr<uint64_t> generation = services_.store->NewGeneration();
  if (!generation.ok()) {
    Fail(std::string(generation.status().message()));
    return;
  }
  job_.set_generation(*generation);
  const absl::Status recorded = RecordState(
      v1::JOB_STATE_STARTING,
      absl::StrCat("starts on ",
                   Plural(static_cast<int64_t>(workers.size()), "worker")));
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  if (job_.spec().model().kind() == "synthetic") {
    PlanAndAssign(v1::StageProfile());
    return;
  }
  if (start_profile_ == nullptr) {
    Fail(
        "this coordinator has no way to measure layer costs: it was started "
        "without a worker program beside it");
    return;
  }
  v1::JobSpec spec = job_.spec();
  const std::vector<int> threads = ThreadsOfWorkers(spec, workers);
  spec.mutable_parallel()->set_threads(
      *std::min_element(threads.begin(), threads.end()));
  spec.mutable_parallel()->set_device(
      DeviceToProfile(spec, workers, services_.host));
  start_profile_(spec);
}

void JobActor::On(const Profiled& profiled) {
  if (phase_ != Phase::kProfiling) return;
  if (!profiled.profile.ok()) {
    Fail(absl::StrCat("measuring layer costs failed: ",
                      profiled.profile.status().message()));
    return;
  }
  PlanAndAssign(*profiled.profile);
}

void JobActor::PlanAndAssign(const v1::StageProfile& profile) {
  PlanRequest request;
  request.spec = job_.spec();
  request.profile = profile;
  request.train_samples = EstimateTrainSamples(job_.spec());
  std::vector<WorkerInfo> workers;
  for (const Member& member : members_) workers.push_back(member.info);
  request.worker_memory_bytes = LeastWorkerMemory(workers);
  request.compute_slowdown = ComputeSlowdown(job_.spec(), workers);
  absl::StatusOr<PlanAnswer> answer = services_.plan(request);
  if (!answer.ok()) {
    Fail(absl::StrCat("no plan: ", answer.status().message()));
    return;
  }
  plan_ = std::move(answer->plan);
  JobChange change{job_.id(), std::nullopt, plan_, std::nullopt};
  const absl::Status recorded = services_.events->Record(std::move(change));
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  for (const std::string& note : answer->notes) RecordEvent("plan", note);

  phase_ = Phase::kStarting;
  patience_end_ = services_.clock->Now() + kStartTime;
  std::vector<v1::Assignment> assignments =
      MakeAssignments(job_, plan_, workers);
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    assignments[rank].set_start_seconds(
        std::chrono::duration<double>(kConnectTime).count());
    v1::CoordinatorMessage message;
    *message.mutable_assignment() = std::move(assignments[rank]);
    members_[rank].is_assigned = true;
    services_.roster->Send(members_[rank].info.id, message);
  }
}

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
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      if (message.heartbeat().job_id() == job_.id()) {
        member.steps_done =
            std::max(member.steps_done, message.heartbeat().step());
      }
      return;
    case v1::WorkerMessage::kReady:
      if (is_ours(message.ready())) OnReady(rank, message.ready());
      return;
    case v1::WorkerMessage::kStep:
      if (is_ours(message.step())) OnStep(rank, message.step());
      return;
    case v1::WorkerMessage::kValidation:
      if (is_ours(message.validation())) {
        OnValidation(rank, message.validation());
      }
      return;
    case v1::WorkerMessage::kDone:
      if (is_ours(message.done())) OnDone(rank, message.done());
      return;
    case v1::WorkerMessage::kLog:
      OnLog(member, message.log());
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

void JobActor::OnReady(int rank, const v1::AssignmentReady& ready) {
  if (phase_ != Phase::kStarting) return;
  members_[static_cast<size_t>(rank)].ready = ready;
  for (const Member& member : members_) {
    if (!member.ready.has_value()) return;
  }
  const absl::Status same = CompareData();
  if (!same.ok()) {
    Fail(std::string(same.message()));
    return;
  }
  StartTraining();
}

absl::Status JobActor::CompareData() const {
  const Member& first = members_.front();
  std::vector<std::string> different;
  for (const Member& member : members_) {
    if (member.ready->data_hash() != first.ready->data_hash() ||
        member.ready->train_samples() != first.ready->train_samples()) {
      different.push_back(absl::StrFormat(
          "%s (hash %016x, %d samples)", Describe(member),
          member.ready->data_hash(), member.ready->train_samples()));
    }
  }
  if (different.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "the workers opened different data: %s (hash %016x, %d samples) but %s; "
      "put the same file at data.path '%s' on every host",
      Describe(first), first.ready->data_hash(), first.ready->train_samples(),
      absl::StrJoin(different, ", "), job_.spec().data().path()));
}

void JobActor::StartTraining() {
  job_.set_start_time_millis(services_.clock->WallMillis());
  running_since_ = services_.clock->Now();
  phase_ = Phase::kRunning;
  const absl::Status recorded = RecordState(
      v1::JOB_STATE_RUNNING,
      absl::StrCat("trains on ",
                   Plural(static_cast<int64_t>(members_.size()), "worker"),
                   " with schedule ", plan_.schedule()));
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  v1::CoordinatorMessage message;
  message.mutable_start()->set_job_id(job_.id());
  message.mutable_start()->set_generation(job_.generation());
  for (const Member& member : members_) {
    services_.roster->Send(member.info.id, message);
  }
}

void JobActor::OnStep(int rank, const v1::StepReport& report) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kStopping) return;
  Member& member = members_[static_cast<size_t>(rank)];
  member.steps_done = std::max(member.steps_done, report.step() + 1);
  absl::StatusOr<std::optional<v1::StepSummary>> added =
      aggregator_->Add(rank, report);
  if (!added.ok()) {
    Fail(std::string(added.status().message()));
    return;
  }
  if (!added->has_value()) return;
  step_ = (*added)->step() + 1;
  job_.set_step(step_);
  v1::JobEvent event;
  event.set_kind("step");
  event.set_state(job_.state());
  *event.mutable_step() = **std::move(added);
  services_.events->Publish(job_.id(), std::move(event));
}

void JobActor::OnValidation(int rank, const v1::ValidationReport& report) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kStopping) return;
  const std::optional<ValidationSummary> summary =
      aggregator_->AddValidation(rank, report);
  if (!summary.has_value()) return;
  v1::JobEvent event;
  event.set_kind("validation");
  event.set_state(job_.state());
  event.set_text(absl::StrFormat(
      "validation loss %.4f after step %d (%s tokens)", summary->loss,
      summary->step + 1, FormatCount(summary->tokens)));
  event.mutable_step()->set_step(summary->step);
  event.mutable_step()->set_total_steps(job_.spec().train().steps());
  event.mutable_step()->set_validation_loss(summary->loss);
  const absl::Status recorded = services_.events->Record(
      JobChange{job_.id(), std::nullopt, std::nullopt, event});
  if (!recorded.ok()) {
    LOG_WARNING << job_.id() << ": " << recorded.message();
  }
}

void JobActor::On(const Tick&) {
  const Nanos now = services_.clock->Now();
  switch (phase_) {
    case Phase::kStarting: {
      if (consequence_.has_value() &&
          (now >= consequence_until_ || now >= patience_end_)) {
        Fail(*consequence_);
        return;
      }
      if (now < patience_end_) return;
      std::vector<std::string> slow;
      for (const Member& member : members_) {
        if (!member.ready.has_value()) slow.push_back(Describe(member));
      }
      Fail(absl::StrCat("not ready within ", FormatDuration(kStartTime), ": ",
                        absl::StrJoin(slow, ", "),
                        "; see the job's logs for what they waited for"));
      return;
    }
    case Phase::kRunning:
      if (consequence_.has_value() && now >= consequence_until_) {
        Fail(*consequence_);
      }
      return;
    case Phase::kStopping:
      if (now < patience_end_) return;
      if (is_stop_at_once_) {
        Finish(v1::JOB_STATE_CANCELLED,
               absl::StrCat(cancel_reason_, "; some workers did not stop"));
        return;
      }
      is_stop_at_once_ = true;
      patience_end_ = now + kDrainTime;
      StopMembers(cancel_reason_, /*is_at_once=*/true);
      return;
    case Phase::kDraining:
      if (now < patience_end_) return;
      for (Member& member : members_) {
        if (member.is_free) continue;
        LOG_WARNING << job_.id() << ": " << Describe(member)
                    << " did not stop within " << FormatDuration(kDrainTime)
                    << " and is sent away";
        services_.roster->Dismiss(member.info.id,
                                  "did not stop when it was asked to");
        member.is_free = true;
      }
      Drain();
      return;
    case Phase::kWaiting:
      TryToStart();  // another job may have set workers free
      return;
    case Phase::kProfiling:
    case Phase::kDone:
      return;
  }
}

absl::Status JobActor::RecordState(v1::JobState state,
                                   const std::string& text) {
  job_.set_state(state);
  job_.set_reason(text);
  v1::JobEvent event;
  event.set_kind("state");
  event.set_state(state);
  event.set_text(text);
  if (IsFinished(state)) *event.mutable_result() = job_.result();
  return services_.events->Record(
      JobChange{job_.id(), job_, std::nullopt, std::move(event)});
}

void JobActor::RecordEvent(const std::string& kind, const std::string& text) {
  v1::JobEvent event;
  event.set_kind(kind);
  event.set_state(job_.state());
  event.set_text(text);
  Record(std::move(event));
}

void JobActor::Record(std::optional<v1::JobEvent> event) {
  const absl::Status recorded = services_.events->Record(
      JobChange{job_.id(), job_, std::nullopt, std::move(event)});
  // The next change of state meets the same store and fails the job.
  if (!recorded.ok()) {
    LOG_WARNING << job_.id() << ": " << recorded.message();
  }
}

int JobActor::RankOf(const std::string& worker_id) const {
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    if (members_[rank].info.id == worker_id) return static_cast<int>(rank);
  }
  return -1;
}

std::string JobActor::Describe(const Member& member) const {
  const int rank = RankOf(member.info.id);
  const int num_replicas = job_.spec().parallel().replicas();
  return absl::StrCat(member.info.id, " (stage ", rank / num_replicas,
                      ", replica ", rank % num_replicas, ", on ",
                      member.info.host, ", pid ", member.info.pid, ")");
}

}  // namespace deltapipe
