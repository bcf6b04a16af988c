// A secret that tells a run's own workers from others: 128 random bits in hex.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_LAUNCH_TOKEN_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_LAUNCH_TOKEN_H_

#include <string>

#include "absl/status/statusor.h"

namespace deltapipe {

/// UNAVAILABLE: the system has no randomness to give.
absl::StatusOr<std::string> MakeLaunchToken();

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_LAUNCH_TOKEN_H_
