#include "base/thread.h"

#include <pthread.h>

#include <utility>

namespace deltapipe {

Thread::Thread(const std::string& name, std::function<void()> body)
    : thread_(std::move(body)) {
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Thread& Thread::operator=(Thread&& other) {
  Join();
  thread_ = std::move(other.thread_);
  return *this;
}

void Thread::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace deltapipe
