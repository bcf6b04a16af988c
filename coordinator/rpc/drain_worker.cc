#include "coordinator/rpc/drain_worker.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"

namespace deltapipe {

absl::StatusOr<v1::Worker> DrainWorker(ControlPlane* plane,
                                       const v1::DrainWorkerRequest& request) {
  v1::Worker drained;
  const v1::ListWorkersResponse workers = plane->roster()->List();
  for (const v1::Worker& worker : workers.workers()) {
    if (worker.id() == request.worker_id()) drained = worker;
  }
  const std::string reason =
      request.reason().empty()
          ? std::string("drained")
          : absl::StrCat("drained: ",
                         request.reason().substr(0, kMaxReasonBytes));
  DP_RETURN_IF_ERROR(plane->jobs()->DrainWorker(request.worker_id(), reason));
  return drained;
}

}  // namespace deltapipe
