// Roster: which workers are here, which job each works for, and who has fallen
// silent.
//
// Thread-safe; no call blocks, none calls back. A worker is idle or busy; when
// it leaves it is forgotten, but its name is not given to another. One that is
// busy may be away for a while: its stream is broken, and it comes back with
// the assignment that it holds, or its budget runs out. Knows
// nothing of jobs but their ids and how many workers they wait for.
//
//   DP_ASSIGN_OR_RETURN(auto welcome, roster.Join(hello, host, session));
//
//   roster.Wait("text-1", {4, false});  // in line, by order of calls
//
//   Reservation reserved = roster.TryReserve("text-1", detection_budget);
//
// A worker that was brought for one job is given to no other, so jobs that
// bring their own workers cannot starve each other.
#ifndef DELTAPIPE_COORDINATOR_ROSTER_ROSTER_H_
#define DELTAPIPE_COORDINATOR_ROSTER_ROSTER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/roster/worker_session.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

struct RosterOptions {
  /// What a worker's Hello must say.
  std::string version;
  /// When not empty, only workers that present it are let in.
  std::string launch_token;
  Nanos heartbeat = std::chrono::milliseconds(500);
  /// How long an idle worker may be silent. A busy one's budget is its job's.
  Nanos idle_budget = std::chrono::seconds(10);
  /// A busy worker whose stream breaks may come back within its budget and go
  /// on with its assignment. Off where workers end with the coordinator.
  bool awaits_return = false;
  /// For Welcome: how long workers go on without a coordinator.
  Nanos lease = std::chrono::minutes(10);
};

struct WorkerInfo {
  std::string id;  // "worker-3"
  int64_t number = 0;
  std::string host;
  int64_t pid = 0;
  std::string data_address;
  std::string device;
  int cores = 0;
  int64_t memory_bytes = 0;
  /// The only job that it is here for; empty: it takes any.
  std::string meant_for;
};

struct WorkerDemand {
  int count = 0;
  bool needs_cuda = false;
};

/// A worker that is no longer here.
struct DepartedWorker {
  WorkerInfo worker;
  std::string job_id;  // empty if it was idle
  std::string reason;  // "its connection closed"
  /// It may still come back, and is a member until its budget runs out.
  bool is_away = false;
};

struct Reservation {
  /// By host, then by name; empty unless all could be had.
  std::vector<WorkerInfo> workers;
  int num_missing = 0;
  /// A job that waits longer takes the workers that there are.
  bool is_behind_another = false;
};

class Roster {
 public:
  Roster(RosterOptions options, Clock* clock);

  /// Sends Welcome over `session` and returns it. A worker that is away and
  /// holds the assignment that it left with keeps name and assignment.
  /// FAILED_PRECONDITION: the worker's version differs (names both).
  /// PERMISSION_DENIED: wrong launch token. INVALID_ARGUMENT: no data address.
  /// A data address ":PORT" is completed with `peer_host`.
  absl::StatusOr<v1::Welcome> Join(const v1::Hello& hello,
                                   const std::string& peer_host,
                                   std::shared_ptr<WorkerSession> session);
  /// Notes a sign of life.
  void Heard(const std::string& worker_id);
  /// The stream of `session` has ended. Empty if the worker is gone already, or
  /// has come back over another stream. A busy one may be away only.
  std::optional<DepartedWorker> Leave(const std::string& worker_id,
                                      const WorkerSession* session);
  /// Removes the workers that were silent longer than their budgets and closes
  /// their sessions.
  std::vector<DepartedWorker> RemoveSilent();
  /// Whole heartbeat intervals beyond the first in which a worker with a stream
  /// was silent, of all workers, as RemoveSilent found them.
  int64_t num_heartbeats_missed();
  /// Takes `pause`, during which this process itself stood still, off
  /// everyone's silence.
  void Forgive(Nanos pause);
  /// Says goodbye to a worker and forgets it.
  void Dismiss(const std::string& worker_id, const std::string& reason);
  /// The same for an idle worker of that name which is that process; nothing if
  /// it is another, is busy, or is not here.
  void SendAway(const std::string& worker_id, const std::string& host,
                int64_t pid, const std::string& reason);
  /// Drops a worker that has no stream. False if it has one by now.
  bool Forget(const std::string& worker_id);
  /// Says goodbye to all, or, where they may wait for a successor, leaves them
  /// alone; nobody is let in afterwards.
  void Close(const std::string& reason);

  /// Puts the job at the end of the line, once.
  void Wait(const std::string& job_id, WorkerDemand demand);
  void StopWaiting(const std::string& job_id);
  /// Puts the job at the head of the line: it had workers and lost some.
  void WaitFirst(const std::string& job_id, WorkerDemand demand);
  /// All the workers that the job waits for, busy from now on, or none; those
  /// that are meant for it before those that take any.
  Reservation TryReserve(const std::string& job_id, Nanos detection_budget);
  void SetPlace(const std::string& worker_id, int stage, int replica,
                uint64_t generation);
  /// Of a coordinator's predecessor: the worker is away, busy with that job,
  /// and has `away_budget` to come back; from then on `detection_budget` holds.
  void Expect(const WorkerInfo& worker, const std::string& job_id, int stage,
              int replica, uint64_t generation, Nanos away_budget,
              Nanos detection_budget);
  /// The worker's figures; nothing if it is gone.
  std::optional<WorkerInfo> Find(const std::string& worker_id);
  /// Makes the worker idle, if it works for that job.
  void Release(const std::string& worker_id, const std::string& job_id);

  /// Drops the message if the worker is gone.
  void Send(const std::string& worker_id,
            const v1::CoordinatorMessage& message);
  /// The job that the worker works for; empty if idle or gone.
  std::string JobOf(const std::string& worker_id);
  v1::ListWorkersResponse List();

 private:
  struct Member {
    WorkerInfo info;
    std::shared_ptr<WorkerSession> session;  // null while it is away
    /// Welcome must be the first message, so no job may send before.
    bool is_welcomed = false;
    Nanos last_heard{0};
    int64_t num_missed = 0;  // heartbeats of this silence
    Nanos budget{0};
    std::string job_id;
    int stage = 0;
    int replica = 0;
    uint64_t generation = 0;
    /// Budget once it is back; that of being away may be longer.
    Nanos present_budget{0};
  };
  struct Waiting {
    std::string job_id;
    WorkerDemand demand;
  };

  /// Whether the worker is one that may go on with what it holds.
  bool Holds(const v1::Hello& hello) DP_REQUIRES(mutex_);
  std::string PickName(const std::string& wanted) DP_REQUIRES(mutex_);
  /// Those that the job may have, the best first.
  std::vector<Member*> Idle(const Waiting& waiting) DP_REQUIRES(mutex_);

  const RosterOptions options_;
  Clock* const clock_;
  Mutex mutex_;
  std::map<std::string, Member> members_ DP_GUARDED_BY(mutex_);
  std::vector<Waiting> line_ DP_GUARDED_BY(mutex_);
  int64_t last_number_ DP_GUARDED_BY(mutex_) = 0;
  int64_t num_heartbeats_missed_ DP_GUARDED_BY(mutex_) = 0;
  std::string closed_reason_ DP_GUARDED_BY(mutex_);
  bool is_closed_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_ROSTER_ROSTER_H_
