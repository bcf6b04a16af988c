// JobService.GetVersion.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_VERSION_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_VERSION_H_

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

v1::Version GetVersion(const v1::GetVersionRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_VERSION_H_
