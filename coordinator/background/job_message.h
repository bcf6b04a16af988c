// What a job's thread is told, one after the other.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_

#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "coordinator/roster/roster.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// A worker of the job sent something.
struct WorkerSpoke {
  std::string worker_id;
  v1::WorkerMessage message;
};
/// A worker of the job is no longer here.
struct WorkerGone {
  DepartedWorker departed;
};
/// Workers came, went or became idle.
struct RosterChanged {};
/// Time has passed.
struct Tick {};
struct CancelRequested {
  std::string reason;
};
/// The measurement of layer costs has ended.
struct Profiled {
  absl::StatusOr<v1::StageProfile> profile;
};

using JobMessage = std::variant<WorkerSpoke, WorkerGone, RosterChanged, Tick,
                                CancelRequested, Profiled>;

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_MESSAGE_H_
