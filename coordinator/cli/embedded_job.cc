#include "coordinator/cli/embedded_job.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/cli/make_profiler.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/launch/find_worker_binary.h"
#include "coordinator/launch/launch_token.h"
#include "coordinator/launch/local_launcher.h"

namespace deltapipe {
namespace {

/// Workers were told to end before; those that did not are not waited for long,
/// since all must be gone 2 s after Ctrl-C.
constexpr std::chrono::milliseconds kStopPatience(300);
/// What the coordinator may take beyond the detection budget to fail the job of
/// a worker that is gone.
constexpr std::chrono::seconds kVerdictSlack(2);
constexpr int64_t kMaxLogBytes = int64_t{64} << 20;

/// The last line of a worker's log, or "".
std::string LastWords(const std::string& path) {
  const auto text = ReadFile(path, kMaxLogBytes);
  if (!text.ok()) return "";
  const size_t end = text->find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t newline = text->rfind('\n', end);
  const size_t begin = newline == std::string::npos ? 0 : newline + 1;
  return text->substr(begin, end + 1 - begin);
}

}  // namespace

EmbeddedJob::EmbeddedJob(EmbeddedJobOptions options)
    : options_(std::move(options)) {}

EmbeddedJob::~EmbeddedJob() {
  {
    MutexLock lock(&mutex_);
    has_ended_ = true;
    changed_.NotifyAll();
  }
  guard_.Join();
  if (coordinator_ != nullptr) coordinator_->Shutdown("the run is over");
  if (launcher_ != nullptr) launcher_->Stop();
  RemoveModelTemporaries(options_.run_folder);
}

absl::Status EmbeddedJob::Start() {
  DP_ASSIGN_OR_RETURN(profiler_, MakeProfiler());
  CoordinatorOptions coordinator;
  coordinator.store_path = options_.run_folder + "/job.db";
  coordinator.profiler = [this](const v1::JobSpec& spec) {
    return profiler_->Profile(spec);
  };
  coordinator.cancel_profiler = [this] { profiler_->Cancel(); };
  DP_ASSIGN_OR_RETURN(coordinator.launch_token, MakeLaunchToken());
  DP_ASSIGN_OR_RETURN(coordinator_, Coordinator::Start(coordinator));

  LocalLauncherOptions local;
  DP_ASSIGN_OR_RETURN(local.worker_binary, FindWorkerBinary());
  local.coordinator_address = coordinator_->address();
  local.launch_token = coordinator.launch_token;
  local.log_folder = options_.run_folder + "/logs";
  local.stop_patience = kStopPatience;
  local.on_exit = [this](const WorkerExit& exit) { NoteWorkerExit(exit); };
  DP_ASSIGN_OR_RETURN(launcher_, LocalLauncher::Create(std::move(local)));
  const v1::ParallelSpec& parallel = options_.spec.parallel();
  const int needed = parallel.stages() * parallel.replicas();
  DP_RETURN_IF_ERROR(launcher_->Launch(
      options_.num_workers > 0 ? options_.num_workers : needed));

  client_ =
      std::make_unique<JobClient>(coordinator_->address(), ClientSecurity());
  v1::SubmitJobRequest request;
  *request.mutable_spec() = options_.spec;
  // The same folder's earlier job is another one.
  if (!options_.resume) request.set_request_id(options_.run_folder);
  request.set_resume(options_.resume);
  request.set_run_folder(options_.run_folder);
  DP_ASSIGN_OR_RETURN(const v1::Job job, client_->Submit(request));
  job_id_ = job.id();
  guard_ = Thread("job-guard", [this] { Guard(); });
  MutexLock lock(&mutex_);
  is_submitted_ = true;
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> EmbeddedJob::Watch(
    const std::function<void(const v1::JobEvent&)>& on_event) {
  v1::WatchJobRequest request;
  request.set_id(job_id_);
  request.set_include_steps(true);
  const absl::Status watched =
      client_->Watch(request, [&](const v1::JobEvent& event) {
        if (event.kind() == "step") {
          MutexLock lock(&mutex_);
          if (event.step().step() > furthest_step_) {
            furthest_step_ = event.step().step();
            num_deaths_in_vain_ = 0;
          }
        }
        on_event(event);
        return true;
      });
  {
    MutexLock lock(&mutex_);
    has_ended_ = true;
    changed_.NotifyAll();
    if (!given_up_.ok()) return given_up_;
  }
  DP_RETURN_IF_ERROR(Annotate(watched, "watching the job"));
  return client_->Get(job_id_);
}

bool EmbeddedJob::Interrupt(const std::string& reason,
                            std::chrono::nanoseconds grace) {
  return End(reason, grace, /*pauses=*/false);
}

bool EmbeddedJob::Pause(const std::string& reason,
                        std::chrono::nanoseconds grace) {
  return End(reason, grace, /*pauses=*/true);
}

bool EmbeddedJob::End(const std::string& reason, std::chrono::nanoseconds grace,
                      bool pauses) {
  MutexLock lock(&mutex_);
  if (!is_submitted_) return false;
  if (is_interrupted_) return true;
  is_interrupted_ = true;
  is_pause_ = pauses;
  interrupt_reason_ = reason;
  interrupt_deadline_ = Deadline::After(grace);
  changed_.NotifyAll();
  return true;
}

absl::Status EmbeddedJob::Replace(int count) {
  const v1::ParallelSpec& parallel = options_.spec.parallel();
  const int max_restarts = options_.spec.failure().max_restarts();
  {
    MutexLock lock(&mutex_);
    num_deaths_in_vain_ += count;
    if (num_deaths_in_vain_ >
        max_restarts * parallel.stages() * parallel.replicas()) {
      return absl::FailedPreconditionError(worker_exit_);
    }
  }
  return launcher_->Launch(count);
}

bool EmbeddedJob::AwaitVerdict() {
  const auto budget = ParseDuration(options_.spec.failure().detection_budget());
  const auto verdict_wait = (budget.ok() ? *budget : Nanos(0)) + kVerdictSlack;
  MutexLock lock(&mutex_);
  // The coordinator knows best what a worker's death means for the job; it does
  // not know of workers that never joined.
  return changed_.WaitUntil(lock, Deadline::After(verdict_wait),
                            [this] { return has_ended_ || is_interrupted_; });
}

void EmbeddedJob::Guard() {
  std::string reason;
  bool is_pause = false;
  while (true) {
    int num_exits = 0;
    {
      MutexLock lock(&mutex_);
      changed_.Wait(lock, [this] {
        return has_ended_ || is_interrupted_ || num_exits_ > 0;
      });
      if (has_ended_) return;
      if (is_interrupted_) {
        reason = interrupt_reason_;
        is_pause = is_pause_;
        break;
      }
      num_exits = std::exchange(num_exits_, 0);
    }
    const absl::Status replaced = Replace(num_exits);
    if (replaced.ok() || AwaitVerdict()) continue;
    GiveUp(replaced);
    return;
  }
  // Fails only if the job has just ended, which Watch finds out.
  (is_pause ? client_->Pause(job_id_, reason)
            : client_->Cancel(job_id_, reason))
      .status()
      .IgnoreError();
  bool has_ended = false;
  {
    MutexLock lock(&mutex_);
    has_ended = changed_.WaitUntil(lock, interrupt_deadline_,
                                   [this] { return has_ended_; });
  }
  if (!has_ended) {
    GiveUp(absl::CancelledError(
        is_pause ? "the job was not paused in time and the workers were "
                   "killed: `run --resume` goes on from the last checkpoint"
                 : "the step being computed did not end in time and the "
                   "workers were killed: no model was written but that of the "
                   "last checkpoint (checkpoint.every)"));
  }
}

void EmbeddedJob::GiveUp(const absl::Status& reason) {
  {
    MutexLock lock(&mutex_);
    given_up_ = reason;
  }
  client_->Stop();
}

void EmbeddedJob::NoteWorkerExit(const WorkerExit& exit) {
  const std::string words = LastWords(exit.stderr_path);
  MutexLock lock(&mutex_);
  if (has_ended_) return;
  ++num_exits_;
  worker_exit_ = absl::StrCat(
      "worker process ", exit.pid, " ended by itself (", exit.exit.ToString(),
      ")", words.empty() ? "" : absl::StrCat(", saying: ", words),
      "; its log is ", ShortPath(exit.stderr_path));
  changed_.NotifyAll();
}

}  // namespace deltapipe
