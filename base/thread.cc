#include "base/thread.h"

#include <pthread.h>

#include <utility>

namespace deltapipe {

Thread::Thread(const std::string& name, std::function<void()> body)
    // The thread names itself, so that its body never runs without the name.
    : thread_([short_name = name.substr(0, 15), body = std::move(body)] {
        pthread_setname_np(pthread_self(), short_name.c_str());
        body();
      }) {}

Thread& Thread::operator=(Thread&& other) noexcept {
  if (this == &other) return *this;
  Join();
  thread_ = std::move(other.thread_);
  return *this;
}

void Thread::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace deltapipe
