// JobSupervisor: the runners of all unfinished jobs, and the way of every
// worker's message to the job that it belongs to.
//
// Thread-safe. Called by the RPC handlers, the worker streams and the
// timekeeper. Never blocks but for the store's disk. A job that has a runner
// wants workers of the supply, if there is one.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "coordinator/background/job_runner.h"
#include "coordinator/roster/roster.h"
#include "coordinator/store/job_store.h"

namespace deltapipe {

class JobSupervisor {
 public:
  JobSupervisor(JobServices services, Profiler profiler)
      : services_(std::move(services)), profiler_(std::move(profiler)) {}
  ~JobSupervisor() { Stop(); }

  /// What a former coordinator left: PENDING jobs wait for workers again, in
  /// the order of their submission. With `awaits_return`, the workers of jobs
  /// that it was running go on and come back; else those jobs are FAILED.
  absl::Status Recover(bool awaits_return);

  /// Stores the job and starts its runner; a known request id returns the job
  /// it belongs to.
  absl::StatusOr<v1::Job> Submit(const NewJob& job);
  // Each returns once what was asked for is stored. NOT_FOUND: the job has no
  // runner, it is at rest; FAILED_PRECONDITION: not in its state; UNAVAILABLE:
  // the coordinator is shutting down.
  absl::Status Cancel(const std::string& job_id, const std::string& reason);
  absl::Status Pause(const std::string& job_id, const std::string& reason);
  absl::Status RequestCheckpoint(const std::string& job_id);
  absl::Status RequestTrace(const std::string& job_id, int steps);
  /// A job at rest waits for workers again, to go on from its last checkpoint.
  /// FAILED_PRECONDITION: it is not at rest, or has succeeded. The errors of
  /// the store.
  absl::StatusOr<v1::Job> Resume(const std::string& job_id);
  /// A paused job ends for good. FAILED_PRECONDITION: it is not paused.
  absl::StatusOr<v1::Job> CancelPaused(const std::string& job_id,
                                       const std::string& reason);
  /// An idle worker is sent away, the job of a busy one goes on without it; OK
  /// once that is stored. NOT_FOUND; the errors of the store; UNAVAILABLE: the
  /// coordinator is shutting down.
  absl::Status DrainWorker(const std::string& worker_id,
                           const std::string& reason);
  /// False if the job has no runner.
  bool Post(const std::string& job_id, JobMessage message);
  /// Of a running job; the stored step is that of the last change of state.
  std::optional<int64_t> LiveStep(const std::string& job_id);

  /// See Roster::Join.
  absl::StatusOr<v1::Welcome> Join(const v1::Hello& hello,
                                   const std::string& peer_host,
                                   std::shared_ptr<WorkerSession> session);
  void Receive(const std::string& worker_id, v1::WorkerMessage message);
  /// The worker's stream has ended.
  void Leave(const std::string& worker_id, const WorkerSession* session);

  /// Finds silent workers, tells all jobs the time, and buries finished
  /// runners. `elapsed` is the time since the last call, `expected` what it
  /// should be.
  void OnTick(Nanos elapsed, Nanos expected);
  /// Workers that left while a job held them.
  int64_t num_workers_lost() const { return num_workers_lost_; }
  /// Ends all runners; stored jobs stay as they are. Idempotent.
  void Stop();

 private:
  using MakeMessage = std::function<JobMessage(CommandReply)>;

  void StartRunner(const StoredJob& job, bool goes_on);
  /// Of a job without a runner.
  absl::Status RecordState(v1::JobState state, const std::string& reason,
                           v1::Job* job);
  absl::Status Ask(const std::string& job_id, const MakeMessage& make);
  void PostToAll(const JobMessage& message);
  void BeginSupply();
  void TellGone(const DepartedWorker& departed);

  const JobServices services_;
  const Profiler profiler_;
  std::atomic<int64_t> num_workers_lost_{0};
  Mutex mutex_;  // before those of the supply
  // shared_ptr: a poster may hold one while the supervisor buries it.
  std::map<std::string, std::shared_ptr<JobRunner>> runners_
      DP_GUARDED_BY(mutex_);
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_
