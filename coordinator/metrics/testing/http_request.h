// A request to an HTTP server on loopback, as bytes: tests send what no client
// would.
#ifndef DELTAPIPE_COORDINATOR_METRICS_TESTING_HTTP_REQUEST_H_
#define DELTAPIPE_COORDINATOR_METRICS_TESTING_HTTP_REQUEST_H_

#include <string>

namespace deltapipe {

/// A connection to "127.0.0.1:PORT"; -1 if there is none to be had.
int ConnectTo(const std::string& address);
/// Sends `request` and returns all that comes until the server closes; what was
/// not read of the request does not matter.
std::string HttpExchange(const std::string& address,
                         const std::string& request);
/// "GET `path`" with the server's own address as its host.
std::string HttpGet(const std::string& address, const std::string& path);
/// What follows the head.
std::string HttpBody(const std::string& answer);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_TESTING_HTTP_REQUEST_H_
