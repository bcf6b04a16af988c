// WorkerSupply: brings workers for each job that needs some, and takes them
// away once it is at rest.
//
// Used by a coordinator that launches workers itself (`--launch`); without one,
// jobs take whatever workers join. Implemented by KubernetesSupply and by
// FakeWorkerSupply. Thread-safe. Want, Unwant and Hint return at once: what
// they ask for is done on threads of the supply, tried again for as long as it
// fails, and told to the listener. Workers that a supply brings serve the job
// that they were brought for and no other.
//
//   supply->Begin(listener);
//   supply->Want({"text-1", 4, "cpu"});
//   ... the job ends, fails, is cancelled or paused ...
//   supply->Unwant("text-1");
//   supply->End();    // the workers stay, for the next coordinator
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_WORKER_SUPPLY_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_WORKER_SUPPLY_H_

#include <functional>
#include <string>

namespace deltapipe {

/// What a job needs.
struct SuppliedJob {
  std::string id;
  int num_workers = 1;
  std::string device = "auto";  // as parallel.device
};

/// What became of a job's workers.
struct SupplyNotice {
  enum class Kind {
    kLaunched,     // they are there, or on their way
    kTrouble,      // they are not; it is tried again
    kWorkerEnded,  // one has ended by itself
  };
  Kind kind = Kind::kLaunched;
  /// A sentence with what to do about it.
  std::string text;
};

/// Called on the supply's own threads, without its locks.
struct SupplyListener {
  std::function<void(const std::string& job_id, const SupplyNotice& notice)>
      on_notice;
  /// Whether it is known that the job is at rest, so that workers left over
  /// from a former coordinator may be taken away.
  std::function<bool(const std::string& job_id)> is_at_rest;
};

class WorkerSupply {
 public:
  virtual ~WorkerSupply() = default;
  /// Called once, before Want. Soon afterwards, the workers of jobs that came
  /// to rest while there was no coordinator are taken away.
  virtual void Begin(SupplyListener listener) = 0;
  /// The job needs workers. Those that a former coordinator brought for it are
  /// taken over. Idempotent.
  virtual void Want(const SuppliedJob& job) = 0;
  /// The job needs none any more. Idempotent.
  virtual void Unwant(const std::string& job_id) = 0;
  /// Ends all threads, within a second; nothing is told afterwards. The workers
  /// stay as they are. Idempotent.
  virtual void End() = 0;
  /// How the job's workers come about, and where to look if they do not.
  virtual std::string Hint(const std::string& job_id) const = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_WORKER_SUPPLY_H_
