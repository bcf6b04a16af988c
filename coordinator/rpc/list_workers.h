// JobService.ListWorkers.
#ifndef DELTAPIPE_COORDINATOR_RPC_LIST_WORKERS_H_
#define DELTAPIPE_COORDINATOR_RPC_LIST_WORKERS_H_

#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

v1::ListWorkersResponse ListWorkers(ControlPlane* plane,
                                    const v1::ListWorkersRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_LIST_WORKERS_H_
