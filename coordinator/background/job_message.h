// What a job's thread is told, one after the other.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_

#include <functional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/launch/worker_supply.h"
#include "coordinator/roster/roster.h"
#include "coordinator/tuning/tuning_answers.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// A worker of the job sent something.
struct WorkerSpoke {
  std::string worker_id;
  v1::WorkerMessage message;
};
/// A worker of the job is no longer here, or away.
struct WorkerGone {
  DepartedWorker departed;
};
/// A worker that was away is back and goes on with its assignment.
struct WorkerReturned {
  std::string worker_id;
};
/// Workers came, went or became idle.
struct RosterChanged {};
/// Time has passed.
struct Tick {};
/// Something became of the workers that are brought for the job.
struct SupplyTold {
  SupplyNotice notice;
};
/// The measurement of layer costs has ended.
struct Profiled {
  absl::StatusOr<v1::StageProfile> profile;
};

/// Called once what was asked for is stored, or refused.
using CommandReply = std::function<void(const absl::Status&)>;
inline void IgnoreReply(const absl::Status&) {}

/// A worker shall end: the job goes on without it. NOT_FOUND: the job has no
/// such worker, or is done with it.
struct WorkerLeaves {
  std::string worker_id;
  std::string reason;
  CommandReply reply = IgnoreReply;
};

struct CancelRequested {
  std::string reason;
  CommandReply reply = IgnoreReply;
};
struct PauseRequested {
  std::string reason;
  CommandReply reply = IgnoreReply;
};
struct CheckpointRequested {
  CommandReply reply = IgnoreReply;
};
/// Asks for what the workers do in the next steps; the answers go to the metric
/// sink.
struct TraceRequested {
  int steps = 1;
  CommandReply reply = IgnoreReply;
};
/// Asks for a change of knobs. `make_next` makes the next revision of what is
/// in force (or returns it as it is: nothing changes); it does no I/O.
struct TuningRequested {
  std::function<absl::StatusOr<v1::Tuning>(
      const v1::Tuning& current, const v1::JobSpec& spec, const v1::Plan& plan)>
      make_next;
  std::string principal;
  std::string reason;
  /// Of the client; the same one again is answered as it was, and changes
  /// nothing. A look has none.
  TuningRequestKey key = {};
  /// Only tells what the next revision would be.
  bool is_look = false;
  /// Told once the change is in force everywhere, or refused.
  std::function<void(const absl::StatusOr<v1::Tuning>&)> reply;
};

using JobMessage =
    std::variant<WorkerSpoke, WorkerGone, WorkerReturned, WorkerLeaves,
                 RosterChanged, Tick, SupplyTold, Profiled, CancelRequested,
                 PauseRequested, CheckpointRequested, TraceRequested,
                 TuningRequested>;

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_
