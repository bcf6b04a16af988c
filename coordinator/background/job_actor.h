// JobActor: the life of one job, as a state machine without a thread.
//
// PENDING: waits in line for workers. STARTING: has the layers profiled, plans,
// assigns, waits until every worker is ready and all opened the same data.
// RUNNING: sums up the workers' reports. Then one final state, and what is left
// is to get the workers free again.
//
// Its owner (JobRunner; tests directly) calls from one thread. It sends to
// workers through the roster, tells the world through the event log, and never
// blocks but for the store's disk. The first real cause of a failure wins; an
// error that a worker marks as the consequence of a peer's counts only if none
// turns up within the detection budget.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "coordinator/background/event_log.h"
#include "coordinator/background/job_message.h"
#include "coordinator/background/log_book.h"
#include "coordinator/background/step_aggregator.h"
#include "coordinator/roster/roster.h"
#include "coordinator/store/job_store.h"

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
  /// The name of this machine, where layer costs are measured.
  std::string host;
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

  /// `start_profile` begins to measure layer costs; the answer comes back as
  /// Profiled. Null: there is no profiler.
  JobActor(v1::Job job, JobServices services,
           std::function<void(const v1::JobSpec&)> start_profile);

  /// Called once, before Handle.
  void Start();
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
    kStopping,  // cancelled, the workers end at their next step
    kDraining,  // final state reached, some workers not free yet
    kDone,
  };
  struct Member {
    WorkerInfo info;
    bool is_assigned = false;
    bool is_free = false;  // done, gone or released
    std::optional<v1::AssignmentReady> ready;
    int64_t steps_done = 0;
  };

  void On(const WorkerSpoke& spoke);
  void On(const WorkerGone& gone);
  void On(const RosterChanged&);
  void On(const Tick&);
  void On(const CancelRequested& cancel);
  void On(const Profiled& profiled);

  void TryToStart();
  void AnnounceMissing(const Reservation& reservation);
  void Begin(std::vector<WorkerInfo> workers);
  void PlanAndAssign(const v1::StageProfile& profile);
  void OnReady(int rank, const v1::AssignmentReady& ready);
  absl::Status CompareData() const;
  void StartTraining();
  void OnStep(int rank, const v1::StepReport& report);
  void OnValidation(int rank, const v1::ValidationReport& report);
  void OnDone(int rank, const v1::AssignmentDone& done);
  void OnLog(const Member& member, const v1::LogRecord& log);
  void OnAllDone();

  void Fail(const std::string& reason);
  void Finish(v1::JobState state, const std::string& reason);
  void StopMembers(const std::string& reason, bool is_at_once);
  void Drain();
  void Free(Member* member);
  bool AllFree() const;

  /// Stores the job as it is now with an event of kind "state".
  absl::Status RecordState(v1::JobState state, const std::string& text);
  void RecordEvent(const std::string& kind, const std::string& text);
  /// Stores the job as it is now and, if given, the event.
  void Record(std::optional<v1::JobEvent> event);
  int RankOf(const std::string& worker_id) const;  // -1: not a member
  std::string Describe(const Member& member) const;

  const JobServices services_;
  const std::function<void(const v1::JobSpec&)> start_profile_;
  const Nanos detection_budget_;
  v1::Job job_;
  Phase phase_ = Phase::kWaiting;
  std::vector<Member> members_;  // by rank
  std::unique_ptr<StepAggregator> aggregator_;
  v1::Plan plan_;
  std::atomic<int64_t> step_{0};
  std::optional<Nanos> running_since_;
  /// When the present phase's patience ends.
  Nanos patience_end_{0};
  bool is_stop_at_once_ = false;
  bool is_stopped_early_ = false;
  std::string cancel_reason_;
  std::string stop_trouble_;
  Nanos waiting_since_{0};
  std::string announced_;
  /// The first error that is a peer's consequence, and until when to wait for
  /// its cause.
  std::optional<std::string> consequence_;
  Nanos consequence_until_{0};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_H_
