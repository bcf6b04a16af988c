#include "coordinator/launch/kubernetes/fake_kube_api.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

constexpr char kBudgets[] = "/poddisruptionbudgets";

std::string Answer(int status, const std::string& body) {
  return absl::StrCat("HTTP/1.1 ", status,
                      " Fake\r\nContent-Type: application/json\r\n"
                      "Connection: close\r\nContent-Length: ",
                      body.size(), "\r\n\r\n", body);
}

std::string Refusal(int status, const std::string& message) {
  const KubernetesObject body = {
      {"kind", "Status"}, {"code", status}, {"message", message}};
  return Answer(status, body.dump());
}

bool SendAll(int socket, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(socket, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string Between(const std::string& text, const std::string& start,
                    const std::string& end) {
  const size_t from = text.find(start);
  if (from == std::string::npos) return "";
  const size_t begin = from + start.size();
  return text.substr(begin, text.find(end, begin) - begin);
}

/// The uid of what the object belongs to; "" if it is nothing's.
std::string OwnerOf(const KubernetesObject& object) {
  const KubernetesObject* const owners =
      FindAt(object, {"metadata", "ownerReferences"});
  if (owners == nullptr || !owners->is_array() || owners->empty()) return "";
  return TextAt((*owners)[0], {"uid"});
}

}  // namespace

std::unique_ptr<FakeKubeApi> FakeKubeApi::Start() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || bind(listener, any, size) != 0 ||
      listen(listener, 64) != 0 || getsockname(listener, any, &size) != 0) {
    std::perror("FakeKubeApi");
    std::exit(1);
  }
  return std::unique_ptr<FakeKubeApi>(
      new FakeKubeApi(listener, ntohs(address.sin_port)));
}

FakeKubeApi::FakeKubeApi(int listener, int port)
    : listener_(listener),
      port_(port),
      accepting_("fake-accept", [this] { Accept(); }) {}

FakeKubeApi::~FakeKubeApi() {
  {
    MutexLock lock(&mutex_);
    is_stopped_ = true;
    changed_.NotifyAll();
  }
  shutdown(listener_, SHUT_RDWR);
  accepting_.Join();
  std::list<Connection> connections;
  {
    MutexLock lock(&mutex_);
    connections.swap(connections_);
  }
  for (Connection& connection : connections) {
    shutdown(connection.socket, SHUT_RDWR);
    connection.thread.Join();
    close(connection.socket);
  }
  close(listener_);
}

std::string FakeKubeApi::url() const {
  return absl::StrCat("http://127.0.0.1:", port_);
}

void FakeKubeApi::Accept() {
  for (;;) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) return;
    MutexLock lock(&mutex_);
    connections_.push_back({socket, Thread("fake-kube", [this, socket] {
                              Serve(socket);
                              shutdown(socket, SHUT_RDWR);
                            })});
  }
}

bool FakeKubeApi::ReadRequest(int socket, Request* request) {
  std::string text;
  size_t head = std::string::npos;
  size_t wanted = 0;
  while (head == std::string::npos || text.size() < wanted) {
    char bytes[4096];
    const ssize_t got = recv(socket, bytes, sizeof(bytes), 0);
    if (got <= 0) return false;
    text.append(bytes, static_cast<size_t>(got));
    if (head != std::string::npos) continue;
    head = text.find("\r\n\r\n");
    if (head == std::string::npos) continue;
    int length = 0;
    if (!absl::SimpleAtoi(Between(text, "Content-Length: ", "\r\n"), &length)) {
      length = 0;
    }
    wanted = head + 4 + static_cast<size_t>(length);
  }
  request->method = text.substr(0, text.find(' '));
  const std::string target = Between(text, " ", " HTTP/1.1\r\n");
  request->path = target.substr(0, target.find('?'));
  request->query = Between(target, "?", " ");
  request->token = Between(text.substr(0, head + 2), "Bearer ", "\r\n");
  request->body = text.substr(head + 4);
  return true;
}

void FakeKubeApi::Serve(int socket) {
  Request request;
  if (!ReadRequest(socket, &request)) return;
  std::string answer;
  std::function<void()> on_refusal;
  bool is_watch = absl::StrContains(request.query, "watch=1");
  {
    MutexLock lock(&mutex_);
    const bool is_budget = absl::EndsWith(request.path, kBudgets);
    ++num_requests_[is_watch ? "WATCH" : is_budget ? "BUDGET" : request.method];
    if (is_frozen_) {
      changed_.Wait(lock, [this] { return is_stopped_; });
      return;
    }
    if (request.method == "POST" && !is_budget &&
        std::exchange(is_next_post_late_, false)) {
      late_job_ = KubernetesObject::parse(request.body, nullptr, false);
      changed_.Wait(lock, [this] { return is_stopped_; });
      return;
    }
    if (num_failures_ > 0) {
      --num_failures_;
      is_watch = false;
      answer = Refusal(fail_status_, fail_message_);
    } else if (!token_.empty() && request.token != token_) {
      is_watch = false;
      on_refusal = on_refusal_;
      answer = Refusal(401, "Unauthorized");
    } else if (!is_watch) {
      answer = AnswerTo(request);
      if (std::exchange(lose_answer_, false)) return;
    }
  }
  if (on_refusal != nullptr) on_refusal();
  if (is_watch) {
    ServeWatch(socket, request);
  } else {
    SendAll(socket, answer);
  }
}

std::string FakeKubeApi::AnswerTo(const Request& request) {
  if (absl::StrContains(request.path, "/jobs")) return AnswerToJobs(request);
  if (absl::EndsWith(request.path, kBudgets)) return AnswerToBudgets(request);
  if (absl::EndsWith(request.path, "/pods")) return Answer(200, ListPods());
  return Refusal(404, absl::StrCat("no resource at ", request.path));
}

std::string FakeKubeApi::AnswerToJobs(const Request& request) {
  if (request.method == "POST") {
    const auto job = KubernetesObject::parse(request.body, nullptr, false);
    const std::string name = TextAt(job, {"metadata", "name"});
    if (name.empty()) return Refusal(422, "metadata.name: Required value");
    if (jobs_.count(name) > 0) {
      return Refusal(409,
                     absl::StrCat("jobs.batch \"", name, "\" already exists"));
    }
    KeepJob(job);
    return Answer(201, jobs_[name].dump());
  }
  if (absl::EndsWith(request.path, "/jobs")) return Answer(200, ListJobs());
  const std::string name = request.path.substr(request.path.rfind('/') + 1);
  const auto job = jobs_.find(name);
  if (job == jobs_.end()) {
    if (TextAt(late_job_, {"metadata", "name"}) == name) {
      KeepJob(std::exchange(late_job_, KubernetesObject()));
    }
    return Refusal(404, absl::StrCat("jobs.batch \"", name, "\" not found"));
  }
  const std::string text = job->second.dump();
  if (request.method == "DELETE") {
    if (num_lingering_ > 0) {
      job->second["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z";
    } else {
      DropJob(name);
    }
  } else if (FindAt(job->second, {"metadata", "deletionTimestamp"}) &&
             --num_lingering_ <= 0) {
    DropJob(name);
  }
  return Answer(200, text);
}

std::string FakeKubeApi::AnswerToBudgets(const Request& request) {
  const auto budget = KubernetesObject::parse(request.body, nullptr, false);
  const std::string name = TextAt(budget, {"metadata", "name"});
  if (request.method != "POST" || name.empty()) {
    return Refusal(422, "metadata.name: Required value");
  }
  if (budget_refusal_ != 0) return Refusal(budget_refusal_, fail_message_);
  if (budgets_.count(name) > 0) {
    return Refusal(409, absl::StrCat("poddisruptionbudgets.policy \"", name,
                                     "\" already exists"));
  }
  // What belongs to a Job that is gone goes, too.
  for (const auto& [job_name, job] : jobs_) {
    if (OwnerOf(budget) == TextAt(job, {"metadata", "uid"})) {
      budgets_[name] = budget;
    }
  }
  changed_.NotifyAll();
  return Answer(201, budget.dump());
}

void FakeKubeApi::KeepJob(KubernetesObject job) {
  const std::string name = TextAt(job, {"metadata", "name"});
  job["metadata"]["uid"] = absl::StrCat(absl::Hex(++num_jobs_, absl::kZeroPad8),
                                        "-0000-4000-8000-000000000000");
  AddPods(job);
  jobs_[name] = std::move(job);
  changed_.NotifyAll();
}

void FakeKubeApi::DropJob(const std::string& name) {
  const std::string uid = TextAt(jobs_[name], {"metadata", "uid"});
  for (auto it = budgets_.begin(); it != budgets_.end();) {
    it = OwnerOf(it->second) == uid ? budgets_.erase(it) : std::next(it);
  }
  jobs_.erase(name);
  changed_.NotifyAll();
}

std::string FakeKubeApi::ListPods() {
  KubernetesObject list = {
      {"kind", "PodList"},
      {"metadata", {{"resourceVersion", absl::StrCat(version_)}}},
      {"items", KubernetesObject::array()}};
  for (const auto& [name, pod] : pods_) list["items"].push_back(pod);
  return list.dump();
}

std::string FakeKubeApi::ListJobs() {
  KubernetesObject list = {{"kind", "JobList"},
                           {"items", KubernetesObject::array()}};
  for (const auto& [name, job] : jobs_) list["items"].push_back(job);
  return list.dump();
}

void FakeKubeApi::ServeWatch(int socket, const Request& request) {
  int64_t seen = 0;
  if (!absl::SimpleAtoi(Between(request.query, "resourceVersion=", "&"),
                        &seen)) {
    SendAll(socket, Refusal(400, "resourceVersion: Invalid value"));
    return;
  }
  bool is_begun = false;
  int cuts = 0;
  for (;;) {
    std::string text;
    bool is_gone = false;
    bool is_cut = false;
    {
      MutexLock lock(&mutex_);
      if (!is_begun) {
        cuts = num_cuts_;
        if (seen < forgotten_ && gone_as_answer_) {
          text = Refusal(410, "too old resource version");
        } else {
          ++num_watches_;
          changed_.NotifyAll();
        }
      }
      if (text.empty()) {
        changed_.Wait(lock, [&] {
          return is_stopped_ || num_cuts_ > cuts || seen < version_ ||
                 !is_begun;
        });
        if (is_stopped_) return;
        is_cut = num_cuts_ > cuts;
        is_gone = seen < forgotten_;
        for (const Change& change : changes_) {
          if (is_gone || change.version <= seen) continue;
          const KubernetesObject event = {{"type", change.type},
                                          {"object", change.pod}};
          absl::StrAppend(&text, event.dump(), "\n");
        }
        seen = version_;
        if (is_gone) {
          text =
              "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":"
              "410,\"message\":\"too old resource version\"}}\n";
        }
        if (is_cut) text = "{\"type\":\"MODIFIED\",\"object\":{\"meta";
        if (!std::exchange(is_begun, true)) {
          text = absl::StrCat(
              "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
              "Connection: close\r\n\r\n",
              text);
        }
      } else {
        is_gone = true;  // answered
      }
    }
    const bool is_sent = SendAll(socket, text);
    if (!is_sent || is_gone || is_cut) return;
  }
}

void FakeKubeApi::AddPods(const KubernetesObject& job) {
  const int count = static_cast<int>(NumberAt(job, {"spec", "completions"}, 0));
  const KubernetesObject* const labels =
      FindAt(job, {"spec", "template", "metadata", "labels"});
  for (int i = 0; i < count; ++i) {
    AddPod(TextAt(job, {"metadata", "name"}), i,
           labels == nullptr ? KubernetesObject::object() : *labels);
  }
}

void FakeKubeApi::AddPod(const std::string& job, int index,
                         const KubernetesObject& labels) {
  const std::string name = absl::StrCat(
      job, "-", index, "-", absl::Hex(++num_pods_, absl::kZeroPad5));
  KubernetesObject pod = {{"kind", "Pod"}, {"metadata", {{"name", name}}}};
  pod["metadata"]["labels"] = labels;
  pod["metadata"]["labels"]["job-name"] = job;
  pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] =
      absl::StrCat(index);
  pod["status"] = {{"phase", "Running"}};
  pods_[name] = pod;
  Publish("ADDED", name);
}

void FakeKubeApi::Publish(const std::string& type, const std::string& name) {
  KubernetesObject& pod = pods_[name];
  pod["metadata"]["resourceVersion"] = absl::StrCat(++version_);
  changes_.push_back({version_, type, pod});
  changed_.NotifyAll();
}

std::string FakeKubeApi::LivePod(const std::string& job, int index) {
  for (const auto& [name, pod] : pods_) {
    if (absl::StartsWith(name, absl::StrCat(job, "-", index, "-")) &&
        TextAt(pod, {"status", "phase"}) == "Running") {
      return name;
    }
  }
  return "";
}

void FakeKubeApi::FailNext(int status, int count, const std::string& message) {
  MutexLock lock(&mutex_);
  fail_message_ = message;
  fail_status_ = status;
  num_failures_ = count;
}

void FakeKubeApi::LoseNextAnswer() {
  MutexLock lock(&mutex_);
  lose_answer_ = true;
}

void FakeKubeApi::CarryOutNextPostLate() {
  MutexLock lock(&mutex_);
  is_next_post_late_ = true;
}

void FakeKubeApi::RequireToken(const std::string& token,
                               std::function<void()> on_refusal) {
  MutexLock lock(&mutex_);
  token_ = token;
  on_refusal_ = std::move(on_refusal);
}

void FakeKubeApi::CutWatches() {
  MutexLock lock(&mutex_);
  ++num_cuts_;
  changed_.NotifyAll();
}

void FakeKubeApi::Forget(bool as_answer) {
  MutexLock lock(&mutex_);
  forgotten_ = ++version_;
  gone_as_answer_ = as_answer;
  changes_.clear();
  changed_.NotifyAll();
}

void FakeKubeApi::Freeze() {
  MutexLock lock(&mutex_);
  is_frozen_ = true;
}

void FakeKubeApi::RefuseBudgets(int status) {
  MutexLock lock(&mutex_);
  budget_refusal_ = status;
}

void FakeKubeApi::LetDeletedJobsLinger(int count) {
  MutexLock lock(&mutex_);
  num_lingering_ = count;
}

void FakeKubeApi::EndPod(const std::string& job, int index, int exit_code,
                         bool replace, const std::string& last_words) {
  MutexLock lock(&mutex_);
  const std::string name = LivePod(job, index);
  KubernetesObject& pod = pods_[name];
  pod["status"] = {
      {"phase", exit_code == 0 ? "Succeeded" : "Failed"},
      {"containerStatuses",
       KubernetesObject::array(
           {{{"name", "worker"},
             {"state",
              {{"terminated",
                {{"exitCode", exit_code}, {"message", last_words}}}}}}})}};
  Publish("MODIFIED", name);
  if (replace) AddPod(job, index, pod["metadata"]["labels"]);
}

void FakeKubeApi::RemovePod(const std::string& job, int index) {
  MutexLock lock(&mutex_);
  const std::string name = LivePod(job, index);
  Publish("DELETED", name);
  pods_.erase(name);
}

void FakeKubeApi::SetStatus(const std::string& job,
                            const KubernetesObject& status) {
  MutexLock lock(&mutex_);
  jobs_[job]["status"] = status;
}

void FakeKubeApi::RemoveJob(const std::string& job) {
  MutexLock lock(&mutex_);
  DropJob(job);
}

void FakeKubeApi::AddJob(const KubernetesObject& job) {
  MutexLock lock(&mutex_);
  KeepJob(job);
}

bool FakeKubeApi::AwaitWatches(int count) {
  MutexLock lock(&mutex_);
  return changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(30)),
                            [&] { return num_watches_ >= count; });
}

int FakeKubeApi::num_watches() {
  MutexLock lock(&mutex_);
  return num_watches_;
}

int FakeKubeApi::num_requests(const std::string& method) {
  MutexLock lock(&mutex_);
  return num_requests_[method];
}

std::vector<std::string> FakeKubeApi::job_names() {
  MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, job] : jobs_) names.push_back(name);
  return names;
}

std::vector<std::string> FakeKubeApi::AwaitJobs(
    const std::vector<std::string>& names) {
  std::vector<std::string> there;
  MutexLock lock(&mutex_);
  changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(30)), [&] {
    there.clear();
    for (const auto& [name, job] : jobs_) there.push_back(name);
    return there == names;
  });
  return there;
}

std::vector<KubernetesObject> FakeKubeApi::AwaitBudgets(size_t count) {
  std::vector<KubernetesObject> there;
  MutexLock lock(&mutex_);
  changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(30)),
                     [&] { return budgets_.size() == count; });
  for (const auto& [name, budget] : budgets_) there.push_back(budget);
  return there;
}

KubernetesObject FakeKubeApi::JobNamed(const std::string& name) {
  MutexLock lock(&mutex_);
  return jobs_[name];
}

}  // namespace deltapipe
