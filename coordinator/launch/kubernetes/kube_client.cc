#include "coordinator/launch/kubernetes/kube_client.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/launch/kubernetes/http_exchange.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

constexpr int64_t kLongestToken = 64 << 10;
constexpr size_t kLongestEvent = size_t{4} << 20;

/// Grows from the first to the longest.
class Pauses {
 public:
  explicit Pauses(const KubeClientOptions& options)
      : first_(options.first_pause), longest_(options.longest_pause) {}
  void Restart() { next_ = first_; }
  /// False if cancelled.
  bool Wait(Deadline deadline, const CancelSignal* cancel) {
    const Deadline end = std::min(deadline, Deadline::After(next_));
    next_ = std::min(2 * next_, longest_);
    if (cancel != nullptr) return cancel->WaitUntil(end);
    // Whoever cannot cancel waits as well.
    const auto own = CancelSignal::Create();
    return !own.ok() || (*own)->WaitUntil(end);
  }

 private:
  const std::chrono::milliseconds first_;
  const std::chrono::milliseconds longest_;
  std::chrono::milliseconds next_ = first_;
};

bool MayPass(int status) {
  return status == 429 || status == 500 || status == 502 || status == 503 ||
         status == 504;
}

absl::StatusCode CodeOf(int status) {
  switch (status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kAlreadyExists;
    case 410:
      return absl::StatusCode::kOutOfRange;
    case 400:
    case 405:
    case 413:
    case 415:
    case 422:
      return absl::StatusCode::kInvalidArgument;
    default:
      return MayPass(status) ? absl::StatusCode::kUnavailable
                             : absl::StatusCode::kUnknown;
  }
}

KubernetesObject ParseJson(absl::string_view text) {
  return KubernetesObject::parse(text.begin(), text.end(), nullptr, false);
}

/// What the server says of a refusal is a Status object.
absl::Status StatusOf(const std::string& name, int status,
                      const std::string& body) {
  std::string words = TextAt(ParseJson(body), {"message"});
  if (words.empty()) words = body.substr(0, 200);
  std::string remedy;
  absl::StatusCode code = CodeOf(status);
  if (status == 401) {
    remedy = ": the token of the service account is not valid here";
  } else if (status == 403 && absl::StrContains(words, "exceeded quota")) {
    code = absl::StatusCode::kResourceExhausted;
    remedy = ": raise that ResourceQuota, or end what uses it up";
  } else if (status == 403) {
    remedy =
        ": the Role of deploy/kubernetes/components/launcher allows it; is it "
        "bound?";
  }
  return absl::Status(code, absl::StrCat("Kubernetes answered ", name, " with ",
                                         status, ": ", words, remedy));
}

/// `labels` as a query asks for them.
std::string Selector(const std::string& labels) {
  return absl::StrCat(
      "?labelSelector=",
      absl::StrReplaceAll(labels, {{"=", "%3D"}, {",", "%2C"}, {"/", "%2F"}}));
}

/// The items of a list; null where the server sent something else.
const KubernetesObject* ItemsOf(const KubernetesObject& list) {
  const KubernetesObject* const items = FindAt(list, {"items"});
  return items != nullptr && items->is_array() ? items : nullptr;
}

absl::Status NoList(const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("Kubernetes answered GET ", path, " with no list"));
}

std::string PathOf(const std::string& url) {
  const size_t start = url.find("/api");
  return start == std::string::npos ? url : url.substr(start);
}

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  if (path.empty()) return std::string();
  DP_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kLongestToken));
  const absl::string_view token = absl::StripAsciiWhitespace(text);
  for (const char c : token) {
    // It becomes a header line.
    if (!absl::ascii_isgraph(c)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path,
                       " holds no token, but bytes that no header may "
                       "have"));
    }
  }
  return std::string(token);
}

/// One request with the token of now. Where it is refused although the file has
/// another token by then, that one is tried.
absl::StatusOr<HttpResponse> Authorized(const KubeClientOptions& options,
                                        HttpRequest request, Deadline deadline,
                                        const CancelSignal* cancel) {
  const std::vector<std::string> headers = request.headers;
  DP_ASSIGN_OR_RETURN(std::string token, ReadToken(options.token_path));
  for (;;) {
    request.headers = headers;
    if (!token.empty()) {
      request.headers.push_back(absl::StrCat("Authorization: Bearer ", token));
    }
    DP_ASSIGN_OR_RETURN(HttpResponse response,
                        ExchangeHttp(request, deadline, cancel));
    if (response.status != 401) return response;
    DP_ASSIGN_OR_RETURN(std::string token_now, ReadToken(options.token_path));
    if (token_now == token) return response;
    token = std::move(token_now);
  }
}

HttpRequest RequestFor(const KubeClientOptions& options,
                       const std::string& method, const std::string& path) {
  HttpRequest request;
  request.method = method;
  request.url = absl::StrCat(options.server, path);
  request.ca_path = options.ca_path;
  request.headers = {"Accept: application/json",
                     "Content-Type: application/json",
                     "User-Agent: deltapipe-coordinator"};
  return request;
}

bool IsLoopback(absl::string_view host) {
  return absl::StartsWith(host, "127.0.0.1:") ||
         absl::StartsWith(host, "[::1]:") ||
         absl::StartsWith(host, "localhost:");
}

}  // namespace

absl::StatusOr<KubeClientOptions> InClusterKubeOptions(
    const std::string& folder) {
  const char* const host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* const port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr || *host == '\0' || *port == '\0') {
    return absl::FailedPreconditionError(
        "this process runs in no pod: KUBERNETES_SERVICE_HOST and "
        "KUBERNETES_SERVICE_PORT are not set; 'deltapipe render SPEC | kubectl "
        "apply -f -' launches workers from outside");
  }
  KubeClientOptions options;
  const bool is_v6 = absl::StrContains(host, ":");
  options.server = absl::StrCat("https://", is_v6 ? "[" : "", host,
                                is_v6 ? "]" : "", ":", port);
  options.token_path = absl::StrCat(folder, "/token");
  options.ca_path = absl::StrCat(folder, "/ca.crt");
  auto name = ReadFile(absl::StrCat(folder, "/namespace"), 256);
  for (const std::string& path : {options.token_path, options.ca_path}) {
    const auto text = ReadFile(path, 1 << 20);
    if (name.ok() && !text.ok()) name = text.status();
  }
  if (!name.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the pod has no service account: ", name.status().message(),
        " (automountServiceAccountToken must be true)"));
  }
  options.namespace_name = std::string(absl::StripAsciiWhitespace(*name));
  return options;
}

absl::StatusOr<std::unique_ptr<KubeClient>> KubeClient::Create(
    KubeClientOptions options) {
  const absl::string_view server = options.server;
  const bool is_plain = absl::StartsWith(server, "http://");
  if (!is_plain && !absl::StartsWith(server, "https://")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Kubernetes server: expected https://HOST:PORT, got '", server, "'"));
  }
  if (is_plain && !IsLoopback(server.substr(7))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Kubernetes server: ", server,
        " would get the token in plain text: expected https://HOST:PORT"));
  }
  return std::unique_ptr<KubeClient>(new KubeClient(std::move(options)));
}

absl::StatusOr<KubernetesObject> KubeClient::Call(const std::string& method,
                                                  const std::string& path,
                                                  const KubernetesObject* body,
                                                  Deadline deadline,
                                                  const CancelSignal* cancel) {
  HttpRequest request = RequestFor(options_, method, path);
  if (body != nullptr) request.body = body->dump();
  const std::string name = absl::StrCat(method, " ", PathOf(path));
  Pauses pauses(options_);
  absl::Status cause;  // says more than that the time is over
  for (;;) {
    const Deadline attempt =
        std::min(deadline, Deadline::After(options_.request_timeout));
    absl::StatusOr<HttpResponse> response =
        Authorized(options_, request, attempt, cancel);
    absl::Status status = response.status();
    if (response.ok()) {
      if (response->status / 100 == 2) return ParseJson(response->body);
      status = StatusOf(name, response->status, response->body);
    }
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) {
      return status;
    }
    if (cause.ok() || absl::IsUnavailable(status)) cause = status;
    if (!pauses.Wait(deadline, cancel)) {
      return absl::CancelledError(absl::StrCat(name, " was cancelled"));
    }
    if (deadline.has_passed()) return cause;
  }
}

absl::Status KubeClient::CreateJob(const KubernetesObject& job,
                                   Deadline deadline,
                                   const CancelSignal* cancel) {
  const std::string path = absl::StrCat("/apis/batch/v1/namespaces/",
                                        options_.namespace_name, "/jobs");
  return Call("POST", path, &job, deadline, cancel).status();
}

absl::Status KubeClient::CreateDisruptionBudget(const KubernetesObject& budget,
                                                Deadline deadline,
                                                const CancelSignal* cancel) {
  const std::string path =
      absl::StrCat("/apis/policy/v1/namespaces/", options_.namespace_name,
                   "/poddisruptionbudgets");
  return Call("POST", path, &budget, deadline, cancel).status();
}

absl::StatusOr<KubernetesObject> KubeClient::GetJob(
    const std::string& name, Deadline deadline, const CancelSignal* cancel) {
  const std::string path = absl::StrCat(
      "/apis/batch/v1/namespaces/", options_.namespace_name, "/jobs/", name);
  return Call("GET", path, nullptr, deadline, cancel);
}

absl::StatusOr<std::vector<KubernetesObject>> KubeClient::ListJobs(
    const std::string& labels, Deadline deadline, const CancelSignal* cancel) {
  const std::string path =
      absl::StrCat("/apis/batch/v1/namespaces/", options_.namespace_name,
                   "/jobs", Selector(labels));
  DP_ASSIGN_OR_RETURN(const KubernetesObject list,
                      Call("GET", path, nullptr, deadline, cancel));
  const KubernetesObject* const items = ItemsOf(list);
  if (items == nullptr) return NoList(path);
  return std::vector<KubernetesObject>(items->begin(), items->end());
}

absl::Status KubeClient::DeleteJob(const std::string& name, Deadline deadline,
                                   const CancelSignal* cancel) {
  const std::string path = absl::StrCat(
      "/apis/batch/v1/namespaces/", options_.namespace_name, "/jobs/", name);
  const KubernetesObject body = {{"apiVersion", "v1"},
                                 {"kind", "DeleteOptions"},
                                 {"propagationPolicy", "Background"}};
  return Call("DELETE", path, &body, deadline, cancel).status();
}

absl::StatusOr<std::string> KubeClient::ListPods(const std::string& query,
                                                 const PodWatcher& watcher,
                                                 Deadline deadline,
                                                 const CancelSignal* cancel) {
  DP_ASSIGN_OR_RETURN(const KubernetesObject list,
                      Call("GET", query, nullptr, deadline, cancel));
  const KubernetesObject* const items = ItemsOf(list);
  const std::string version = TextAt(list, {"metadata", "resourceVersion"});
  if (items == nullptr || version.empty()) return NoList(query);
  watcher.on_list({items->begin(), items->end()});
  return version;
}

absl::Status KubeClient::FollowPods(const std::string& query,
                                    const PodWatcher& watcher,
                                    std::string* version, Deadline deadline,
                                    const CancelSignal* cancel) {
  HttpRequest request = RequestFor(
      options_, "GET",
      absl::StrCat(query, "&watch=1&allowWatchBookmarks=true&timeoutSeconds=",
                   options_.watch_time.count(), "&resourceVersion=", *version));
  absl::Status refused;
  std::string line;
  const auto on_line = [&] {
    const KubernetesObject event = ParseJson(line);
    const KubernetesObject* const object = FindAt(event, {"object"});
    const std::string type = TextAt(event, {"type"});
    if (object == nullptr) return;  // what was cut off comes again
    if (type == "ERROR") {
      const int code = static_cast<int>(NumberAt(*object, {"code"}, 500));
      refused = StatusOf("a watch", code, object->dump());
      return;
    }
    const std::string seen = TextAt(*object, {"metadata", "resourceVersion"});
    if (type != "BOOKMARK") watcher.on_change(*object, type == "DELETED");
    if (!seen.empty()) *version = seen;
  };
  request.on_body = [&](absl::string_view piece) {
    for (const char c : piece) {
      if (c != '\n') {
        line += c;
        continue;
      }
      on_line();
      line.clear();
    }
    if (line.size() > kLongestEvent) {
      refused = absl::ResourceExhaustedError(
          "an event of a Kubernetes watch has more than 4 MiB");
    }
    return refused.ok();
  };
  // The server ends it in time; one that is silent for longer is gone.
  const Deadline end =
      std::min(deadline,
               Deadline::After(options_.watch_time + options_.request_timeout));
  DP_ASSIGN_OR_RETURN(const HttpResponse response,
                      Authorized(options_, request, end, cancel));
  if (response.status != 200) {
    return StatusOf("a watch", response.status, response.body);
  }
  return refused;
}

absl::Status KubeClient::WatchPods(const std::string& labels,
                                   const PodWatcher& watcher, Deadline deadline,
                                   const CancelSignal* cancel) {
  const std::string query =
      absl::StrCat("/api/v1/namespaces/", options_.namespace_name, "/pods",
                   Selector(labels));
  std::string version;
  Pauses pauses(options_);
  for (;;) {
    if (version.empty()) {
      DP_ASSIGN_OR_RETURN(version, ListPods(query, watcher, deadline, cancel));
    }
    const std::string version_before = version;
    const absl::Status status =
        FollowPods(query, watcher, &version, deadline, cancel);
    if (deadline.has_passed()) {
      return absl::DeadlineExceededError("the watch's time is over");
    }
    if (absl::IsOutOfRange(status)) {  // 410
      version.clear();
    } else if (!status.ok() && !absl::IsUnavailable(status) &&
               !absl::IsDeadlineExceeded(status)) {
      return status;
    }
    if (version != version_before && !version.empty()) {
      pauses.Restart();
    }
    if (!pauses.Wait(deadline, cancel)) {
      return absl::CancelledError("the watch was cancelled");
    }
  }
}

}  // namespace deltapipe
