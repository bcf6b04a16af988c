#include "coordinator/background/job_supervisor.h"

#include <algorithm>
#include <climits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace deltapipe {

namespace {

/// A job's thread is never busy for longer than its store's disk.
constexpr Nanos kCommandPatience = std::chrono::seconds(5);
constexpr Nanos kCommandPoll = std::chrono::milliseconds(100);

/// Where a handler waits for what a job's thread says.
struct Answer {
  Mutex mutex;
  CondVar changed;
  std::optional<absl::Status> status DP_GUARDED_BY(mutex);
};

}  // namespace

void JobSupervisor::BeginSupply() {
  if (services_.supply == nullptr) return;
  SupplyListener listener;
  listener.on_notice = [this](const std::string& job_id,
                              const SupplyNotice& notice) {
    Post(job_id, SupplyTold{notice});
  };
  listener.is_at_rest = [this](const std::string& job_id) {
    const absl::StatusOr<StoredJob> stored = services_.store->GetJob(job_id);
    return stored.ok() && IsAtRest(stored->job.state());
  };
  services_.supply->Begin(std::move(listener));
}

absl::Status JobSupervisor::Recover(bool awaits_return) {
  BeginSupply();
  JobQuery query;
  query.limit = INT_MAX;
  query.include_finished = false;
  DP_ASSIGN_OR_RETURN(std::vector<StoredJob> jobs,
                      services_.store->ListJobs(query));
  std::reverse(jobs.begin(), jobs.end());  // oldest first
  for (const StoredJob& listed : jobs) {
    if (listed.job.state() == v1::JOB_STATE_PAUSED) continue;
    // With plan and progress.
    DP_ASSIGN_OR_RETURN(StoredJob stored,
                        services_.store->GetJob(listed.job.id()));
    v1::Job& job = stored.job;
    const bool was_running = job.state() != v1::JOB_STATE_PENDING;
    if (!was_running || awaits_return) {
      StartRunner(stored, was_running);
      continue;
    }
    job.set_end_time_millis(services_.clock->WallMillis());
    DP_RETURN_IF_ERROR(RecordState(v1::JOB_STATE_FAILED,
                                   "the coordinator stopped while the job ran",
                                   &job));
  }
  return absl::OkStatus();
}

void JobSupervisor::StartRunner(const StoredJob& job, bool goes_on) {
  MutexLock lock(&mutex_);
  if (is_stopped_ || runners_.count(job.job.id()) > 0) return;
  runners_[job.job.id()] =
      std::make_shared<JobRunner>(job, goes_on, services_, profiler_);
  if (services_.supply == nullptr) return;
  const v1::ParallelSpec& parallel = job.job.spec().parallel();
  services_.supply->Want({job.job.id(), parallel.stages() * parallel.replicas(),
                          parallel.device()});
}

absl::StatusOr<v1::Job> JobSupervisor::Submit(const NewJob& job) {
  DP_ASSIGN_OR_RETURN(CreatedJob created, services_.store->CreateJob(job));
  if (!created.is_duplicate) StartRunner(StoredJob{created.job}, false);
  return created.job;
}

absl::Status JobSupervisor::Ask(const std::string& job_id,
                                const MakeMessage& make) {
  // shared_ptr: the job's thread may answer when nobody waits any more.
  const auto answer = std::make_shared<Answer>();
  const bool was_posted =
      Post(job_id, make([answer](const absl::Status& status) {
             {
               MutexLock lock(&answer->mutex);
               answer->status = status;
             }
             answer->changed.NotifyAll();
           }));
  if (!was_posted) {
    return absl::NotFoundError(
        absl::StrCat("job '", job_id, "' is not being run"));
  }
  const Deadline deadline = Deadline::After(kCommandPatience);
  while (!deadline.has_passed()) {
    {
      MutexLock lock(&answer->mutex);
      answer->changed.WaitUntil(lock, Deadline::After(kCommandPoll),
                                [&] { return answer->status.has_value(); });
      if (answer->status.has_value()) return *answer->status;
    }
    MutexLock lock(&mutex_);
    if (is_stopped_ || runners_.count(job_id) == 0) break;
  }
  return absl::UnavailableError(absl::StrCat(
      "job '", job_id,
      "' did not answer: whether the command was taken is not known; look at "
      "its state and give it again"));
}

absl::Status JobSupervisor::Cancel(const std::string& job_id,
                                   const std::string& reason) {
  return Ask(job_id, [&](CommandReply reply) {
    return CancelRequested{reason, std::move(reply)};
  });
}

absl::Status JobSupervisor::Pause(const std::string& job_id,
                                  const std::string& reason) {
  return Ask(job_id, [&](CommandReply reply) {
    return PauseRequested{reason, std::move(reply)};
  });
}

absl::Status JobSupervisor::RequestCheckpoint(const std::string& job_id) {
  return Ask(job_id, [](CommandReply reply) {
    return CheckpointRequested{std::move(reply)};
  });
}

absl::Status JobSupervisor::RequestTrace(const std::string& job_id, int steps) {
  return Ask(job_id, [&](CommandReply reply) {
    return TraceRequested{steps, std::move(reply)};
  });
}

absl::StatusOr<v1::Job> JobSupervisor::Resume(const std::string& job_id) {
  // The runner of a job that has just come to rest may be on its way out.
  const Deadline deadline = Deadline::After(kCommandPatience);
  const auto has_runner = [&] {
    MutexLock lock(&mutex_);
    return runners_.count(job_id) > 0;
  };
  DP_ASSIGN_OR_RETURN(StoredJob stored, services_.store->GetJob(job_id));
  v1::Job& job = stored.job;
  if (!IsAtRest(job.state()) || job.state() == v1::JOB_STATE_SUCCEEDED) {
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job_id, "' is ", StateName(job.state()), " (",
                     job.reason(), "): nothing to resume"));
  }
  while (has_runner() && !deadline.has_passed()) {
    services_.clock->SleepUntil(services_.clock->Now() + kCommandPoll, nullptr);
  }
  if (has_runner()) {
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job_id,
                     "' is still setting its workers free: try again soon"));
  }
  job.set_resume(true);
  job.clear_end_time_millis();
  job.clear_wish();
  job.clear_wish_reason();
  DP_RETURN_IF_ERROR(
      RecordState(v1::JOB_STATE_PENDING, "resumed", &stored.job));
  StartRunner(stored, /*goes_on=*/false);
  return job;
}

absl::StatusOr<v1::Job> JobSupervisor::CancelPaused(const std::string& job_id,
                                                    const std::string& reason) {
  DP_ASSIGN_OR_RETURN(StoredJob stored, services_.store->GetJob(job_id));
  v1::Job& job = stored.job;
  if (job.state() != v1::JOB_STATE_PAUSED) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job '", job_id, "' is ", StateName(job.state()), ", not paused"));
  }
  job.set_end_time_millis(services_.clock->WallMillis());
  DP_RETURN_IF_ERROR(RecordState(
      v1::JOB_STATE_CANCELLED,
      reason.empty() ? "cancelled" : absl::StrCat("cancelled: ", reason),
      &job));
  return job;
}

absl::Status JobSupervisor::RecordState(v1::JobState state,
                                        const std::string& reason,
                                        v1::Job* job) {
  job->set_state(state);
  job->set_reason(reason);
  v1::JobEvent event;
  event.set_kind("state");
  event.set_state(state);
  event.set_text(reason);
  if (IsAtRest(state)) *event.mutable_result() = job->result();
  return services_.events->Record(
      JobChange{job->id(), *job, std::nullopt, std::move(event)});
}

absl::Status JobSupervisor::DrainWorker(const std::string& worker_id,
                                        const std::string& reason) {
  if (!services_.roster->Find(worker_id).has_value()) {
    return absl::NotFoundError(absl::StrCat("no worker '", worker_id, "'"));
  }
  const std::string job_id = services_.roster->JobOf(worker_id);
  if (!job_id.empty()) {
    const absl::Status told = Ask(job_id, [&](CommandReply reply) {
      return WorkerLeaves{worker_id, reason, std::move(reply)};
    });
    // Else its job has just set it free, perhaps at its own end.
    if (told.ok() || (!absl::IsNotFound(told) &&
                      services_.roster->JobOf(worker_id) == job_id)) {
      return told;
    }
  }
  services_.roster->Dismiss(worker_id, reason);
  return absl::OkStatus();
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
  if (welcome.keeps_assignment()) {
    Post(hello.held().job_id(), WorkerReturned{welcome.worker_id()});
  }
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
  if (!job_id.empty()) {
    Post(job_id, WorkerSpoke{worker_id, std::move(message)});
  } else if (message.has_leaving()) {
    services_.roster->Dismiss(worker_id, "leaves, as it asked to");
  }
}

void JobSupervisor::Leave(const std::string& worker_id,
                          const WorkerSession* session) {
  const std::optional<DepartedWorker> departed =
      services_.roster->Leave(worker_id, session);
  if (departed.has_value()) TellGone(*departed);
}

void JobSupervisor::TellGone(const DepartedWorker& departed) {
  LOG_DEBUG << departed.worker.id << " left: " << departed.reason;
  if (!departed.job_id.empty()) {
    if (!departed.is_away) ++num_workers_lost_;
    Post(departed.job_id, WorkerGone{departed});
  }
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
      if (services_.supply != nullptr) services_.supply->Unwant(it->first);
      finished.push_back(std::move(it->second));
      it = runners_.erase(it);
    } else {
      ++it;
    }
  }
}

bool JobSupervisor::Post(const std::string& job_id, JobMessage message) {
  std::shared_ptr<JobRunner> runner;
  {
    MutexLock lock(&mutex_);
    const auto found = runners_.find(job_id);
    if (found == runners_.end()) return false;
    runner = found->second;
  }
  runner->Post(std::move(message));
  return true;
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
  if (services_.supply != nullptr) services_.supply->End();
}

}  // namespace deltapipe
