#include "worker/control/worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/units.h"
#include "worker/control/session.h"
#include "worker/engine/training.h"

namespace deltapipe {
namespace {

class WorkerService {
 public:
  explicit WorkerService(const WorkerOptions& options) : options_(options) {}

  absl::Status Serve() {
    SessionOptions session_options;
    session_options.coordinator = options_.coordinator;
    session_options.hello = options_.hello;
    session_options.credentials = options_.credentials;
    session_options.on_message = [this](const v1::CoordinatorMessage& message) {
      OnMessage(message);
    };
    session_options.on_end = [this](const absl::Status& status) {
      OnEnd(status);
    };
    session_options.heartbeat = [this] { return MakeHeartbeat(); };
    DP_ASSIGN_OR_RETURN(auto session,
                        Session::Open(std::move(session_options)));
    LOG_INFO << "registered as " << session->worker_id() << " with "
             << options_.coordinator;
    {
      MutexLock lock(&mutex_);
      session_ = session.get();
    }
    changed_.NotifyAll();
    SetLogSink([this](LogLevel level, const std::string& text) {
      ForwardLog(level, text);
    });
    absl::Status end;
    while (true) {
      v1::Assignment assignment;
      {
        MutexLock lock(&mutex_);
        changed_.Wait(lock, [&] { return is_ended_ || pending_ != nullptr; });
        if (is_ended_) {
          end = end_status_;
          break;
        }
        assignment = *std::exchange(pending_, nullptr);
      }
      RunAssignment(assignment);
    }
    SetLogSink(nullptr);
    session->Close();
    return end;
  }

 private:
  void OnMessage(const v1::CoordinatorMessage& message) {
    if (message.has_goodbye()) {
      return End(absl::OkStatus(),
                 absl::CancelledError(message.goodbye().reason()));
    }
    {
      MutexLock lock(&mutex_);
      switch (message.message_case()) {
        case v1::CoordinatorMessage::kAssignment:
          pending_ = std::make_unique<v1::Assignment>(message.assignment());
          stop_ = nullptr;
          is_started_ = false;
          current_generation_ = message.assignment().generation();
          break;
        case v1::CoordinatorMessage::kStart:
          if (message.start().generation() == current_generation_) {
            is_started_ = true;
          }
          break;
        case v1::CoordinatorMessage::kStop:
          if (message.stop().generation() != current_generation_) break;
          stop_ = std::make_unique<v1::StopTraining>(message.stop());
          if (training_ != nullptr) ApplyStop();
          break;
        default:
          break;
      }
    }
    changed_.NotifyAll();
  }

  void ApplyStop() DP_REQUIRES(mutex_) {
    if (stop_->at_once()) {
      training_->Cancel(absl::CancelledError(
          absl::StrCat("stopped by the coordinator: ", stop_->reason())));
    } else {
      training_->RequestStop();
    }
  }

  void OnEnd(const absl::Status& status) {
    End(absl::UnavailableError(absl::StrCat(
            "the coordinator at ", options_.coordinator, " is gone",
            status.message().empty() ? "" : ": ", status.message())),
        absl::CancelledError("the coordinator is gone"));
  }

  /// The first call decides what Serve returns.
  void End(const absl::Status& end_status, const absl::Status& reason) {
    {
      MutexLock lock(&mutex_);
      if (!is_ended_) {
        is_ended_ = true;
        end_status_ = end_status;
      }
      if (training_ != nullptr) training_->Cancel(reason);
    }
    changed_.NotifyAll();
    // Without the lock: this waits for the listener, whose thread may be
    // logging, and ForwardLog takes the lock.
    options_.transport->Cancel(reason);
  }

  v1::Heartbeat MakeHeartbeat() {
    v1::Heartbeat heartbeat;
    MutexLock lock(&mutex_);
    if (training_ != nullptr) {
      heartbeat.set_job_id(job_id_);
      heartbeat.set_step(training_->step());
    }
    return heartbeat;
  }

  void ForwardLog(LogLevel level, const std::string& text) {
    v1::WorkerMessage message;
    v1::LogRecord* log = message.mutable_log();
    log->set_time_millis(Clock::Real()->WallMillis());
    log->set_level(static_cast<int>(level));
    log->set_text(text);
    {
      MutexLock lock(&mutex_);
      log->set_job_id(job_id_);
    }
    session_->Send(std::move(message));
  }

  void SendDone(v1::AssignmentDone done) {
    v1::WorkerMessage message;
    *message.mutable_done() = std::move(done);
    session_->Send(std::move(message));
  }

  void RunAssignment(v1::Assignment assignment) {
    {
      MutexLock lock(&mutex_);
      job_id_ = assignment.job_id();
    }
    if (assignment.run_folder().empty()) {
      assignment.set_run_folder(
          absl::StrCat(options_.run_folder, "/", assignment.job_id()));
    }
    options_.set_threads(assignment.threads());
    LOG_INFO << "job " << assignment.job_id() << ": rank " << assignment.rank()
             << " with " << Plural(assignment.threads(), "thread");
    TrainingOptions training_options;
    training_options.assignment = assignment;
    training_options.transport = options_.transport;
    training_options.make_stage = options_.make_stage;
    training_options.on_step = [this](const v1::StepReport& report) {
      v1::WorkerMessage message;
      *message.mutable_step() = report;
      session_->Send(std::move(message));
    };
    training_options.on_validation =
        [this](const v1::ValidationReport& report) {
          v1::WorkerMessage message;
          *message.mutable_validation() = report;
          session_->Send(std::move(message));
        };
    Training training(std::move(training_options));
    {
      MutexLock lock(&mutex_);
      training_ = &training;
      if (stop_ != nullptr) ApplyStop();
      if (is_ended_) training.Cancel(end_status_);
    }
    const absl::Status prepared = training.Prepare();
    v1::AssignmentDone done;
    done.set_job_id(assignment.job_id());
    done.set_generation(assignment.generation());
    bool starts = false;
    if (prepared.ok()) {
      v1::WorkerMessage message;
      *message.mutable_ready() = training.ready();
      session_->Send(std::move(message));
      MutexLock lock(&mutex_);
      changed_.Wait(
          lock, [&] { return is_started_ || is_ended_ || stop_ != nullptr; });
      starts = is_started_ && !is_ended_;
    }
    if (!prepared.ok()) {
      done.set_error_code(static_cast<int>(prepared.code()));
      done.set_error_message(
          absl::StrCat("cannot start: ", prepared.message()));
      done.set_is_consequence(absl::IsUnavailable(prepared) ||
                              absl::IsCancelled(prepared) ||
                              absl::IsDeadlineExceeded(prepared));
    } else if (starts) {
      done = training.Run();
    } else {
      done.set_error_code(static_cast<int>(absl::StatusCode::kCancelled));
      done.set_error_message("stopped before the first step");
      done.set_is_consequence(true);
    }
    {
      MutexLock lock(&mutex_);
      training_ = nullptr;
    }
    if (done.error_code() != 0 && !done.is_consequence()) {
      LOG_ERROR << "job " << assignment.job_id()
                << " failed here: " << done.error_message();
    } else {
      LOG_INFO << "job " << assignment.job_id() << ": ended after step "
               << done.steps();
    }
    SendDone(std::move(done));
    MutexLock lock(&mutex_);
    job_id_.clear();
  }

  const WorkerOptions& options_;
  Session* session_ = nullptr;  // set before any assignment arrives

  Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<v1::Assignment> pending_ DP_GUARDED_BY(mutex_);
  std::unique_ptr<v1::StopTraining> stop_ DP_GUARDED_BY(mutex_);
  bool is_started_ DP_GUARDED_BY(mutex_) = false;
  bool is_ended_ DP_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ DP_GUARDED_BY(mutex_);
  uint64_t current_generation_ DP_GUARDED_BY(mutex_) = 0;
  std::string job_id_ DP_GUARDED_BY(mutex_);
  Training* training_ DP_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace

absl::Status ServeCoordinator(const WorkerOptions& options) {
  WorkerService service(options);
  return service.Serve();
}

}  // namespace deltapipe
