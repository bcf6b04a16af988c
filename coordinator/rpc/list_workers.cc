#include "coordinator/rpc/list_workers.h"

namespace deltapipe {

v1::ListWorkersResponse ListWorkers(ControlPlane* plane,
                                    const v1::ListWorkersRequest& request) {
  return plane->roster()->List();
}

}  // namespace deltapipe
