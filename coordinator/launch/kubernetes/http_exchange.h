// One HTTP request and its answer, by libcurl; the only place that knows it.
//
// Called by KubeClient, from any thread; blocks until the answer is whole, the
// deadline or a cancel. A connection of its own each time: keys and
// certificates that are renewed on disk hold from the next call on. Follows no
// redirect and uses no proxy, since requests carry a token.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_HTTP_EXCHANGE_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_HTTP_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/deadline.h"
#include "coordinator/launch/kubernetes/cancel_signal.h"

namespace deltapipe {

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;
  std::string body;
  /// The certificates that the server's must lead to.
  std::string ca_path;
  int64_t max_response_bytes = int64_t{16} << 20;
  /// Gets the body of a 200 as it comes, instead of the answer, and ends the
  /// exchange (OK) by returning false. May be null.
  std::function<bool(absl::string_view)> on_body;
};

struct HttpResponse {
  int status = 0;
  std::string body;
};

/// UNAVAILABLE: no connection, or it broke. UNAUTHENTICATED: the server's
/// certificate does not lead to `ca_path`. RESOURCE_EXHAUSTED: the answer is
/// too large. DEADLINE_EXCEEDED. CANCELLED. `cancel` may be null.
absl::StatusOr<HttpResponse> ExchangeHttp(const HttpRequest& request,
                                          Deadline deadline,
                                          const CancelSignal* cancel);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_HTTP_EXCHANGE_H_
