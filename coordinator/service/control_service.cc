#include "coordinator/service/control_service.h"

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mutex.h"
#include "coordinator/roster/worker_session.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/peer_host.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

/// Owns itself until gRPC says OnDone; the roster may keep it longer.
class StreamSession
    : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>,
      public WorkerSession {
 public:
  /// Messages that wait for a worker that does not read; it is cut beyond.
  static constexpr size_t kMaxQueued = 1024;

  /// `certified` is the name that the worker has proven to have; empty where
  /// nobody proves anything.
  /// `on_refusal` outlives it, and may hold nothing.
  static StreamSession* Start(JobSupervisor* jobs, std::string peer_host,
                              absl::StatusOr<std::string> certified,
                              const ControlServiceImpl::OnRefusal& on_refusal) {
    auto session = std::make_shared<StreamSession>(
        jobs, std::move(peer_host), std::move(certified), on_refusal);
    session->self_ = session;
    session->StartRead(&session->incoming_);
    return session.get();
  }

  StreamSession(JobSupervisor* jobs, std::string peer_host,
                absl::StatusOr<std::string> certified,
                const ControlServiceImpl::OnRefusal& on_refusal)
      : jobs_(jobs),
        peer_host_(std::move(peer_host)),
        certified_(std::move(certified)),
        on_refusal_(on_refusal) {}

  void Send(const v1::CoordinatorMessage& message) override {
    {
      MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      if (queue_.size() >= kMaxQueued) {
        queue_.erase(queue_.begin() + (is_writing_ ? 1 : 0), queue_.end());
        end_ = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                            "the worker does not read its messages");
      } else {
        queue_.push_back(message);
      }
    }
    Proceed();
  }

  void Close(const std::string& reason) override {
    {
      MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      v1::CoordinatorMessage goodbye;
      goodbye.mutable_goodbye()->set_reason(reason);
      queue_.push_back(std::move(goodbye));
      end_ = grpc::Status::OK;
    }
    Proceed();
  }

  void Abandon(const std::string& reason) override {
    End(grpc::Status(grpc::StatusCode::UNAVAILABLE, reason));
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(grpc::Status::OK);
      return;
    }
    const absl::Status fits = CheckMessageSize(incoming_);
    if (!fits.ok()) {
      End(ToGrpcStatus(fits));
      return;
    }
    if (!worker_id_.empty()) {
      const v1::AssignmentDone& done = incoming_.done();
      if (on_refusal_ != nullptr &&
          done.error_code() ==
              static_cast<int>(absl::StatusCode::kPermissionDenied)) {
        on_refusal_(worker_id_, peer_host_, done);
      }
      jobs_->Receive(worker_id_, std::move(incoming_));
    } else {
      const absl::Status greeted = Greet();
      if (!greeted.ok()) {
        LOG_WARNING << "a worker was refused: " << greeted.message();
        End(ToGrpcStatus(greeted));
        return;
      }
    }
    incoming_.Clear();
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      is_writing_ = false;
      queue_.pop_front();
      if (!ok) {
        queue_.clear();
        if (!end_.has_value()) end_ = grpc::Status::OK;
      }
    }
    Proceed();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    if (!worker_id_.empty()) jobs_->Leave(worker_id_, this);
    std::shared_ptr<StreamSession> self = std::move(self_);
  }

 private:
  absl::Status Greet() {
    if (!incoming_.has_hello()) {
      return absl::FailedPreconditionError(
          "a session begins with Hello; this peer sent something else");
    }
    if (!certified_.ok()) return certified_.status();
    if (!certified_->empty() && incoming_.hello().worker_id() != *certified_) {
      return absl::PermissionDeniedError(absl::StrCat(
          "a worker says that it is '", incoming_.hello().worker_id(),
          "', and its certificate is that of ", *certified_));
    }
    absl::StatusOr<v1::Welcome> welcome =
        jobs_->Join(incoming_.hello(), peer_host_, self_);
    if (!welcome.ok()) return welcome.status();
    worker_id_ = welcome->worker_id();
    if (!certified_->empty() && worker_id_ != *certified_) {
      return absl::AbortedError(absl::StrCat(
          *certified_, " is still here over another connection: try again"));
    }
    return absl::OkStatus();
  }

  void End(grpc::Status status) {
    {
      MutexLock lock(&mutex_);
      if (!end_.has_value()) end_ = std::move(status);
    }
    Proceed();
  }

  /// Writes what is queued, one at a time, then finishes. Calls gRPC outside
  /// the lock, since that may call back.
  void Proceed() {
    const v1::CoordinatorMessage* next = nullptr;
    grpc::Status status;
    {
      MutexLock lock(&mutex_);
      if (is_writing_ || is_finished_) return;
      if (!queue_.empty()) {
        is_writing_ = true;
        next = &queue_.front();  // stays there until OnWriteDone
      } else if (end_.has_value()) {
        is_finished_ = true;
        status = *end_;
      } else {
        return;
      }
    }
    if (next != nullptr) {
      StartWrite(next);
    } else {
      Finish(status);
    }
  }

  JobSupervisor* const jobs_;
  const std::string peer_host_;
  const absl::StatusOr<std::string> certified_;
  const ControlServiceImpl::OnRefusal& on_refusal_;
  std::shared_ptr<StreamSession> self_;
  v1::WorkerMessage incoming_;  // used by the one read in flight
  std::string worker_id_;       // set by the first read

  Mutex mutex_;
  std::deque<v1::CoordinatorMessage> queue_ DP_GUARDED_BY(mutex_);
  bool is_writing_ DP_GUARDED_BY(mutex_) = false;
  bool is_finished_ DP_GUARDED_BY(mutex_) = false;
  /// How the stream ends once the queue is empty.
  std::optional<grpc::Status> end_ DP_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>*
ControlServiceImpl::Session(grpc::CallbackServerContext* context) {
  absl::StatusOr<std::string> certified = std::string();
  if (worker_of_ != nullptr) certified = worker_of_(*context);
  return StreamSession::Start(jobs_, PeerHost(context->peer()),
                              std::move(certified), on_refusal_);
}

}  // namespace deltapipe
