#include "coordinator/background/job_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace deltapipe {

JobRunner::JobRunner(const StoredJob& job, bool goes_on, JobServices services,
                     Profiler profiler)
    : profiler_(std::move(profiler)),
      actor_(
          job.job, std::move(services),
          profiler_ == nullptr
              ? std::function<void(const v1::JobSpec&)>()
              : [this](const v1::JobSpec& spec) { StartProfile(spec); }),
      thread_(absl::StrCat("job ", job.job.id()),
              [this, job, goes_on] { Run(job, goes_on); }) {}

JobRunner::~JobRunner() {
  Stop();
  thread_.Join();
  profile_thread_.Join();
}

void JobRunner::Post(JobMessage message) {
  MutexLock lock(&mutex_);
  inbox_.push_back(std::move(message));
  changed_.NotifyAll();
}

void JobRunner::Stop() {
  MutexLock lock(&mutex_);
  is_stopped_ = true;
  changed_.NotifyAll();
}

bool JobRunner::is_done() {
  MutexLock lock(&mutex_);
  return is_done_;
}

void JobRunner::StartProfile(const v1::JobSpec& spec) {
  // Measuring takes seconds; the job must hear of a cancellation meanwhile.
  {
    MutexLock lock(&mutex_);
    is_profiling_ = true;
  }
  profile_thread_.Join();  // that of an earlier try has answered
  profile_thread_ = Thread("profile", [this, spec] {
    absl::StatusOr<v1::StageProfile> profile = profiler_(spec);
    MutexLock lock(&mutex_);
    is_profiling_ = false;
    inbox_.push_back(Profiled{std::move(profile)});
    changed_.NotifyAll();
  });
}

void JobRunner::Run(const StoredJob& job, bool goes_on) {
  if (goes_on) {
    actor_.GoOn(job.plan, job.progress, job.stragglers, job.tuning_answers);
  } else {
    actor_.Start(job.progress, job.tuning_answers);
  }
  while (!actor_.is_done()) {
    std::deque<JobMessage> messages;
    {
      MutexLock lock(&mutex_);
      changed_.Wait(lock, [this] { return !inbox_.empty() || is_stopped_; });
      if (is_stopped_) return;
      messages.swap(inbox_);
    }
    for (const JobMessage& message : messages) actor_.Handle(message);
  }
  // Whoever buries a finished runner must not wait for its profiler.
  MutexLock lock(&mutex_);
  changed_.Wait(lock, [this] { return !is_profiling_ || is_stopped_; });
  is_done_ = true;
}

}  // namespace deltapipe
