// The coordinator's HTTP server: /metrics, the status page and its JSON, over a
// control plane.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_STATUS_SERVER_H_
#define DELTAPIPE_COORDINATOR_SERVICE_STATUS_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/metrics/http_server.h"
#include "coordinator/service/listen_address.h"

namespace deltapipe {

/// HOST:PORT, or a port alone, which is one of 127.0.0.1. INVALID_ARGUMENT.
absl::StatusOr<ListenAddress> ParseStatusAddress(const std::string& text);

/// See CheckListenAddress; PERMISSION_DENIED also if others could read there,
/// unless `insecure`.
absl::Status CheckMayServeStatus(const ListenAddress& address, bool insecure);

/// `plane` outlives the server. The errors of HttpServer::Start.
absl::StatusOr<std::unique_ptr<HttpServer>> StartStatusServer(
    ControlPlane* plane, const ListenAddress& listen);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_STATUS_SERVER_H_
