// JobActor: the life of one job, as a state machine without a thread.
//
// PENDING: waits in line for workers. STARTING: has the layers profiled, plans,
// assigns, waits until every worker is ready, all opened the same data and went
// back to the same checkpoint. RUNNING: sums up the workers' reports, commits
// checkpoints, changes knobs. Then one final state, or PAUSED, and what is left
// is to get the workers free again.
//
// A worker that is lost takes the job back to its last checkpoint (or its
// beginning) in a new generation, as often as failure.max_restarts allows
// without getting further. A worker that is away may come back until its budget
// runs out; nothing changes for the others.
//
// What a successor of this process needs is stored as it goes: the state with
// every change, the progress at least once a second; workers keep what is not
// acknowledged and send it again.
//
// Its owner (JobRunner; tests directly) calls from one thread. It sends to
// workers through the roster, tells the world through the event log, and never
// blocks but for the store's disk. Unless stragglers.policy is none it has
// the workers trace one step in ten. The first real cause of a failure wins; an
// error that a worker marks as the consequence of a peer's counts only if none
// turns up within the detection budget.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/path_roots.h"
#include "coordinator/background/checkpoint_book.h"
#include "coordinator/background/event_log.h"
#include "coordinator/background/job_message.h"
#include "coordinator/background/log_book.h"
#include "coordinator/background/metric_sink.h"
#include "coordinator/background/step_aggregator.h"
#include "coordinator/background/straggler_watch.h"
#include "coordinator/background/trace_turns.h"
#include "coordinator/roster/roster.h"
#include "coordinator/store/job_store.h"
#include "coordinator/stragglers/straggler_memory.h"
#include "coordinator/tuning/compression_verdict.h"
#include "coordinator/tuning/link_meter.h"
#include "coordinator/tuning/sync_meter.h"
#include "coordinator/tuning/tuner.h"
#include "coordinator/tuning/tuning_answers.h"

namespace deltapipe {

struct PlanRequest {
  v1::JobSpec spec;
  /// Empty for synthetic models.
  v1::StageProfile profile;
  int64_t train_samples = 0;        // 0: not known
  int64_t worker_memory_bytes = 0;  // of the smallest worker; 0: not known
  double compute_slowdown = 1;      // see PlanInputs
};

struct PlanAnswer {
  v1::Plan plan;
  std::vector<std::string> notes;
};

/// What jobs need of the coordinator; all outlive the jobs.
struct JobServices {
  JobStore* store = nullptr;
  Roster* roster = nullptr;
  EventLog* events = nullptr;
  LogBook* logs = nullptr;
  Clock* clock = nullptr;
  MetricSink* metrics = nullptr;  // may be null
  /// Brings workers for each job; null: whoever joins is taken.
  WorkerSupply* supply = nullptr;
  /// The name of this machine, where layer costs are measured.
  std::string host;
  /// What of data.path this process may look at.
  PathRoots data_roots;
  std::function<absl::StatusOr<PlanAnswer>(const PlanRequest&)> plan;
};

class JobActor {
 public:
  /// How long workers may take to stop after a failure.
  static constexpr Nanos kDrainTime = std::chrono::seconds(10);
  /// How long workers may take to build the model and open the data.
  static constexpr Nanos kStartTime = std::chrono::minutes(10);
  /// How long a worker waits for its peers in that time: less, so that it can
  /// still say whom it could not reach.
  static constexpr Nanos kConnectTime = kStartTime - std::chrono::seconds(30);
  /// Only after this is the lack of workers an event.
  static constexpr Nanos kQuietWait = std::chrono::seconds(3);
  /// Stragglers are looked for in one step of so many, and no more often than
  /// this: slowness that matters lasts.
  static constexpr int64_t kSampleEverySteps = 10;
  static constexpr Nanos kSampleInterval = std::chrono::milliseconds(100);

  /// `start_profile` begins to measure layer costs; the answer comes back as
  /// Profiled. Null: there is no profiler.
  JobActor(v1::Job job, JobServices services,
           std::function<void(const v1::JobSpec&)> start_profile);

  /// Called once, before Handle: either, for a job that waits for workers...
  void Start(const std::optional<v1::JobProgress>& progress = std::nullopt,
             const std::string& tuning_answers = "");
  /// ... or, for one that a former coordinator was running: its workers go on,
  /// and come back. `stragglers` and `tuning_answers` as they were stored.
  void GoOn(const std::optional<v1::Plan>& plan,
            const std::optional<v1::JobProgress>& progress,
            const std::string& stragglers = "",
            const std::string& tuning_answers = "");
  void Handle(const JobMessage& message);
  /// The job has its final state and holds no worker.
  bool is_done() const { return phase_ == Phase::kDone; }
  /// The last step that all workers have committed. Thread-safe.
  int64_t step() const { return step_; }

 private:
  enum class Phase {
    kWaiting,
    kProfiling,
    kStarting,
    kRunning,
    kStopping,   // cancelled, the workers end at their next step
    kPausing,    // the workers end at their next step, with a checkpoint
    kGoingBack,  // a worker was lost, the others end at once
    kDraining,   // state of rest reached, some workers not free yet
    kDone,
  };
  struct Member {
    WorkerInfo info;
    bool is_assigned = false;
    bool is_free = false;  // done, gone or released
    bool is_away = false;
    bool is_leaving = false;  // is sent away when it is free
    std::optional<v1::AssignmentReady> ready;
    std::optional<v1::AssignmentDone> done;
    int64_t steps_done = 0;
    int64_t last_sequence = 0;
    int64_t acknowledged = 0;
  };
  /// A change of knobs on its way through the workers.
  struct PendingTuning {
    v1::Tuning next;
    TuningRequested request;
    std::vector<bool> is_prepared;  // by rank
    bool is_decided = false;
    Nanos patience_end{0};
  };

  // job_actor.cc: from waiting to the first step.
  void On(const RosterChanged&);
  void On(const SupplyTold& told);
  void On(const Profiled& profiled);
  void TryToStart();
  void AnnounceMissing(const Reservation& reservation);
  void Begin(std::vector<WorkerInfo> workers);
  void Profile();
  void MakePlan(const v1::StageProfile& profile);
  void Assign();
  void OnReady(int rank, const v1::AssignmentReady& ready);
  absl::Status CompareData() const;
  absl::Status CompareRestored() const;
  void StartTraining();
  v1::CoordinatorMessage StartMessage() const;
  AggregatorShape Shape() const;
  void MakeBook();
  WorkerDemand Demand() const;

  // job_actor_running.cc: what workers say while they train.
  void On(const WorkerSpoke& spoke);
  void OnStep(int rank, const v1::StepReport& report);
  /// What became of the policy for saved activations, as events.
  void NoteSavedChanges(int rank, const v1::SavedReport& saved);
  void OnValidation(int rank, const v1::ValidationReport& report);
  void OnShards(int rank, const v1::CheckpointShards& shards);
  void OnStored(int rank, const v1::CheckpointStored& stored);
  void OnLog(const Member& member, const v1::LogRecord& log);
  void On(const CheckpointRequested& request);
  v1::CoordinatorMessage RequestCheckpointMessage() const;
  void SendCommit(const v1::CommitCheckpoint& commit);
  void NoteFailedCheckpoint();
  void On(const Tick&);
  v1::JobProgress Progress() const;
  double WallSeconds() const;
  absl::Status StoreProgress();
  /// The same; what fails is logged, and tried again with what comes next.
  void SaveProgress();
  void Acknowledge();

  // job_actor_tuning.cc
  void On(const TuningRequested& request);
  void BeginTuning(const TuningRequested& request);
  void OnTuningAnswer(int rank, const v1::TuningAnswer& answer);
  void OnTuningApplied(const v1::TuningApplied& applied);
  /// Now that another step was measured: keeps a budget, or lets the tuner
  /// propose what hides behind compute.
  void TuneByMeasurement(const v1::StepSummary& summary);
  void ProposeOrApply(const TunerProposal& proposal);
  /// Says whether compressing gradients helps, once that is known and when it
  /// changes, and turns to bf16 and back where compression.verdict says so.
  void JudgeCompression();
  v1::CoordinatorMessage PrepareMessage() const;
  v1::CoordinatorMessage DecideMessage(bool commit) const;
  void DecideTuning(bool commit);
  void ResendTuning(const Member& member);
  void EndTuning(const absl::StatusOr<v1::Tuning>& outcome);
  void SaveDecidedTuning(v1::JobProgress* progress) const;
  void LoadDecidedTuning(const v1::JobProgress& progress);
  /// Answers a request that was made before; false if it was not.
  bool RepeatAnswer(const TuningRequested& request);
  /// Keeps the answer also for a successor.
  absl::Status RememberAnswer(const TuningRequestKey& key,
                              const v1::Tuning& answer);
  void LoadTuningAnswers(const std::string& text);
  std::string TuningJson() const;

  // job_actor_stragglers.cc: traces, for users and to find stragglers.
  void On(const TraceRequested& request);
  void OnTrace(int rank, const v1::StepTrace& trace);
  void BeginTraces();
  bool WatchesStragglers() const;
  /// After each step: asks for the next sample, or for what a user waits for.
  void AskForTraces();
  void SendTraceRequest(TraceOwner owner, int steps);
  void JudgeStragglers();
  /// For a coordinator that goes on in this one's place.
  StragglerMemory RememberStragglers();
  void RestoreStragglers(const std::string& text);
  void PublishStragglers();
  void NoteRebalancing(const v1::Rebalancing& change);
  std::string StragglerText(const StragglerChange& change) const;

  // job_actor_recovery.cc
  void On(const WorkerGone& gone);
  void On(const WorkerReturned& returned);
  void On(const WorkerLeaves& leaves);
  void On(const PauseRequested& pause);
  int FirstLeaver() const;  // its rank; -1: all stay
  std::string LeaveText(int rank) const;
  /// Those of the last generation that were freed, but not heard to go.
  void SendLeaversAway();
  void Lose(int rank, const std::string& why);
  /// Those that are away and whose peers miss them are lost.
  void LoseTheMissed();
  void BeginPause(const std::string& reason);
  void OnPaused();
  Nanos StopPatience() const;
  /// `cause` is one of MetricSink's.
  void GoBack(const std::string& reason, const char* cause);
  /// Stops all members at once; once they are free the job waits again.
  void EndGeneration(const std::string& reason);
  void WaitAgain(const std::string& reason);

  // job_actor_end.cc
  void On(const CancelRequested& cancel);
  void OnDone(int rank, const v1::AssignmentDone& done);
  void OnAllDone();
  void Fail(const std::string& reason);
  void Finish(v1::JobState state, const std::string& reason);
  void StopMembers(const std::string& reason, bool is_at_once,
                   bool writes_checkpoint = false);
  void SendStop(const Member& member, const std::string& reason,
                bool is_at_once, bool writes_checkpoint);
  void Drain();
  void Free(Member* member);
  /// Workers that never heard of the job are free at once.
  void FreeUnassigned();
  bool AllFree() const;
  /// Sends away those that have not stopped in time.
  void DismissTheRest();

  /// Stores the job as it is now with an event of kind "state".
  absl::Status RecordState(v1::JobState state, const std::string& text);
  void RecordEvent(const std::string& kind, const std::string& text);
  /// Stores the job as it is now and, if given, the event.
  void Record(std::optional<v1::JobEvent> event);
  absl::Status Store(JobChange change);
  bool IsTraining() const {
    return phase_ == Phase::kRunning || phase_ == Phase::kStopping ||
           phase_ == Phase::kPausing;
  }
  int RankOf(const std::string& worker_id) const;  // -1: not a member
  std::string Describe(const Member& member) const;
  void SendToAll(const v1::CoordinatorMessage& message);

  const JobServices services_;
  const std::function<void(const v1::JobSpec&)> start_profile_;
  const Nanos detection_budget_;
  v1::Job job_;
  Phase phase_ = Phase::kWaiting;
  bool is_profiling_ = false;
  std::vector<Member> members_;              // by rank
  std::map<std::string, int> former_ranks_;  // of the generation before
  std::unique_ptr<StepAggregator> aggregator_;
  std::unique_ptr<CheckpointBook> book_;
  std::vector<v1::CheckpointFolder> checkpoints_;  // while there is no book
  /// Somebody was promised a checkpoint of more steps than this.
  std::optional<int64_t> checkpoint_after_;
  std::vector<v1::CommittedRange> ledger_;
  int64_t train_samples_ = 0;  // as the workers have opened them
  // Of before a pause or the coordinator's restart, until there are workers.
  std::optional<v1::JobProgress> former_progress_;
  LinkMeter meter_;
  StragglerWatch straggler_watch_;
  /// When those of straggler_watch_ were found, by text of scope and cause.
  std::map<std::string, int64_t> straggler_millis_;
  std::string stored_stragglers_;  // StragglerMemoryText
  TraceTurns trace_turns_;
  int waiting_trace_steps_ = 0;  // a user waits for; 0: none does
  int64_t next_sample_step_ = 0;
  Nanos sampled_{0};
  TunerState tuner_;
  SyncMeter sync_meter_;
  std::optional<CompressionVerdict> verdict_;
  uint32_t verdict_revision_ = 0;      // of the knobs that verdict_ knows
  bool is_verdict_overruled_ = false;  // somebody set the codec himself
  v1::Plan plan_;
  std::atomic<int64_t> step_{0};
  std::optional<Nanos> running_since_;
  double former_wall_seconds_ = 0;  // of a former coordinator
  /// When the present phase's patience ends.
  Nanos patience_end_{0};
  bool is_stop_at_once_ = false;
  bool is_stopped_early_ = false;
  std::string cancel_reason_;
  std::string stop_trouble_;
  /// What kPausing and kGoingBack lead to: another try, or rest.
  bool starts_again_ = false;
  std::string pause_reason_;
  int restarts_in_vain_ = 0;
  int64_t furthest_at_restart_ = -1;
  Nanos waiting_since_{0};
  std::string announced_;
  /// What keeps the job's workers from coming, while it does.
  std::string supply_trouble_;
  /// The first error that is a peer's consequence, and until when to wait for
  /// its cause.
  std::optional<std::string> consequence_;
  Nanos consequence_until_{0};
  /// Until when a worker may be away because this coordinator has just begun; 0
  /// if the workers were started by itself.
  Nanos back_until_{0};
  bool is_progress_dirty_ = false;
  Nanos progress_saved_{0};
  v1::Tuning tuning_;
  std::optional<PendingTuning> pending_tuning_;
  std::deque<TuningRequested> waiting_tunings_;
  TuningAnswers tuning_answers_;
  bool are_answers_dirty_ = false;  // and not stored since
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_
