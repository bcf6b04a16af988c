#include "coordinator/service/control_service.h"

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/mutex.h"
#include "coordinator/roster/worker_session.h"
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

  static StreamSession* Start(JobSupervisor* jobs, std::string peer_host) {
    auto session = std::make_shared<StreamSession>(jobs, std::move(peer_host));
    session->self_ = session;
    session->StartRead(&session->incoming_);
    return session.get();
  }

  StreamSession(JobSupervisor* jobs, std::string peer_host)
      : jobs_(jobs), peer_host_(std::move(peer_host)) {}

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

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(grpc::Status::OK);
      return;
    }
    if (!worker_id_.empty()) {
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
    absl::StatusOr<v1::Welcome> welcome =
        jobs_->Join(incoming_.hello(), peer_host_, self_);
    if (!welcome.ok()) return welcome.status();
    worker_id_ = welcome->worker_id();
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
  return StreamSession::Start(jobs_, PeerHost(context->peer()));
}

std::string PeerHost(const std::string& peer) {
  absl::string_view rest = peer;
  if (!absl::ConsumePrefix(&rest, "ipv4:") &&
      !absl::ConsumePrefix(&rest, "ipv6:")) {
    return "localhost";  // a Unix socket, or within the process
  }
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos) rest = rest.substr(0, colon);
  return absl::StrReplaceAll(
      rest, {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}, {"%25", "%"}});
}

}  // namespace deltapipe
