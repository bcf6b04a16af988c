#include "coordinator/metrics/http_server.h"

#include <civetweb.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"

namespace deltapipe {
namespace {

/// Between attempts to wake a server that is to stop.
constexpr std::chrono::milliseconds kWakeInterval{10};
constexpr Nanos kWarningInterval = std::chrono::minutes(1);
/// How much of a path is logged.
constexpr size_t kLoggedPath = 200;

std::string HostAndPort(const std::string& host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

const char* Phrase(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    default:
      return "Internal Server Error";
  }
}

/// Whether a Host header such as "localhost:9400" or "[::1]" names loopback.
bool NamesLoopback(absl::string_view host) {
  const size_t colon = host.rfind(':');
  const size_t bracket = host.rfind(']');
  if (colon != absl::string_view::npos &&
      (bracket == absl::string_view::npos || colon > bracket)) {
    host = host.substr(0, colon);
  }
  return host == "localhost" || host == "[::1]" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == absl::string_view::npos);
}

/// Whether one of the parts of a decoded path is "..".
bool GoesUp(absl::string_view path) {
  for (const absl::string_view part :
       absl::StrSplit(path, absl::ByAnyChar("/\\"))) {
    if (part == "..") return true;
  }
  return false;
}

void Send(mg_connection* connection, const HttpAnswer& answer, bool has_body) {
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", answer.code, " ", Phrase(answer.code),
      "\r\nContent-Type: ", answer.content_type,
      "\r\nContent-Length: ", answer.body.size(),
      "\r\nConnection: close"
      "\r\nCache-Control: no-store"
      "\r\nX-Content-Type-Options: nosniff"
      "\r\nX-Frame-Options: DENY"
      "\r\nReferrer-Policy: no-referrer"
      "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; "
      "style-src 'self'; connect-src 'self'; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'",
      answer.code == 405 ? "\r\nAllow: GET, HEAD" : "", "\r\n\r\n");
  // A peer that has gone away is none of our business.
  mg_write(connection, head.data(), head.size());
  if (has_body) mg_write(connection, answer.body.data(), answer.body.size());
}

}  // namespace

struct HttpServer::Server {
  HttpServerOptions options;
  mg_context* context = nullptr;
  int port = 0;
  Mutex mutex;
  std::optional<Nanos> next_warning DP_GUARDED_BY(mutex);
  int64_t refused_in_silence DP_GUARDED_BY(mutex) = 0;

  ~Server() {
    if (context == nullptr) return;
    // Its listening thread looks only every two seconds whether to stop, or
    // when somebody connects: so somebody does, until it has.
    Mutex mutex;
    CondVar changed;
    bool is_stopped = false;
    Thread stopping("http-stop", [&] {
      mg_stop(context);
      MutexLock lock(&mutex);
      is_stopped = true;
      changed.NotifyAll();
    });
    MutexLock lock(&mutex);
    while (!changed.WaitUntil(lock, Deadline::After(kWakeInterval),
                              [&] { return is_stopped; })) {
      Wake();
    }
  }

  /// Connects to the server and leaves.
  void Wake() const {
    char error[256];
    mg_connection* const connection = mg_connect_client(
        options.host.c_str(), port, /*use_ssl=*/0, error, sizeof(error));
    // None if it does not listen any more.
    if (connection != nullptr) mg_close_connection(connection);
  }

  /// Logs that somebody tried to leave our paths; a flood of them once a
  /// minute.
  void NoteEscape(const mg_request_info& request, absl::string_view path) {
    int64_t in_silence = 0;
    {
      MutexLock lock(&mutex);
      const Nanos now = Clock::Real()->Now();
      if (next_warning.has_value() && now < *next_warning) {
        ++refused_in_silence;
        return;
      }
      next_warning = now + kWarningInterval;
      in_silence = std::exchange(refused_in_silence, 0);
    }
    LOG_WARNING << "refused an HTTP request from " << request.remote_addr
                << ": its path '"
                << absl::Utf8SafeCEscape(path.substr(0, kLoggedPath))
                << "' has '..' in it"
                << (in_silence > 0 ? absl::StrCat(" (and ", in_silence,
                                                  " more in the last minute)")
                                   : "");
  }

  HttpAnswer Answer(const mg_connection* connection,
                    const mg_request_info& request) {
    const std::string method = request.request_method;
    if (method != "GET" && method != "HEAD") {
      return {405, "text/plain", "only GET and HEAD are answered here\n"};
    }
    const char* const host = mg_get_header(connection, "Host");
    if (options.is_loopback && host != nullptr && !NamesLoopback(host)) {
      return {403, "text/plain",
              "this server is for its own machine: ask for 127.0.0.1\n"};
    }
    if (request.local_uri_raw != nullptr && GoesUp(request.local_uri_raw)) {
      NoteEscape(request, request.local_uri_raw);
      return {400, "text/plain", "expected a path without '..'\n"};
    }
    if (request.local_uri == nullptr || request.local_uri[0] != '/') {
      return {400, "text/plain", "expected a path that begins with /\n"};
    }
    return options.handler(request.local_uri);
  }

  static int OnRequest(mg_connection* connection) {
    auto* const server =
        static_cast<Server*>(mg_get_user_data(mg_get_context(connection)));
    const mg_request_info& request = *mg_get_request_info(connection);
    const HttpAnswer answer = server->Answer(connection, request);
    Send(connection, answer,
         absl::string_view("HEAD") != request.request_method);
    return answer.code;  // not 0: nothing else answers
  }

  /// Its own log goes to stderr otherwise; what it says concerns single peers.
  static int OnMessage(const mg_connection*, const char*) { return 1; }
};

HttpServer::HttpServer(std::unique_ptr<Server> server)
    : server_(std::move(server)) {}

HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    HttpServerOptions options) {
  auto server = std::make_unique<Server>();
  server->options = std::move(options);
  const HttpServerOptions& kept = server->options;
  const std::string listen = HostAndPort(kept.host, kept.port);
  const std::string threads = absl::StrCat(kThreads);
  const std::string waiting = absl::StrCat(kWaiting);
  const std::string request_bytes = absl::StrCat(kMaxRequestBytes);
  const std::string timeout = absl::StrCat(kept.timeout_millis);
  // Without document_root nothing of the disk is served.
  const char* settings[] = {"listening_ports",
                            listen.c_str(),
                            "num_threads",
                            threads.c_str(),
                            "connection_queue",
                            waiting.c_str(),
                            "listen_backlog",
                            waiting.c_str(),
                            "max_request_size",
                            request_bytes.c_str(),
                            "request_timeout_ms",
                            timeout.c_str(),
                            "enable_keep_alive",
                            "no",
                            nullptr};
  mg_callbacks callbacks = {};
  callbacks.begin_request = &Server::OnRequest;
  callbacks.log_message = &Server::OnMessage;
  server->context = mg_start(&callbacks, server.get(), settings);
  if (server->context == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", listen,
                     ": the address could not be listened on: choose another "
                     "port (0 picks a free one), or an address of this "
                     "machine"));
  }
  mg_server_port port = {};
  mg_get_server_ports(server->context, 1, &port);
  server->port = port.port;
  const std::string address = HostAndPort(kept.host, port.port);
  std::unique_ptr<HttpServer> started(new HttpServer(std::move(server)));
  started->address_ = address;
  return started;
}

}  // namespace deltapipe
