// HttpServer: answers GET and HEAD from memory, for /metrics and the status
// page. Nothing is read from the disk; nothing can be changed through it.
//
// Made by the coordinator. Handlers are called from a few threads of the
// server's own, several at a time. Requests, connections and waiting times are
// bounded. A server on loopback answers only requests that name loopback as
// their host, so that no web page of another origin can read it.
//
//   HttpServerOptions options;
//   options.handler = [](const std::string& path) { ... };
//   DP_ASSIGN_OR_RETURN(auto server, HttpServer::Start(options));
#ifndef DELTAPIPE_COORDINATOR_METRICS_HTTP_SERVER_H_
#define DELTAPIPE_COORDINATOR_METRICS_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace deltapipe {

struct HttpAnswer {
  int code = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // an address; without brackets
  int port = 0;                    // 0 picks one
  /// Whether only this machine can reach the host.
  bool is_loopback = true;
  /// How long a peer may take to send its request.
  int timeout_millis = 5000;
  /// Called with the decoded path, which begins with '/', without its query.
  std::function<HttpAnswer(const std::string& path)> handler;
};

class HttpServer {
 public:
  static constexpr int kThreads = 4;
  /// Connections that wait for a thread.
  static constexpr int kWaiting = 16;
  static constexpr int kMaxRequestBytes = 16384;

  /// UNAVAILABLE: the server could not listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      HttpServerOptions options);
  /// Ends the threads; a handler at work ends first.
  ~HttpServer();

  /// "127.0.0.1:9400"
  const std::string& address() const { return address_; }

 private:
  struct Server;
  explicit HttpServer(std::unique_ptr<Server> server);

  const std::unique_ptr<Server> server_;
  std::string address_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_HTTP_SERVER_H_
