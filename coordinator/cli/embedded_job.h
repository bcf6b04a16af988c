// EmbeddedJob: one job with everything it takes on this machine: a coordinator
// inside this process and workers as its children.
//
// `run` and `compare` use it. Start and Watch are for one thread; Interrupt may
// be called from any other, at any time. Workers die with this process,
// whatever ends it; one that dies by itself is replaced as often as the job may
// be started again.
//
//   EmbeddedJob job(options);
//   DP_RETURN_IF_ERROR(job.Start());
//   DP_ASSIGN_OR_RETURN(v1::Job ended, job.Watch(on_event));
#ifndef DELTAPIPE_COORDINATOR_CLI_EMBEDDED_JOB_H_
#define DELTAPIPE_COORDINATOR_CLI_EMBEDDED_JOB_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/launch/launcher.h"
#include "coordinator/launch/worker_profiler.h"
#include "coordinator/service/coordinator.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

struct EmbeddedJobOptions {
  /// Validated; data.path absolute.
  v1::JobSpec spec;
  /// Absolute, existing: holds job.db, the workers' logs and the model.
  std::string run_folder;
  /// 0: one per stage and replica.
  int num_workers = 0;
  /// Goes on from the newest checkpoint in the run folder, if there is one.
  bool resume = false;
};

class EmbeddedJob {
 public:
  explicit EmbeddedJob(EmbeddedJobOptions options);
  /// Ends the workers and the coordinator, and removes what a worker that was
  /// killed had written of a model.
  ~EmbeddedJob();

  /// Starts coordinator and workers and submits the job.
  absl::Status Start();

  /// Calls `on_event` for each event until the job has ended, then returns it.
  /// FAILED_PRECONDITION if a worker ended before it could join, CANCELLED if
  /// the job did not end within Interrupt's grace.
  absl::StatusOr<v1::Job> Watch(
      const std::function<void(const v1::JobEvent&)>& on_event);

  /// Asks the job to end after the step being computed and to write the model;
  /// what has not ended after `grace` is killed, and the model of the last
  /// checkpoint is all there is. Returns at once: false if there is no job
  /// to end yet. Only the first call counts.
  bool Interrupt(const std::string& reason, std::chrono::nanoseconds grace);
  /// The same, but the job is paused: it writes a checkpoint and can be
  /// resumed.
  bool Pause(const std::string& reason, std::chrono::nanoseconds grace);

 private:
  bool End(const std::string& reason, std::chrono::nanoseconds grace,
           bool pauses);
  /// Waits for an interrupt, workers' deaths or the job's end.
  void Guard();
  /// Starts `count` others in their place. Fails once the job has not got
  /// further for too many deaths.
  absl::Status Replace(int count);
  /// Waits for the coordinator's verdict on a worker that is gone; true if the
  /// job has ended or is to end meanwhile.
  bool AwaitVerdict();
  void NoteWorkerExit(const WorkerExit& exit);
  /// Stops watching the job, for `reason`.
  void GiveUp(const absl::Status& reason);

  const EmbeddedJobOptions options_;
  std::unique_ptr<WorkerProfiler> profiler_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<JobClient> client_;
  std::string job_id_;

  Mutex mutex_;
  CondVar changed_;
  bool is_submitted_ DP_GUARDED_BY(mutex_) = false;
  bool has_ended_ DP_GUARDED_BY(mutex_) = false;
  bool is_interrupted_ DP_GUARDED_BY(mutex_) = false;
  std::string interrupt_reason_ DP_GUARDED_BY(mutex_);
  Deadline interrupt_deadline_ DP_GUARDED_BY(mutex_) = Deadline::Infinite();
  bool is_pause_ DP_GUARDED_BY(mutex_) = false;
  /// Workers that ended by themselves and were not replaced yet, and the last
  /// of them as a sentence.
  int num_exits_ DP_GUARDED_BY(mutex_) = 0;
  std::string worker_exit_ DP_GUARDED_BY(mutex_);
  /// Deaths since the job last did a step that it had not done before.
  int num_deaths_in_vain_ DP_GUARDED_BY(mutex_) = 0;
  int64_t furthest_step_ DP_GUARDED_BY(mutex_) = -1;
  absl::Status given_up_ DP_GUARDED_BY(mutex_);
  /// Ended before what is above.
  std::unique_ptr<Launcher> launcher_;
  Thread guard_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_EMBEDDED_JOB_H_
