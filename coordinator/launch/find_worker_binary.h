// Where the worker program is.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_FIND_WORKER_BINARY_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_FIND_WORKER_BINARY_H_

#include <string>

#include "absl/status/statusor.h"

namespace deltapipe {

/// $DELTAPIPE_WORKER if it is set, else `deltapipe-worker` beside the running
/// program. NOT_FOUND: nothing executable there (names both ways).
absl::StatusOr<std::string> FindWorkerBinary();

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_FIND_WORKER_BINARY_H_
