#include "worker/control/worker.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/units.h"
#include "worker/control/outbox.h"
#include "worker/control/session.h"
#include "worker/engine/training.h"

namespace deltapipe {
namespace {

constexpr Nanos kFirstRetry = std::chrono::milliseconds(100);
constexpr Nanos kLongestRetry = std::chrono::seconds(2);
constexpr std::chrono::seconds kFirstTimeout(20);
constexpr std::chrono::seconds kReconnectTimeout(5);

class ServingWorker : public Worker {
 public:
  explicit ServingWorker(const WorkerOptions& options) : options_(options) {}

  absl::StatusOr<WorkerEnd> Serve() override {
    const absl::Status connected = ConnectFirst();
    if (!connected.ok()) return connected;
    SetLogSink([this](LogLevel level, const std::string& text) {
      ForwardLog(level, text);
    });
    Thread reconnect("reconnect", [this] { Reconnect(); });
    while (true) {
      v1::Assignment assignment;
      {
        MutexLock lock(&mutex_);
        changed_.Wait(lock, [&] { return is_ended_ || pending_ != nullptr; });
        if (is_ended_) break;
        assignment = *std::exchange(pending_, nullptr);
      }
      RunAssignment(std::move(assignment));
    }
    SetLogSink(nullptr);
    reconnect.Join();
    std::unique_ptr<Session> session;
    {
      MutexLock lock(&send_mutex_);
      session = std::move(session_);
    }
    if (session != nullptr) session->Close();
    session.reset();
    MutexLock lock(&mutex_);
    if (!end_status_.ok()) return end_status_;
    return has_left_job_ ? WorkerEnd::kLeftJob : WorkerEnd::kGoodbye;
  }

  void Leave(const std::string& reason) override {
    {
      MutexLock lock(&mutex_);
      if (!leave_reason_.empty()) return;
      leave_reason_ = reason.empty() ? "asked to" : reason;
      has_left_job_ = !job_id_.empty();
    }
    SayLeaving();
    EndIfUnmissed();
  }

 private:
  // Lock order: mutex_ is never held together with send_mutex_.

  /// A coordinator that is just being started again cuts connections off: they
  /// are tried again, as one is that nobody listens for.
  absl::Status ConnectFirst() {
    const Deadline deadline = Deadline::After(kFirstTimeout);
    Nanos pause = kFirstRetry;
    while (true) {
      const absl::Status status = Connect(deadline.remaining());
      if (!absl::IsUnavailable(status) || deadline.remaining() <= pause ||
          !Clock::Real()->SleepUntil(Clock::Real()->Now() + pause,
                                     &retry_cancel_)) {
        return status;
      }
      pause = std::min(2 * pause, kLongestRetry);
    }
  }

  /// Opens a stream, tells what was not acknowledged, and takes the
  /// coordinator's word on what is held.
  absl::Status Connect(std::chrono::nanoseconds timeout) {
    SessionOptions session_options;
    session_options.coordinator = options_.coordinator;
    session_options.hello = options_.hello;
    session_options.credentials = options_.credentials;
    session_options.connect_timeout = timeout;
    session_options.on_message = [this](const v1::CoordinatorMessage& message) {
      OnMessage(message);
    };
    session_options.on_end = [this](const absl::Status& status) {
      OnStreamEnd(status);
    };
    session_options.heartbeat = [this] { return MakeHeartbeat(); };
    FillHello(&session_options.hello);
    {
      MutexLock lock(&mutex_);
      is_stream_broken_ = false;
    }
    auto opened = Session::Open(std::move(session_options));
    if (!opened.ok()) {
      MutexLock lock(&mutex_);
      is_stream_broken_ = true;
      return opened.status();
    }
    const v1::Welcome welcome = (*opened)->welcome();
    if (!welcome.keeps_assignment()) DropAssignment();
    std::unique_ptr<Session> former;
    {
      MutexLock lock(&send_mutex_);
      former = std::exchange(session_, *std::move(opened));
      if (!welcome.keeps_assignment()) outbox_.Begin("", 0);
      for (const v1::WorkerMessage& message : outbox_.messages()) {
        session_->Send(message);
      }
    }
    former.reset();
    {
      MutexLock lock(&mutex_);
      worker_id_ = welcome.worker_id();
      lease_ = std::chrono::milliseconds(welcome.lease_millis());
      num_connected_ += 1;
    }
    LOG_INFO << "registered as " << welcome.worker_id() << " with "
             << options_.coordinator;
    SayLeaving();
    return absl::OkStatus();
  }

  void FillHello(v1::Hello* hello) {
    {
      MutexLock lock(&mutex_);
      if (num_connected_ == 0) return;
      hello->set_worker_id(worker_id_);
      if (training_ != nullptr) {
        hello->mutable_held()->set_step(training_->step());
      }
    }
    MutexLock lock(&send_mutex_);
    if (outbox_.job_id().empty()) return;
    // Also one that has ended, until that is known to be stored.
    hello->mutable_held()->set_job_id(outbox_.job_id());
    hello->mutable_held()->set_generation(outbox_.generation());
  }

  /// The coordinator does not know of it: another generation has taken over, or
  /// the job has ended.
  void DropAssignment() {
    MutexLock lock(&mutex_);
    if (num_connected_ == 0) return;
    current_generation_ = 0;
    if (training_ != nullptr) {
      training_->Cancel(absl::CancelledError(
          "the coordinator has given this worker's part to another"));
    }
    // One that waits for its first step ends as if it had been stopped.
    auto stop = std::make_unique<v1::StopTraining>();
    stop->set_at_once(true);
    stop->set_reason("the coordinator no longer knows the assignment");
    stop_ = std::move(stop);
    changed_.NotifyAll();
  }

  void Reconnect() {
    while (true) {
      Nanos give_up{0};
      {
        MutexLock lock(&mutex_);
        changed_.Wait(lock, [&] { return is_ended_ || is_stream_broken_; });
        if (is_ended_) return;
        give_up = Clock::Real()->Now() + lease_;
      }
      Nanos pause = kFirstRetry;
      absl::Status status = absl::UnavailableError("its stream ended");
      while (!status.ok()) {
        if (Clock::Real()->Now() >= give_up ||
            status.code() == absl::StatusCode::kFailedPrecondition ||
            status.code() == absl::StatusCode::kPermissionDenied) {
          End(absl::UnavailableError(
                  absl::StrCat("the coordinator at ", options_.coordinator,
                               " is gone: ", status.message())),
              absl::CancelledError("the coordinator is gone"));
          return;
        }
        if (!Clock::Real()->SleepUntil(Clock::Real()->Now() + pause,
                                       &retry_cancel_)) {
          return;
        }
        pause = std::min(2 * pause, kLongestRetry);
        status = Connect(kReconnectTimeout);
        if (!status.ok()) EndIfUnmissed();
      }
    }
  }

  void OnMessage(const v1::CoordinatorMessage& message) {
    if (message.has_goodbye()) {
      LOG_INFO << "the coordinator ends this worker: "
               << message.goodbye().reason();
      return End(absl::OkStatus(),
                 absl::CancelledError(message.goodbye().reason()));
    }
    if (message.has_acknowledge()) {
      MutexLock lock(&send_mutex_);
      outbox_.Acknowledge(message.acknowledge());
      return;
    }
    if (message.has_prepare_tuning()) return PrepareTuning(message);
    {
      MutexLock lock(&mutex_);
      switch (message.message_case()) {
        case v1::CoordinatorMessage::kAssignment:
          // An earlier one comes from a coordinator that was overtaken.
          if (message.assignment().generation() <= current_generation_) break;
          pending_ = std::make_unique<v1::Assignment>(message.assignment());
          stop_ = nullptr;
          is_started_ = false;
          current_generation_ = message.assignment().generation();
          if (training_ != nullptr) training_->Cancel(Superseded());
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
        case v1::CoordinatorMessage::kCommitCheckpoint:
          if (IsCurrent(message.commit_checkpoint().generation())) {
            training_->CommitCheckpoint(message.commit_checkpoint());
          }
          break;
        case v1::CoordinatorMessage::kRequestCheckpoint:
          if (IsCurrent(message.request_checkpoint().generation())) {
            training_->RequestCheckpoint(
                message.request_checkpoint().after_step());
          }
          break;
        case v1::CoordinatorMessage::kDecideTuning:
          if (IsCurrent(message.decide_tuning().generation())) {
            training_->DecideTuning(message.decide_tuning().revision(),
                                    message.decide_tuning().commit());
          }
          break;
        case v1::CoordinatorMessage::kRequestTrace:
          if (IsCurrent(message.request_trace().generation())) {
            training_->RequestTrace(message.request_trace().steps());
          }
          break;
        default:
          break;
      }
    }
    changed_.NotifyAll();
  }

  static absl::Status Superseded() {
    return absl::CancelledError(
        "the coordinator has begun another generation of its workers");
  }

  bool IsCurrent(uint64_t generation) DP_REQUIRES(mutex_) {
    return training_ != nullptr && generation == current_generation_;
  }

  void PrepareTuning(const v1::CoordinatorMessage& message) {
    const v1::PrepareTuning& prepare = message.prepare_tuning();
    v1::WorkerMessage answer;
    v1::TuningAnswer& told = *answer.mutable_tuning();
    told.set_job_id(prepare.job_id());
    told.set_generation(prepare.generation());
    told.set_revision(prepare.tuning().revision());
    {
      MutexLock lock(&mutex_);
      absl::Status prepared =
          absl::FailedPreconditionError("it does not train");
      if (IsCurrent(prepare.generation())) {
        prepared = training_->PrepareTuning(prepare.tuning());
        told.set_step(training_->step());
      }
      told.set_error_code(static_cast<int>(prepared.code()));
      told.set_error_message(std::string(prepared.message()));
    }
    SendOnce(std::move(answer));
  }

  void ApplyStop() DP_REQUIRES(mutex_) {
    if (stop_->at_once()) {
      training_->Cancel(absl::CancelledError(
          absl::StrCat("stopped by the coordinator: ", stop_->reason())));
    } else if (stop_->writes_checkpoint()) {
      training_->RequestPause();
    } else {
      training_->RequestStop();
    }
  }

  void OnStreamEnd(const absl::Status& status) {
    bool has_lease;
    {
      MutexLock lock(&mutex_);
      has_lease = lease_ > Nanos(0);
      is_stream_broken_ = has_lease;
      if (is_ended_) return;
    }
    if (!has_lease) {
      return End(absl::UnavailableError(absl::StrCat(
                     "the coordinator at ", options_.coordinator, " is gone",
                     status.message().empty() ? "" : ": ", status.message())),
                 absl::CancelledError("the coordinator is gone"));
    }
    changed_.NotifyAll();
    LOG_WARNING << "the coordinator at " << options_.coordinator
                << " is away; this worker goes on and looks for it";
    EndIfUnmissed();
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
    retry_cancel_.Cancel();
    changed_.NotifyAll();
    // A training that is still connecting waits in the transport.
    options_.transport->Cancel(reason);
  }

  /// A worker that leaves waits for its coordinator's goodbye; but not for one
  /// that is away, if it has nothing in hands that somebody will ask for.
  void EndIfUnmissed() {
    {
      MutexLock lock(&mutex_);
      if (leave_reason_.empty() || !is_stream_broken_ || training_ != nullptr ||
          pending_ != nullptr) {
        return;
      }
    }
    {
      MutexLock lock(&send_mutex_);
      if (!outbox_.messages().empty()) return;
    }
    End(absl::OkStatus(), absl::CancelledError("this worker has left"));
  }

  void SayLeaving() {
    v1::WorkerMessage message;
    {
      MutexLock lock(&mutex_);
      if (leave_reason_.empty()) return;
      message.mutable_leaving()->set_reason(leave_reason_);
    }
    SendOnce(std::move(message));
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
    SendOnce(std::move(message));
  }

  /// Lost if nobody is connected.
  void SendOnce(v1::WorkerMessage message) {
    MutexLock lock(&send_mutex_);
    if (session_ != nullptr) session_->Send(std::move(message));
  }

  /// Told again until it is acknowledged.
  void SendSurely(v1::WorkerMessage message) {
    MutexLock lock(&send_mutex_);
    if (outbox_.job_id().empty()) return;  // dropped meanwhile
    const v1::WorkerMessage& numbered = outbox_.Add(std::move(message));
    if (session_ != nullptr) session_->Send(numbered);
  }

  TrainingOptions OptionsFor(const v1::Assignment& assignment) {
    TrainingOptions options;
    options.assignment = assignment;
    options.transport = options_.transport;
    options.make_stage = options_.make_stage;
    options.make_nccl = options_.make_nccl;
    options.on_step = [this](const v1::StepReport& report) {
      v1::WorkerMessage message;
      *message.mutable_step() = report;
      SendSurely(std::move(message));
    };
    options.on_validation = [this](const v1::ValidationReport& report) {
      v1::WorkerMessage message;
      *message.mutable_validation() = report;
      SendSurely(std::move(message));
    };
    options.send = [this](v1::WorkerMessage message) {
      if (message.has_trace()) {
        SendOnce(std::move(message));
      } else {
        SendSurely(std::move(message));
      }
    };
    return options;
  }

  void RunAssignment(v1::Assignment assignment) {
    {
      MutexLock lock(&mutex_);
      job_id_ = assignment.job_id();
    }
    {
      MutexLock lock(&send_mutex_);
      outbox_.Begin(assignment.job_id(), assignment.generation());
    }
    if (assignment.run_folder().empty()) {
      assignment.set_run_folder(
          absl::StrCat(options_.run_folder, "/", assignment.job_id()));
    }
    const absl::Status confined = ConfinePaths(options_.roots, &assignment);
    if (!confined.ok())
      return Report(assignment, CannotStart(assignment, confined));
    options_.set_threads(assignment.threads());
    LOG_INFO << "job " << assignment.job_id() << ": rank " << assignment.rank()
             << " with " << Plural(assignment.threads(), "thread");
    Training training(OptionsFor(assignment));
    {
      MutexLock lock(&mutex_);
      training_ = &training;
      if (stop_ != nullptr) ApplyStop();
      if (current_generation_ != assignment.generation()) {
        training.Cancel(Superseded());
      }
      if (is_ended_) training.Cancel(absl::CancelledError("the worker ends"));
    }
    v1::AssignmentDone done = Train(assignment, &training);
    {
      MutexLock lock(&mutex_);
      training_ = nullptr;
    }
    Report(assignment, std::move(done));
  }

  /// Logs how the assignment ended, and tells the coordinator.
  void Report(const v1::Assignment& assignment, v1::AssignmentDone done) {
    if (done.error_code() != 0 && !done.is_consequence()) {
      LOG_ERROR << "job " << assignment.job_id()
                << " failed here: " << done.error_message();
    } else {
      LOG_INFO << "job " << assignment.job_id() << ": ended after step "
               << done.steps();
    }
    v1::WorkerMessage message;
    *message.mutable_done() = std::move(done);
    SendSurely(std::move(message));
    MutexLock lock(&mutex_);
    job_id_.clear();
  }

  static v1::AssignmentDone CannotStart(const v1::Assignment& assignment,
                                        const absl::Status& cause) {
    v1::AssignmentDone done;
    done.set_job_id(assignment.job_id());
    done.set_generation(assignment.generation());
    done.set_error_code(static_cast<int>(cause.code()));
    done.set_error_message(absl::StrCat("cannot start: ", cause.message()));
    done.set_is_consequence(absl::IsUnavailable(cause) ||
                            absl::IsCancelled(cause) ||
                            absl::IsDeadlineExceeded(cause));
    return done;
  }

  v1::AssignmentDone Train(const v1::Assignment& assignment,
                           Training* training) {
    const absl::Status prepared = training->Prepare();
    if (!prepared.ok()) return CannotStart(assignment, prepared);
    v1::WorkerMessage message;
    *message.mutable_ready() = training->ready();
    SendSurely(std::move(message));
    bool starts = false;
    {
      MutexLock lock(&mutex_);
      // Flags are of the newest assignment, which may be the one after this.
      const auto is_current = [&] {
        return current_generation_ == assignment.generation();
      };
      changed_.Wait(lock, [&] {
        return is_started_ || is_ended_ || stop_ != nullptr || !is_current();
      });
      starts = is_started_ && !is_ended_ && is_current();
    }
    if (starts) return training->Run();
    v1::AssignmentDone done;
    done.set_job_id(assignment.job_id());
    done.set_generation(assignment.generation());
    done.set_error_code(static_cast<int>(absl::StatusCode::kCancelled));
    done.set_error_message("stopped before the first step");
    done.set_is_consequence(true);
    return done;
  }

  const WorkerOptions options_;

  Mutex send_mutex_;
  std::unique_ptr<Session> session_ DP_GUARDED_BY(send_mutex_);
  Outbox outbox_ DP_GUARDED_BY(send_mutex_);

  CancelToken retry_cancel_;
  Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<v1::Assignment> pending_ DP_GUARDED_BY(mutex_);
  std::unique_ptr<v1::StopTraining> stop_ DP_GUARDED_BY(mutex_);
  bool is_started_ DP_GUARDED_BY(mutex_) = false;
  bool is_ended_ DP_GUARDED_BY(mutex_) = false;
  bool is_stream_broken_ DP_GUARDED_BY(mutex_) = false;
  bool has_left_job_ DP_GUARDED_BY(mutex_) = false;
  int num_connected_ DP_GUARDED_BY(mutex_) = 0;
  Nanos lease_ DP_GUARDED_BY(mutex_) = Nanos(0);
  std::string worker_id_ DP_GUARDED_BY(mutex_);
  std::string leave_reason_ DP_GUARDED_BY(mutex_);
  absl::Status end_status_ DP_GUARDED_BY(mutex_);
  uint64_t current_generation_ DP_GUARDED_BY(mutex_) = 0;
  std::string job_id_ DP_GUARDED_BY(mutex_);
  Training* training_ DP_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace

std::unique_ptr<Worker> Worker::Create(const WorkerOptions& options) {
  return std::make_unique<ServingWorker>(options);
}

}  // namespace deltapipe
