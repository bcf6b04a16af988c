// OwnNorm: the squared norm of a replica's own gradient, segment by segment as
// they become final, before the synchronisation overwrites them.
//
// That of a tied tensor is a sum over its owners, of which each knows its own
// term alone before the exchange. They count together owners x (sum of the
// squared norms of the terms), by Cauchy and Schwarz the least bound of the
// sum's that needs nothing else: GradientNorm expects a figure that is no less
// than the mean gradient's and keeps a steady ratio to it.
#ifndef DELTAPIPE_WORKER_ENGINE_OWN_NORM_H_
#define DELTAPIPE_WORKER_ENGINE_OWN_NORM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class OwnNorm {
 public:
  /// Both are borrowed. Segments become final in `order`, as
  /// Stage::gradient_order(); those that it leaves out, with the others when
  /// Sum is called.
  OwnNorm(const ParameterLayout& layout, absl::Span<const float> gradient,
          absl::Span<const ElementRange> order);

  /// The first `num_final` elements in the order are final.
  void Add(int64_t num_final);
  /// All are. Segments are added up in the order of the layout, whenever they
  /// became final.
  double Sum();

 private:
  struct Place {
    int64_t end = 0;  // in the order
    size_t segment = 0;
  };
  void AddSegment(size_t index);

  const ParameterLayout& layout_;
  const absl::Span<const float> gradient_;
  std::vector<Place> places_;
  size_t num_added_ = 0;         // of places_
  std::vector<double> squares_;  // by segment
  std::vector<bool> is_added_;   // likewise
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_OWN_NORM_H_
