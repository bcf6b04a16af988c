// A named thread that is joined when it goes out of scope. Whoever starts one
// must be able to make its body return before destroying it.
#ifndef DELTAPIPE_BASE_THREAD_H_
#define DELTAPIPE_BASE_THREAD_H_

#include <functional>
#include <string>
#include <thread>

namespace deltapipe {

class Thread {
 public:
  Thread() = default;
  /// Starts `body`; the name (first 15 bytes) shows in top, gdb and perf.
  Thread(const std::string& name, std::function<void()> body);
  Thread(Thread&&) = default;
  /// Joins the thread that was held before.
  Thread& operator=(Thread&& other) noexcept;
  ~Thread() { Join(); }

  /// Waits for the body to return. Idempotent.
  void Join();
  /// Whether there is a thread that has not been joined yet.
  bool is_running() const { return thread_.joinable(); }

 private:
  std::thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_THREAD_H_
