// JobRunner: gives a JobActor its thread and its inbox.
//
// Post is thread-safe and never blocks. The inbox is bounded by what the job's
// workers send between two of its turns.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_RUNNER_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_RUNNER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/background/job_actor.h"
#include "coordinator/background/job_message.h"

namespace deltapipe {

using Profiler =
    std::function<absl::StatusOr<v1::StageProfile>(const v1::JobSpec&)>;

class JobRunner {
 public:
  /// Starts the job's thread. `profiler` may be null. `goes_on`: a former
  /// coordinator was running the job (JobActor::GoOn).
  JobRunner(const StoredJob& job, bool goes_on, JobServices services,
            Profiler profiler);
  /// Ends the thread where it stands; the stored job stays as it is. Waits for
  /// a profiler that is at work.
  ~JobRunner();

  void Post(JobMessage message);
  /// Asks the thread to end, without waiting for it.
  void Stop();
  /// The actor is done and the thread has ended or will at once.
  bool is_done();
  int64_t step() const { return actor_.step(); }

 private:
  void Run(const StoredJob& job, bool goes_on);
  void StartProfile(const v1::JobSpec& spec);

  const Profiler profiler_;
  JobActor actor_;  // used by thread_ only, but for step()
  Mutex mutex_;
  CondVar changed_;
  std::deque<JobMessage> inbox_ DP_GUARDED_BY(mutex_);
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
  bool is_profiling_ DP_GUARDED_BY(mutex_) = false;
  bool is_done_ DP_GUARDED_BY(mutex_) = false;
  Thread profile_thread_;  // started by thread_
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_RUNNER_H_
