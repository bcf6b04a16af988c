#include "coordinator/background/job_supervisor.h"

#include <algorithm>
#include <climits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::Status JobSupervisor::Recover() {
  JobQuery query;
  query.limit = INT_MAX;
  query.include_finished = false;
  DP_ASSIGN_OR_RETURN(std::vector<StoredJob> jobs,
                      services_.store->ListJobs(query));
  std::reverse(jobs.begin(), jobs.end());  // oldest first
  for (StoredJob& stored : jobs) {
    v1::Job& job = stored.job;
    if (job.state() == v1::JOB_STATE_PENDING) {
      StartRunner(job);
      continue;
    }
    job.set_state(v1::JOB_STATE_FAILED);
    job.set_reason("the coordinator stopped while the job ran");
    job.set_end_time_millis(services_.clock->WallMillis());
    v1::JobEvent event;
    event.set_kind("state");
    event.set_state(job.state());
    event.set_text(job.reason());
    *event.mutable_result() = job.result();
    DP_RETURN_IF_ERROR(services_.events->Record(
        JobChange{job.id(), job, std::nullopt, std::move(event)}));
  }
  return absl::OkStatus();
}

void JobSupervisor::StartRunner(const v1::Job& job) {
  MutexLock lock(&mutex_);
  if (is_stopped_ || runners_.count(job.id()) > 0) return;
  runners_[job.id()] = std::make_shared<JobRunner>(job, services_, profiler_);
}

absl::StatusOr<v1::Job> JobSupervisor::Submit(const NewJob& job) {
  DP_ASSIGN_OR_RETURN(CreatedJob created, services_.store->CreateJob(job));
  if (!created.is_duplicate) StartRunner(created.job);
  return created.job;
}

bool JobSupervisor::Cancel(const std::string& job_id,
                           const std::string& reason) {
  std::shared_ptr<JobRunner> runner;
  {
    MutexLock lock(&mutex_);
    const auto found = runners_.find(job_id);
    if (found == runners_.end()) return false;
    runner = found->second;
  }
  runner->Post(CancelRequested{reason});
  return true;
}

std::optional<int64_t> JobSupervisor::LiveStep(const std::string& job_id) {
  MutexLock lock(&mutex_);
  const auto found = runners_.find(job_id);
  if (found == runners_.end()) return std::nullopt;
  return found->second->step();
}

absl::StatusOr<v1::Welcome> JobSupervisor::Join(
    const v1::Hello& hello, const std::string& peer_host,
    std::shared_ptr<WorkerSession> session) {
  DP_ASSIGN_OR_RETURN(
      v1::Welcome welcome,
      services_.roster->Join(hello, peer_host, std::move(session)));
  LOG_DEBUG << welcome.worker_id() << " joined from " << hello.host()
            << ", pid " << hello.pid() << ", " << hello.device();
  PostToAll(RosterChanged{});
  return welcome;
}

void JobSupervisor::Receive(const std::string& worker_id,
                            v1::WorkerMessage message) {
  services_.roster->Heard(worker_id);
  if (message.has_heartbeat()) {
    v1::CoordinatorMessage answer;
    answer.mutable_heartbeat();
    services_.roster->Send(worker_id, answer);
  }
  const std::string job_id = services_.roster->JobOf(worker_id);
  if (job_id.empty()) return;
  PostTo(job_id, WorkerSpoke{worker_id, std::move(message)});
}

void JobSupervisor::Leave(const std::string& worker_id,
                          const WorkerSession* session) {
  const std::optional<DepartedWorker> departed =
      services_.roster->Leave(worker_id, session);
  if (departed.has_value()) TellGone(*departed);
}

void JobSupervisor::TellGone(const DepartedWorker& departed) {
  LOG_DEBUG << departed.worker.id << " left: " << departed.reason;
  if (!departed.job_id.empty()) PostTo(departed.job_id, WorkerGone{departed});
  PostToAll(RosterChanged{});
}

void JobSupervisor::OnTick(Nanos elapsed, Nanos expected) {
  // After a pause of this very process the workers' heartbeats lie unread; they
  // must not count as silence.
  if (elapsed > 4 * expected) services_.roster->Forgive(elapsed - expected);
  for (const DepartedWorker& departed : services_.roster->RemoveSilent()) {
    TellGone(departed);
  }
  PostToAll(Tick{});
  std::vector<std::shared_ptr<JobRunner>> finished;  // joined after the lock
  MutexLock lock(&mutex_);
  for (auto it = runners_.begin(); it != runners_.end();) {
    if (it->second->is_done()) {
      finished.push_back(std::move(it->second));
      it = runners_.erase(it);
    } else {
      ++it;
    }
  }
}

void JobSupervisor::PostTo(const std::string& job_id, JobMessage message) {
  std::shared_ptr<JobRunner> runner;
  {
    MutexLock lock(&mutex_);
    const auto found = runners_.find(job_id);
    if (found == runners_.end()) return;
    runner = found->second;
  }
  runner->Post(std::move(message));
}

void JobSupervisor::PostToAll(const JobMessage& message) {
  std::vector<std::shared_ptr<JobRunner>> runners;
  {
    MutexLock lock(&mutex_);
    for (const auto& [id, runner] : runners_) runners.push_back(runner);
  }
  for (const auto& runner : runners) runner->Post(message);
}

void JobSupervisor::Stop() {
  std::map<std::string, std::shared_ptr<JobRunner>> runners;
  {
    MutexLock lock(&mutex_);
    is_stopped_ = true;
    runners.swap(runners_);
  }
  for (const auto& [id, runner] : runners) runner->Stop();
}

}  // namespace deltapipe
