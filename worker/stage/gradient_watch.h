// GradientWatch: which elements of a stage's flat gradient will not change any
// more while its backward pass runs.
//
// A model's parts are differentiated from the last to the first, and those of a
// part may be finished in any order: the elements are therefore told part by
// part. What a part uses is named after it, but for a tensor that two parts
// use (a tied embedding), which is named after the first of them and finished
// with it.
//
//   watch.Begin(on_final);
//   watch.EnterSegment(first_part);    // parts from here on are differentiated
//   watch.Accumulated(i);              // segment i of the layout was added to
//   watch.End();
//
// Used by one thread at a time.
#ifndef DELTAPIPE_WORKER_STAGE_GRADIENT_WATCH_H_
#define DELTAPIPE_WORKER_STAGE_GRADIENT_WATCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class GradientWatch {
 public:
  GradientWatch() = default;
  /// A segment is of the part whose name, with a point, its own begins with;
  /// without one it is never told of.
  GradientWatch(const ParameterLayout& layout,
                const std::vector<std::string>& part_names);

  /// As Stage::gradient_order().
  const std::vector<ElementRange>& order() const { return order_; }

  /// From here to End, `on_final(n)` is called as Stage::WatchNextBackward
  /// says; in between two of them nothing is.
  void Begin(std::function<void(int64_t num_final)> on_final);
  /// No later call is about a use of a parameter by a part at or after the
  /// former `first_part`.
  void EnterSegment(int first_part) { first_part_ = first_part; }
  /// The gradients by the uses between the entered part and the former one were
  /// added to segment `index` of the layout.
  void Accumulated(size_t index);
  void End() { on_final_ = nullptr; }

 private:
  std::vector<ElementRange> order_;
  std::vector<size_t> segments_;  // of the layout, in that order
  std::vector<int64_t> sizes_;    // by segment of the layout
  std::vector<int> parts_;        // likewise; -1: none
  std::function<void(int64_t)> on_final_;
  int first_part_ = 0;
  std::vector<bool> is_final_;  // by segment of the layout
  size_t num_told_ = 0;         // of segments_
  int64_t num_final_ = 0;       // their elements
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_GRADIENT_WATCH_H_
