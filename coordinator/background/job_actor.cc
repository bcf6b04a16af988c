#include "coordinator/background/job_actor.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/checkpoint/manifest.h"
#include "base/layer_partition.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/background/assignments.h"
#include "coordinator/background/seats.h"
#include "coordinator/tuning/tuning_state.h"

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

void JobActor::Start(const std::optional<v1::JobProgress>& progress,
                     const std::string& tuning_answers) {
  LoadTuningAnswers(tuning_answers);
  if (WantedBudget(job_.spec()) < detection_budget_) {
    RecordEvent(
        "warning",
        absl::StrCat("failure.detection_budget ",
                     job_.spec().failure().detection_budget(), " is raised to ",
                     FormatDuration(detection_budget_), ": three heartbeats"));
  }
  if (progress.has_value()) {
    checkpoints_.assign(progress->checkpoints().begin(),
                        progress->checkpoints().end());
    ledger_.assign(progress->ledger().begin(), progress->ledger().end());
    former_wall_seconds_ = progress->wall_seconds();
    if (progress->has_tuning()) tuning_ = progress->tuning();
    train_samples_ = progress->train_samples();
    former_progress_ = progress;
  }
  if (job_.wish() == v1::JOB_WISH_CANCEL) {
    Finish(v1::JOB_STATE_CANCELLED, job_.wish_reason());
    return;
  }
  if (job_.wish() == v1::JOB_WISH_PAUSE) {
    Finish(v1::JOB_STATE_PAUSED, job_.wish_reason());
    return;
  }
  services_.roster->Wait(job_.id(), Demand());
  waiting_since_ = services_.clock->Now();
  TryToStart();
}

WorkerDemand JobActor::Demand() const {
  WorkerDemand demand;
  demand.count =
      job_.spec().parallel().stages() * job_.spec().parallel().replicas();
  demand.needs_cuda = job_.spec().parallel().device() == "cuda";
  return demand;
}

void JobActor::Handle(const JobMessage& message) {
  std::visit([this](const auto& told) { On(told); }, message);
}

void JobActor::On(const RosterChanged&) {
  if (phase_ == Phase::kWaiting) TryToStart();
}

void JobActor::On(const SupplyTold& told) {
  if (phase_ == Phase::kDraining || phase_ == Phase::kDone) return;
  const SupplyNotice& notice = told.notice;
  if (notice.kind == SupplyNotice::Kind::kTrouble) {
    supply_trouble_ = notice.text;
  } else if (notice.kind == SupplyNotice::Kind::kLaunched) {
    supply_trouble_.clear();
  }
  RecordEvent(
      notice.kind == SupplyNotice::Kind::kTrouble ? "warning" : "worker",
      notice.text);
  if (phase_ == Phase::kWaiting) TryToStart();
}

void JobActor::TryToStart() {
  SendLeaversAway();
  Reservation reservation =
      services_.roster->TryReserve(job_.id(), detection_budget_);
  if (reservation.workers.empty()) {
    AnnounceMissing(reservation);
  } else {
    Begin(std::move(reservation.workers));
  }
}

void JobActor::AnnounceMissing(const Reservation& reservation) {
  const WorkerDemand demand = Demand();
  const std::string missing =
      reservation.num_missing == 0
          ? std::string("waits for an earlier job to take its workers")
          : absl::StrCat("waits for ", Plural(demand.count, "worker"),
                         demand.needs_cuda ? " with a GPU: " : ": ",
                         demand.count - reservation.num_missing, " idle, ",
                         reservation.num_missing, " missing (",
                         services_.supply != nullptr
                             ? services_.supply->Hint(job_.id())
                             : std::string("each is a deltapipe-worker "
                                           "--coordinator HOST:PORT"),
                         ")");
  const std::string text = supply_trouble_.empty()
                               ? missing
                               : absl::StrCat(missing, "; ", supply_trouble_);
  // Workers that are just being started are no news.
  const bool is_news = services_.clock->Now() - waiting_since_ >= kQuietWait;
  const bool is_announced = !is_news || announced_ == missing;
  if (is_announced && text == job_.reason()) return;
  job_.set_reason(text);
  if (is_announced) {
    Record(std::nullopt);
  } else {
    announced_ = missing;
    RecordEvent("worker", missing);
  }
}

AggregatorShape JobActor::Shape() const {
  AggregatorShape shape;
  shape.num_stages = job_.spec().parallel().stages();
  shape.num_replicas = job_.spec().parallel().replicas();
  shape.total_steps = job_.spec().train().steps();
  shape.batch_samples = job_.spec().train().batch();
  for (const Member& member : members_) {
    shape.worker_ids.push_back(member.info.id);
  }
  return shape;
}

void JobActor::Begin(std::vector<WorkerInfo> workers) {
  const int num_replicas = job_.spec().parallel().replicas();
  const v1::ParallelSpec& parallel = job_.spec().parallel();
  workers = SeatWorkers(parallel, std::move(workers), former_ranks_);
  const std::string split_nodes = DescribeSplitNodes(parallel, workers);
  for (WorkerInfo& worker : workers) {
    Member member;
    member.info = std::move(worker);
    members_.push_back(std::move(member));
  }
  if (aggregator_ == nullptr) {
    aggregator_ = std::make_unique<StepAggregator>(Shape());
    // Unless it was stored before the job ever had workers.
    if (former_progress_.has_value() &&
        former_progress_->ranks_size() == static_cast<int>(members_.size())) {
      const absl::Status loaded = aggregator_->Load(*former_progress_);
      if (!loaded.ok()) {
        Fail(std::string(loaded.message()));
        return;
      }
    }
    former_progress_.reset();
  }
  phase_ = Phase::kProfiling;

  const absl::StatusOr<uint64_t> generation = services_.store->NewGeneration();
  if (!generation.ok()) {
    Fail(std::string(generation.status().message()));
    return;
  }
  job_.set_generation(*generation);
  job_.clear_workers();
  job_.clear_members();
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    const WorkerInfo& worker = members_[rank].info;
    services_.roster->SetPlace(worker.id, static_cast<int>(rank) / num_replicas,
                               static_cast<int>(rank) % num_replicas,
                               *generation);
    job_.add_workers(absl::StrCat(worker.id, " (", worker.host, " ",
                                  worker.data_address, ")"));
    v1::JobMember* told = job_.add_members();
    told->set_rank(static_cast<int>(rank));
    told->set_worker_id(worker.id);
    told->set_host(worker.host);
    told->set_data_address(worker.data_address);
    told->set_pid(worker.pid);
  }
  const absl::Status recorded = RecordState(
      v1::JOB_STATE_STARTING,
      absl::StrCat("starts on ",
                   Plural(static_cast<int64_t>(members_.size()), "worker")));
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  if (!split_nodes.empty()) RecordEvent("warning", split_nodes);
  if (plan_.num_stages() > 0) {
    Assign();
  } else if (job_.spec().model().kind() == "synthetic") {
    MakePlan(v1::StageProfile());
  } else {
    Profile();
  }
}

void JobActor::Profile() {
  if (is_profiling_) return;  // since an earlier try
  if (start_profile_ == nullptr) {
    Fail(
        "this coordinator has no way to measure layer costs: it was started "
        "without a worker program beside it");
    return;
  }
  std::vector<WorkerInfo> workers;
  for (const Member& member : members_) workers.push_back(member.info);
  v1::JobSpec spec = job_.spec();
  const std::vector<int> threads = ThreadsOfWorkers(spec, workers);
  spec.mutable_parallel()->set_threads(
      *std::min_element(threads.begin(), threads.end()));
  spec.mutable_parallel()->set_device(
      DeviceToProfile(spec, workers, services_.host));
  is_profiling_ = true;
  start_profile_(spec);
}

void JobActor::On(const Profiled& profiled) {
  is_profiling_ = false;
  if (phase_ != Phase::kProfiling) return;  // measured again when it starts
  if (!profiled.profile.ok()) {
    Fail(absl::StrCat("measuring layer costs failed: ",
                      profiled.profile.status().message()));
    return;
  }
  MakePlan(*profiled.profile);
}

void JobActor::MakePlan(const v1::StageProfile& profile) {
  PlanRequest request;
  request.spec = job_.spec();
  request.profile = profile;
  request.train_samples =
      EstimateTrainSamples(job_.spec(), services_.data_roots);
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
  const absl::Status recorded =
      Store(JobChange{job_.id(), std::nullopt, plan_, std::nullopt});
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  for (const std::string& note : answer->notes) RecordEvent("plan", note);
  Assign();
}

void JobActor::MakeBook() {
  CheckpointBookShape shape;
  shape.job_id = job_.id();
  shape.generation = job_.generation();
  shape.num_stages = job_.spec().parallel().stages();
  shape.num_replicas = job_.spec().parallel().replicas();
  shape.keep = std::max(job_.spec().checkpoint().keep(), 1);
  v1::JobSpec spec = job_.spec();
  // Who goes on from a checkpoint needs the cut that it is of. The stages of a
  // synthetic model have no layers to cut.
  if (spec.model().kind() != "synthetic") {
    spec.mutable_parallel()->set_partition(LayersOfStages(plan_.stages()));
  }
  // Fails for strings that are not UTF-8, which were refused at submit.
  if (!google::protobuf::util::MessageToJsonString(spec, &shape.spec_json)
           .ok()) {
    shape.spec_json = "{}";
  }
  book_ = std::make_unique<CheckpointBook>(std::move(shape));
  book_->SetKept(checkpoints_);
}

void JobActor::Assign() {
  if (tuning_.revision() == 0) {
    tuning_ = InitialTuning(job_.id(), job_.spec(), plan_);
  }
  MakeBook();
  phase_ = Phase::kStarting;
  patience_end_ = services_.clock->Now() + kStartTime;
  std::vector<WorkerInfo> workers;
  for (const Member& member : members_) workers.push_back(member.info);
  std::vector<v1::Assignment> assignments =
      MakeAssignments(job_, plan_, workers);
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    assignments[rank].set_start_seconds(
        std::chrono::duration<double>(kConnectTime).count());
    *assignments[rank].mutable_tuning() = tuning_;
    if (aggregator_ != nullptr) {
      aggregator_->ListExecuted(assignments[rank].mutable_executed());
    }
    v1::CoordinatorMessage message;
    *message.mutable_assignment() = std::move(assignments[rank]);
    members_[rank].is_assigned = true;
    services_.roster->Send(members_[rank].info.id, message);
  }
}

void JobActor::OnReady(int rank, const v1::AssignmentReady& ready) {
  if (phase_ != Phase::kStarting) return;
  members_[static_cast<size_t>(rank)].ready = ready;
  for (const Member& member : members_) {
    if (!member.ready.has_value()) return;
  }
  absl::Status same = CompareData();
  if (same.ok()) same = CompareRestored();
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

absl::Status JobActor::CompareRestored() const {
  const Member& first = members_.front();
  for (const Member& member : members_) {
    if (member.ready->restored_step() == first.ready->restored_step()) continue;
    return absl::InternalError(absl::StrCat(
        "the workers went back to different steps: ", Describe(first), " to ",
        first.ready->restored_step(), ", ", Describe(member), " to ",
        member.ready->restored_step()));
  }
  return absl::OkStatus();
}

void JobActor::StartTraining() {
  const v1::AssignmentReady& first = *members_.front().ready;
  const int64_t restored = first.restored_step();
  std::set<std::string> notes;  // on shared storage all see the same
  for (const Member& member : members_) {
    for (const std::string& note : member.ready->notes()) {
      if (notes.insert(note).second) {
        RecordEvent("checkpoint", absl::StrCat(Describe(member), ": ", note));
      }
    }
  }
  aggregator_->GoBackTo(restored, first.restored_samples_dropped(),
                        Shape().worker_ids);
  step_ = restored;
  job_.set_step(restored);
  v1::CommittedRange range;
  range.set_generation(job_.generation());
  range.set_first_step(restored);
  range.set_end_step(restored);
  range.set_dropped_before(first.restored_samples_dropped());
  train_samples_ = first.train_samples();
  ledger_.push_back(std::move(range));
  if (job_.start_time_millis() == 0) {
    job_.set_start_time_millis(services_.clock->WallMillis());
  }
  if (!running_since_.has_value()) running_since_ = services_.clock->Now();
  phase_ = Phase::kRunning;
  BeginTraces();
  std::string text = absl::StrCat(
      "trains on ", Plural(static_cast<int64_t>(members_.size()), "worker"),
      " with schedule ", plan_.schedule());
  if (restored > 0) {
    absl::StrAppend(&text, ", from step ", restored, " on (checkpoint ",
                    CheckpointFolderName(restored, first.restored_generation()),
                    ")");
  } else if (job_.resume()) {
    absl::StrAppend(&text, ", from the beginning: there is no checkpoint");
  }
  // Whoever sees the state finds the figures begun.
  if (services_.metrics != nullptr) services_.metrics->JobStarted(job_, plan_);
  const absl::Status recorded = RecordState(v1::JOB_STATE_RUNNING, text);
  if (!recorded.ok()) {
    Fail(std::string(recorded.message()));
    return;
  }
  SendToAll(StartMessage());
  if (checkpoint_after_.has_value()) SendToAll(RequestCheckpointMessage());
}

v1::CoordinatorMessage JobActor::StartMessage() const {
  v1::CoordinatorMessage message;
  message.mutable_start()->set_job_id(job_.id());
  message.mutable_start()->set_generation(job_.generation());
  return message;
}

absl::Status JobActor::RecordState(v1::JobState state,
                                   const std::string& text) {
  job_.set_state(state);
  job_.set_reason(text);
  v1::JobEvent event;
  event.set_kind("state");
  event.set_state(state);
  event.set_text(text);
  if (IsAtRest(state)) *event.mutable_result() = job_.result();
  JobChange change{job_.id(), job_, std::nullopt, std::move(event)};
  if (aggregator_ != nullptr) change.progress = Progress();
  return Store(std::move(change));
}

void JobActor::RecordEvent(const std::string& kind, const std::string& text) {
  v1::JobEvent event;
  event.set_kind(kind);
  event.set_state(job_.state());
  event.set_text(text);
  Record(std::move(event));
}

void JobActor::Record(std::optional<v1::JobEvent> event) {
  const absl::Status recorded =
      Store(JobChange{job_.id(), job_, std::nullopt, std::move(event)});
  // The next change of state meets the same store and fails the job.
  if (!recorded.ok()) {
    LOG_WARNING << job_.id() << ": " << recorded.message();
  }
}

absl::Status JobActor::Store(JobChange change) {
  const bool has_progress = change.progress.has_value();
  const bool has_job = change.job.has_value();
  if (are_answers_dirty_) change.tuning_answers = tuning_answers_.Text();
  DP_RETURN_IF_ERROR(services_.events->Record(std::move(change)));
  are_answers_dirty_ = false;
  if (has_progress) {
    is_progress_dirty_ = false;
    progress_saved_ = services_.clock->Now();
    Acknowledge();
  }
  if (has_job && services_.metrics != nullptr) {
    services_.metrics->JobChanged(job_);
  }
  return absl::OkStatus();
}

void JobActor::SendToAll(const v1::CoordinatorMessage& message) {
  for (const Member& member : members_) {
    if (member.is_assigned && !member.is_free) {
      services_.roster->Send(member.info.id, message);
    }
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
