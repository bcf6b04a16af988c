// ThreadScratch: a vector for the length of a scope, which keeps its memory
// from one use to the next, so that what is called again and again with like
// sizes allocates at first only.
//
//   ThreadScratch<float> rotated;
//   rotated->assign(in.begin(), in.end());
//
// Called by codecs and kernels, from any thread; each has vectors of its own
// until it ends. Scopes may nest: a codec within a codec has another vector,
// the same one each time. A thread keeps as much as its largest tensors took.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_THREAD_SCRATCH_H_
#define DELTAPIPE_COMPRESSION_KERNELS_THREAD_SCRATCH_H_

#include <utility>
#include <vector>

namespace deltapipe {

template <class T>
class ThreadScratch {
 public:
  ThreadScratch() {
    std::vector<std::vector<T>>& idle = Idle();
    if (idle.empty()) return;
    vector_ = std::move(idle.back());
    idle.pop_back();
  }
  ~ThreadScratch() {
    vector_.clear();
    Idle().push_back(std::move(vector_));
  }

  ThreadScratch(const ThreadScratch&) = delete;
  ThreadScratch& operator=(const ThreadScratch&) = delete;

  /// Empty at first. Lives as long as this object.
  std::vector<T>& operator*() { return vector_; }
  std::vector<T>* operator->() { return &vector_; }
  const std::vector<T>& operator*() const { return vector_; }
  const std::vector<T>* operator->() const { return &vector_; }

 private:
  // The last one was used in the outermost scope.
  static std::vector<std::vector<T>>& Idle() {
    static thread_local std::vector<std::vector<T>> idle;
    return idle;
  }

  std::vector<T> vector_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_THREAD_SCRATCH_H_
