// WorkerProfiler: measures what the layers of a spec cost, by running
// `deltapipe-worker --profile SPEC.json` with the device and the threads of the
// spec, which prints a StageProfile as JSON.
//
// Remembers results by what they depend on (worker program, model, training,
// device and threads), in memory and, if there is a folder for it, on disk.
// Thread-safe; one measurement at a time, since two would disturb each other.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_WORKER_PROFILER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_WORKER_PROFILER_H_

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct WorkerProfilerOptions {
  std::string worker_binary;
  /// Empty: results are remembered in memory only.
  std::string cache_folder;
  std::chrono::milliseconds patience{120000};
};

class WorkerProfiler {
 public:
  /// RESOURCE_EXHAUSTED: no more files or processes.
  static absl::StatusOr<std::unique_ptr<WorkerProfiler>> Create(
      WorkerProfilerOptions options);
  ~WorkerProfiler();

  /// Blocks while it measures, on parallel.device (auto: a GPU if there is one)
  /// with parallel.threads (0: the cores of this machine over the job's
  /// workers). FAILED_PRECONDITION: the worker could not measure (quotes its
  /// last words). DEADLINE_EXCEEDED: it took too long. CANCELLED.
  absl::StatusOr<v1::StageProfile> Profile(const v1::JobSpec& spec);
  /// Ends a measurement at work; later ones are refused.
  void Cancel();

 private:
  WorkerProfiler(WorkerProfilerOptions options, int cancel_file)
      : options_(std::move(options)), cancel_file_(cancel_file) {}
  absl::StatusOr<v1::StageProfile> Measure(const v1::JobSpec& spec);
  std::string CachePath(const std::string& key) const;
  void Remember(const std::string& key, const v1::StageProfile& profile)
      DP_REQUIRES(mutex_);
  /// Runs the worker on a spec file; returns what it printed.
  absl::StatusOr<std::string> RunWorker(const v1::ParallelSpec& parallel,
                                        const std::string& spec_path,
                                        const std::string& stderr_path);

  const WorkerProfilerOptions options_;
  const int cancel_file_;  // an eventfd; readable once cancelled
  Mutex mutex_;            // held over a measurement
  std::map<std::string, v1::StageProfile> known_ DP_GUARDED_BY(mutex_);
};

/// Measures once, remembering nothing.
absl::StatusOr<v1::StageProfile> RunProfiler(const std::string& worker_binary,
                                             const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_WORKER_PROFILER_H_
