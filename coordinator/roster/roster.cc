#include "coordinator/roster/roster.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/units.h"

namespace deltapipe {
namespace {

/// The N of "worker-N"; 0 if it is no such name.
int64_t NumberOf(absl::string_view name) {
  int64_t number = 0;
  if (!absl::ConsumePrefix(&name, "worker-") ||
      !absl::SimpleAtoi(name, &number) || number < 1 ||
      number > 1'000'000'000 || absl::StrCat(number) != name) {
    return 0;
  }
  return number;
}

/// "[::1]:80" for an IPv6 host.
std::string CompleteAddress(const std::string& address,
                            const std::string& peer_host) {
  if (!absl::StartsWith(address, ":")) return address;
  return absl::StrContains(peer_host, ':')
             ? absl::StrCat("[", peer_host, "]", address)
             : absl::StrCat(peer_host, address);
}

}  // namespace

Roster::Roster(RosterOptions options, Clock* clock)
    : options_(std::move(options)), clock_(clock) {}

std::string Roster::PickName(const std::string& wanted) {
  const int64_t number = NumberOf(wanted);
  if (number > 0 && members_.count(wanted) == 0) {
    last_number_ = std::max(last_number_, number);
    return wanted;
  }
  return absl::StrCat("worker-", ++last_number_);
}

bool Roster::Holds(const v1::Hello& hello) {
  const auto found = members_.find(hello.worker_id());
  if (found == members_.end() || !hello.has_held()) return false;
  const Member& member = found->second;
  return options_.awaits_return && !member.job_id.empty() &&
         member.job_id == hello.held().job_id() &&
         member.generation == hello.held().generation();
}

absl::StatusOr<v1::Welcome> Roster::Join(
    const v1::Hello& hello, const std::string& peer_host,
    std::shared_ptr<WorkerSession> session) {
  if (hello.version() != options_.version) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the worker on ", hello.host(), " (pid ", hello.pid(), ") has version ",
        hello.version(), ", the coordinator has version ", options_.version,
        ": install the same version on both"));
  }
  if (!options_.launch_token.empty() &&
      hello.launch_token() != options_.launch_token) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the worker on ", hello.host(), " (pid ", hello.pid(),
        ") has no valid launch token: this coordinator belongs to one run and "
        "takes only the workers that it started itself"));
  }
  if (hello.data_address().rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the worker on ", hello.host(), " (pid ", hello.pid(),
                     ") says data address '", hello.data_address(),
                     "', expected HOST:PORT or :PORT"));
  }
  const Nanos now = clock_->Now();
  v1::CoordinatorMessage answer;
  v1::Welcome& welcome = *answer.mutable_welcome();
  std::shared_ptr<WorkerSession> former;  // destroyed after the lock
  {
    MutexLock lock(&mutex_);
    if (is_closed_) {
      return absl::UnavailableError(
          absl::StrCat("the coordinator is shutting down: ", closed_reason_));
    }
    const bool holds = Holds(hello);
    const std::string id =
        holds ? hello.worker_id() : PickName(hello.worker_id());
    Member& member = members_[id];
    former = std::move(member.session);
    member.info.id = id;
    member.info.number = NumberOf(id);
    member.info.host = hello.host();
    member.info.pid = hello.pid();
    member.info.data_address = CompleteAddress(hello.data_address(), peer_host);
    member.info.device = hello.device();
    member.info.cores = hello.cores();
    member.info.memory_bytes = hello.memory_bytes();
    member.info.meant_for = hello.job_id();
    member.session = session;
    member.last_heard = now;
    member.num_missed = 0;
    member.budget = holds ? member.present_budget : options_.idle_budget;
    member.is_welcomed = false;
    welcome.set_worker_id(id);
    welcome.set_keeps_assignment(holds);
  }
  welcome.set_heartbeat_millis(
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.heartbeat)
          .count());
  welcome.set_lease_millis(
      options_.awaits_return
          ? std::chrono::duration_cast<std::chrono::milliseconds>(
                options_.lease)
                .count()
          : 0);
  session->Send(answer);
  MutexLock lock(&mutex_);
  const auto found = members_.find(welcome.worker_id());
  if (found != members_.end()) found->second.is_welcomed = true;
  return welcome;
}

void Roster::Heard(const std::string& worker_id) {
  const Nanos now = clock_->Now();
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return;
  found->second.last_heard = now;
  found->second.num_missed = 0;
}

std::optional<DepartedWorker> Roster::Leave(const std::string& worker_id,
                                            const WorkerSession* session) {
  std::shared_ptr<WorkerSession> ended;  // destroyed after the lock
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end() || found->second.session.get() != session) {
    return std::nullopt;
  }
  DepartedWorker departed{found->second.info, found->second.job_id,
                          "its connection closed", false};
  ended = std::move(found->second.session);
  departed.is_away = options_.awaits_return && !departed.job_id.empty();
  if (!departed.is_away) members_.erase(found);
  return departed;
}

std::vector<DepartedWorker> Roster::RemoveSilent() {
  const Nanos now = clock_->Now();
  std::vector<DepartedWorker> departed;
  std::vector<std::shared_ptr<WorkerSession>> sessions;
  {
    MutexLock lock(&mutex_);
    for (auto it = members_.begin(); it != members_.end();) {
      Member& member = it->second;
      const int64_t missed = (now - member.last_heard) / options_.heartbeat - 1;
      if (member.session != nullptr && missed > member.num_missed) {
        num_heartbeats_missed_ += missed - member.num_missed;
        member.num_missed = missed;
      }
      if (now - member.last_heard <= member.budget) {
        ++it;
        continue;
      }
      departed.push_back(DepartedWorker{
          member.info, member.job_id,
          absl::StrCat(
              member.session == nullptr
                  ? "its connection closed and it did not come back in "
                  : "no heartbeat for ",
              FormatDuration(now - member.last_heard), " (detection budget ",
              FormatDuration(member.budget), ")"),
          false});
      sessions.push_back(std::move(member.session));
      it = members_.erase(it);
    }
  }
  for (size_t i = 0; i < sessions.size(); ++i) {
    if (sessions[i] == nullptr) continue;
    sessions[i]->Close(absl::StrCat("declared dead: ", departed[i].reason));
  }
  return departed;
}

int64_t Roster::num_heartbeats_missed() {
  MutexLock lock(&mutex_);
  return num_heartbeats_missed_;
}

void Roster::Forgive(Nanos pause) {
  MutexLock lock(&mutex_);
  for (auto& [id, member] : members_) member.last_heard += pause;
}

void Roster::Dismiss(const std::string& worker_id, const std::string& reason) {
  std::shared_ptr<WorkerSession> session;
  {
    MutexLock lock(&mutex_);
    const auto found = members_.find(worker_id);
    if (found == members_.end()) return;
    session = std::move(found->second.session);
    members_.erase(found);
  }
  if (session != nullptr) session->Close(reason);
}

void Roster::SendAway(const std::string& worker_id, const std::string& host,
                      int64_t pid, const std::string& reason) {
  std::shared_ptr<WorkerSession> session;
  {
    MutexLock lock(&mutex_);
    const auto found = members_.find(worker_id);
    if (found == members_.end()) return;
    const Member& member = found->second;
    if (!member.is_welcomed || !member.job_id.empty() ||
        member.info.host != host || member.info.pid != pid) {
      return;
    }
    session = std::move(found->second.session);
    members_.erase(found);
  }
  session->Close(reason);
}

bool Roster::Forget(const std::string& worker_id) {
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return true;
  if (found->second.session != nullptr) return false;
  members_.erase(found);
  return true;
}

void Roster::Close(const std::string& reason) {
  std::vector<std::shared_ptr<WorkerSession>> sessions;
  {
    MutexLock lock(&mutex_);
    is_closed_ = true;
    closed_reason_ = reason;
    for (auto& [id, member] : members_) {
      sessions.push_back(std::move(member.session));
    }
    members_.clear();
  }
  for (const auto& session : sessions) {
    if (session == nullptr) continue;
    if (options_.awaits_return) {
      session->Abandon(reason);
    } else {
      session->Close(reason);
    }
  }
}

void Roster::Wait(const std::string& job_id, WorkerDemand demand) {
  MutexLock lock(&mutex_);
  for (const Waiting& waiting : line_) {
    if (waiting.job_id == job_id) return;
  }
  line_.push_back(Waiting{job_id, demand});
}

void Roster::WaitFirst(const std::string& job_id, WorkerDemand demand) {
  MutexLock lock(&mutex_);
  line_.erase(std::remove_if(line_.begin(), line_.end(),
                             [&](const Waiting& waiting) {
                               return waiting.job_id == job_id;
                             }),
              line_.end());
  line_.insert(line_.begin(), Waiting{job_id, demand});
}

void Roster::StopWaiting(const std::string& job_id) {
  MutexLock lock(&mutex_);
  line_.erase(std::remove_if(line_.begin(), line_.end(),
                             [&](const Waiting& waiting) {
                               return waiting.job_id == job_id;
                             }),
              line_.end());
}

std::vector<Roster::Member*> Roster::Idle(const Waiting& waiting) {
  std::vector<Member*> idle;
  for (auto& [id, member] : members_) {
    if (!member.is_welcomed || !member.job_id.empty() ||
        member.session == nullptr) {
      continue;
    }
    if (waiting.demand.needs_cuda &&
        !absl::StartsWith(member.info.device, "cuda")) {
      continue;
    }
    if (!member.info.meant_for.empty() &&
        member.info.meant_for != waiting.job_id) {
      continue;
    }
    idle.push_back(&member);
  }
  // Whoever can serve nobody else first. Replicas of a stage have neighbouring
  // ranks, so they share a host first.
  std::sort(idle.begin(), idle.end(), [](const Member* a, const Member* b) {
    const bool a_takes_any = a->info.meant_for.empty();
    const bool b_takes_any = b->info.meant_for.empty();
    return std::tie(a_takes_any, a->info.host, a->info.number) <
           std::tie(b_takes_any, b->info.host, b->info.number);
  });
  return idle;
}

Reservation Roster::TryReserve(const std::string& job_id,
                               Nanos detection_budget) {
  const Nanos now = clock_->Now();
  MutexLock lock(&mutex_);
  Reservation reservation;
  // A job may overtake those before it that cannot start with what is idle, so
  // that no worker waits for nothing.
  for (auto waiting = line_.begin(); waiting != line_.end(); ++waiting) {
    const std::vector<Member*> idle = Idle(*waiting);
    const int num_idle = static_cast<int>(idle.size());
    const bool has_enough = num_idle >= waiting->demand.count;
    if (waiting->job_id != job_id) {
      reservation.is_behind_another |= has_enough;
      continue;
    }
    reservation.num_missing = std::max(0, waiting->demand.count - num_idle);
    if (!has_enough || reservation.is_behind_another) return reservation;
    for (int i = 0; i < waiting->demand.count; ++i) {
      idle[static_cast<size_t>(i)]->job_id = job_id;
      idle[static_cast<size_t>(i)]->budget = detection_budget;
      idle[static_cast<size_t>(i)]->present_budget = detection_budget;
      idle[static_cast<size_t>(i)]->last_heard = std::max(
          idle[static_cast<size_t>(i)]->last_heard, now - detection_budget / 2);
      reservation.workers.push_back(idle[static_cast<size_t>(i)]->info);
    }
    line_.erase(waiting);
    return reservation;
  }
  return reservation;
}

void Roster::SetPlace(const std::string& worker_id, int stage, int replica,
                      uint64_t generation) {
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return;
  found->second.stage = stage;
  found->second.replica = replica;
  found->second.generation = generation;
}

void Roster::Expect(const WorkerInfo& worker, const std::string& job_id,
                    int stage, int replica, uint64_t generation,
                    Nanos away_budget, Nanos detection_budget) {
  const Nanos now = clock_->Now();
  MutexLock lock(&mutex_);
  Member& member = members_[worker.id];
  member.info = worker;
  member.info.number = NumberOf(worker.id);
  last_number_ = std::max(last_number_, member.info.number);
  member.is_welcomed = true;
  member.last_heard = now;
  member.budget = away_budget;
  member.present_budget = detection_budget;
  member.job_id = job_id;
  member.stage = stage;
  member.replica = replica;
  member.generation = generation;
}

std::optional<WorkerInfo> Roster::Find(const std::string& worker_id) {
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end()) return std::nullopt;
  return found->second.info;
}

void Roster::Release(const std::string& worker_id, const std::string& job_id) {
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  if (found == members_.end() || found->second.job_id != job_id) return;
  found->second.job_id.clear();
  found->second.budget = options_.idle_budget;
  // Nobody waits for one that is away and has nothing to do.
  if (found->second.session == nullptr) members_.erase(found);
}

void Roster::Send(const std::string& worker_id,
                  const v1::CoordinatorMessage& message) {
  std::shared_ptr<WorkerSession> session;
  {
    MutexLock lock(&mutex_);
    const auto found = members_.find(worker_id);
    if (found == members_.end()) return;
    session = found->second.session;
  }
  if (session != nullptr) session->Send(message);
}

std::string Roster::JobOf(const std::string& worker_id) {
  MutexLock lock(&mutex_);
  const auto found = members_.find(worker_id);
  return found == members_.end() ? std::string() : found->second.job_id;
}

v1::ListWorkersResponse Roster::List() {
  v1::ListWorkersResponse response;
  MutexLock lock(&mutex_);
  std::vector<const Member*> members;
  for (const auto& [id, member] : members_) members.push_back(&member);
  std::sort(members.begin(), members.end(),
            [](const Member* a, const Member* b) {
              return a->info.number < b->info.number;
            });
  for (const Member* member : members) {
    v1::Worker* worker = response.add_workers();
    worker->set_id(member->info.id);
    worker->set_host(member->info.host);
    worker->set_address(member->info.data_address);
    worker->set_device(member->info.device);
    worker->set_cores(member->info.cores);
    worker->set_state(member->session == nullptr ? "away"
                      : member->job_id.empty()   ? "idle"
                                                 : "busy");
    worker->set_job_id(member->job_id);
    worker->set_meant_for(member->info.meant_for);
    if (!member->job_id.empty()) {
      worker->set_stage(member->stage);
      worker->set_replica(member->replica);
    }
  }
  return response;
}

}  // namespace deltapipe
