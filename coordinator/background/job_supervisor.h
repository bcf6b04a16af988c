// JobSupervisor: the runners of all unfinished jobs, and the way of every
// worker's message to the job that it belongs to.
//
// Thread-safe. Called by the RPC handlers, the worker streams and the
// timekeeper. Never blocks but for the store's disk.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_

#include <cstdint>
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

  /// What a former coordinator left: jobs that it was running are FAILED,
  /// PENDING ones wait for workers again, in the order of their submission.
  absl::Status Recover();

  /// Stores the job and starts its runner; a known request id returns the job
  /// it belongs to.
  absl::StatusOr<v1::Job> Submit(const NewJob& job);
  /// False if the job has no runner: it is finished.
  bool Cancel(const std::string& job_id, const std::string& reason);
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
  /// Ends all runners; stored jobs stay as they are. Idempotent.
  void Stop();

 private:
  void StartRunner(const v1::Job& job);
  void PostTo(const std::string& job_id, JobMessage message);
  void PostToAll(const JobMessage& message);
  void TellGone(const DepartedWorker& departed);

  const JobServices services_;
  const Profiler profiler_;
  Mutex mutex_;
  // shared_ptr: a poster may hold one while the supervisor buries it.
  std::map<std::string, std::shared_ptr<JobRunner>> runners_
      DP_GUARDED_BY(mutex_);
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_SUPERVISOR_H_
