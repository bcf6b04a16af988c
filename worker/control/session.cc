#include "worker/control/session.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/tls/identity.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"

namespace deltapipe {
namespace {

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

class GrpcSession : public Session {
 public:
  explicit GrpcSession(SessionOptions options) : options_(std::move(options)) {}

  ~GrpcSession() override {
    Close();
    context_.TryCancel();
    heartbeat_cancel_.Cancel();
    heartbeat_thread_.Join();
    // Joins the writer; where there is no reader there is no writer either.
    reader_thread_.Join();
  }

  absl::Status Connect() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetSslTargetNameOverride(kCoordinatorHost);
    std::shared_ptr<grpc::ChannelCredentials> credentials;
    if (options_.credentials != nullptr) credentials = options_.credentials();
    if (credentials == nullptr) {
      credentials = grpc::InsecureChannelCredentials();
    }
    channel_ =
        grpc::CreateCustomChannel(options_.coordinator, credentials, arguments);
    const auto deadline =
        std::chrono::system_clock::now() +
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            options_.connect_timeout);
    if (!channel_->WaitForConnected(deadline)) {
      return absl::UnavailableError(absl::StrCat(
          "no coordinator answers at ", options_.coordinator,
          ": check the address and that `deltapipe coordinator` runs there"));
    }
    stub_ = v1::ControlService::NewStub(channel_);
    stream_ = stub_->Session(&context_);
    v1::WorkerMessage hello;
    *hello.mutable_hello() = options_.hello;
    v1::CoordinatorMessage answer;
    if (!stream_->Write(hello) || !stream_->Read(&answer) ||
        !answer.has_welcome()) {
      const absl::Status status = FromGrpc(stream_->Finish());
      return status.ok() ? absl::FailedPreconditionError(
                               "the coordinator did not welcome this worker")
                         : status;
    }
    welcome_ = answer.welcome();
    const Nanos every = std::chrono::milliseconds(
        std::max<int64_t>(answer.welcome().heartbeat_millis(), 50));
    writer_thread_ = Thread("control-write", [this] { WriteLoop(); });
    reader_thread_ = Thread("control-read", [this] { ReadLoop(); });
    heartbeat_thread_ =
        Thread("heartbeat", [this, every] { HeartbeatLoop(every); });
    return absl::OkStatus();
  }

  const v1::Welcome& welcome() const override { return welcome_; }

  void Send(v1::WorkerMessage message) override {
    {
      MutexLock lock(&mutex_);
      if (is_closed_) return;
      queue_.push_back(std::move(message));
    }
    changed_.NotifyAll();
  }

  void Close() override {
    {
      MutexLock lock(&mutex_);
      is_closed_ = true;
    }
    changed_.NotifyAll();
  }

 private:
  void WriteLoop() {
    while (true) {
      v1::WorkerMessage message;
      {
        MutexLock lock(&mutex_);
        changed_.Wait(lock, [&] { return is_closed_ || !queue_.empty(); });
        if (queue_.empty()) break;
        message = std::move(queue_.front());
        queue_.pop_front();
      }
      if (!stream_->Write(message)) return;
    }
    stream_->WritesDone();
  }

  void ReadLoop() {
    v1::CoordinatorMessage message;
    while (stream_->Read(&message)) {
      if (!message.has_heartbeat()) options_.on_message(message);
    }
    Close();
    heartbeat_cancel_.Cancel();
    writer_thread_.Join();
    options_.on_end(FromGrpc(stream_->Finish()));
  }

  void HeartbeatLoop(Nanos every) {
    Nanos next = Clock::Real()->Now() + every;
    while (Clock::Real()->SleepUntil(next, &heartbeat_cancel_)) {
      v1::WorkerMessage message;
      *message.mutable_heartbeat() = options_.heartbeat();
      Send(std::move(message));
      next += every;
    }
  }

  const SessionOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ControlService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>>
      stream_;
  v1::Welcome welcome_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::WorkerMessage> queue_ DP_GUARDED_BY(mutex_);
  bool is_closed_ DP_GUARDED_BY(mutex_) = false;

  CancelToken heartbeat_cancel_;
  Thread heartbeat_thread_;
  Thread writer_thread_;  // joined by reader_thread_, and by nobody else
  Thread reader_thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(SessionOptions options) {
  auto session = std::make_unique<GrpcSession>(std::move(options));
  DP_RETURN_IF_ERROR(session->Connect());
  return {std::move(session)};
}

}  // namespace deltapipe
