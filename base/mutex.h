// The locks of this code base: std::mutex and std::condition_variable behind
// clang's thread-safety annotations.
//
// Debian's Abseil is not instrumented, so ThreadSanitizer cannot see
// absl::Mutex; it sees these. No callbacks, I/O or logging under a lock.
//
//   Mutex mutex_;
//   std::deque<Frame> frames_ DP_GUARDED_BY(mutex_);
//   ...
//   MutexLock lock(&mutex_);
//   if (!not_empty_.WaitUntil(lock, deadline, [&] { return !frames_.empty();
//   }))
//     return absl::DeadlineExceededError(...);
#ifndef DELTAPIPE_BASE_MUTEX_H_
#define DELTAPIPE_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/deadline.h"

#if defined(__clang__)
#define DP_THREAD_ANNOTATION_(x) __attribute__((x))
#else
#define DP_THREAD_ANNOTATION_(x)
#endif

#define DP_GUARDED_BY(x) DP_THREAD_ANNOTATION_(guarded_by(x))
#define DP_REQUIRES(x) DP_THREAD_ANNOTATION_(requires_capability(x))
#define DP_EXCLUDES(x) DP_THREAD_ANNOTATION_(locks_excluded(x))

namespace deltapipe {

class DP_THREAD_ANNOTATION_(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

/// Holds a Mutex for its own lifetime.
class DP_THREAD_ANNOTATION_(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex* mutex)
      DP_THREAD_ANNOTATION_(acquire_capability(mutex))
      : lock_(mutex->mutex_) {}
  ~MutexLock() DP_THREAD_ANNOTATION_(release_capability()) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  friend class CondVar;
  std::unique_lock<std::mutex> lock_;
};

class CondVar {
 public:
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

  /// Waits until `ready()` is true, evaluated under `lock`.
  template <typename Predicate>
  void Wait(MutexLock& lock, Predicate ready) {
    condition_.wait(lock.lock_, ready);
  }

  /// Waits until `ready()` or the deadline; returns whether `ready()` holds.
  template <typename Predicate>
  bool WaitUntil(MutexLock& lock, Deadline deadline, Predicate ready) {
    if (deadline.is_infinite()) {
      condition_.wait(lock.lock_, ready);
      return true;
    }
    return condition_.wait_until(lock.lock_, deadline.time_point(), ready);
  }

 private:
  std::condition_variable condition_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_MUTEX_H_
