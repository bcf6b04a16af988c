// WorkerSession: the coordinator's end of the stream to one worker.
//
// Implemented over gRPC in coordinator/service and by FakeWorkerSession.
// Thread-safe; no call blocks. shared_ptr: the stream and the roster own it,
// since either may end first.
#ifndef DELTAPIPE_COORDINATOR_ROSTER_WORKER_SESSION_H_
#define DELTAPIPE_COORDINATOR_ROSTER_WORKER_SESSION_H_

#include <string>
#include <vector>

#include "base/mutex.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

class WorkerSession {
 public:
  virtual ~WorkerSession() = default;
  /// Queues a message, in order; dropped once the stream has ended.
  virtual void Send(const v1::CoordinatorMessage& message) = 0;
  /// Sends Goodbye after what is queued, then ends the stream.
  virtual void Close(const std::string& reason) = 0;
  /// Ends the stream without Goodbye: the worker goes on and looks for the
  /// coordinator's successor.
  virtual void Abandon(const std::string& reason) = 0;
};

/// Keeps what was sent.
class FakeWorkerSession : public WorkerSession {
 public:
  void Send(const v1::CoordinatorMessage& message) override {
    MutexLock lock(&mutex_);
    sent_.push_back(message);
    changed_.NotifyAll();
  }
  void Abandon(const std::string& reason) override {
    MutexLock lock(&mutex_);
    abandon_reason_ = reason;
  }
  void Close(const std::string& reason) override {
    MutexLock lock(&mutex_);
    close_reason_ = reason;
    is_closed_ = true;
    changed_.NotifyAll();
  }

  std::vector<v1::CoordinatorMessage> Sent() {
    MutexLock lock(&mutex_);
    return sent_;
  }
  /// Returns what was sent so far and forgets it.
  std::string abandon_reason() {
    MutexLock lock(&mutex_);
    return abandon_reason_;
  }
  std::vector<v1::CoordinatorMessage> TakeSent() {
    MutexLock lock(&mutex_);
    std::vector<v1::CoordinatorMessage> sent;
    sent.swap(sent_);
    return sent;
  }
  bool is_closed() {
    MutexLock lock(&mutex_);
    return is_closed_;
  }
  std::string close_reason() {
    MutexLock lock(&mutex_);
    return close_reason_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<v1::CoordinatorMessage> sent_ DP_GUARDED_BY(mutex_);
  bool is_closed_ DP_GUARDED_BY(mutex_) = false;
  std::string abandon_reason_ DP_GUARDED_BY(mutex_);
  std::string close_reason_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_ROSTER_WORKER_SESSION_H_
