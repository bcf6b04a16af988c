// Looks a job up as people name it.
#ifndef DELTAPIPE_COORDINATOR_RPC_FIND_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_FIND_JOB_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// What a request may say of its reason.
inline constexpr size_t kMaxReasonBytes = 1000;

/// NOT_FOUND names the id and, if one is similar, the nearest that there is.
absl::StatusOr<StoredJob> FindJob(ControlPlane* plane, const std::string& id);

/// The id among `ids` that takes the fewest edits to reach from `id`, of those
/// that begin with it or take at most a third of its length; empty if none
/// does.
std::string NearestId(const std::string& id,
                      const std::vector<std::string>& ids);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_FIND_JOB_H_
