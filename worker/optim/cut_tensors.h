// Tensors that several ranks have a part of, where the state of an optimizer is
// shared out (sharded_state.h), and how LAMB has the norms of whole tensors
// then: each rank sums the squares of its parts, and the ranks add them up.
//
// Shares are neighbouring ranges, so that a rank has one part of a tensor at
// most, and n ranks cut n - 1 tensors at most: that many pairs of numbers
// travel in a step. Plain data, thread-compatible.
//
//   const CutTensors cut = CutTensors::Of(layout, ranges, rank);
//   for (size_t i = 0; i < segments of the rank; ++i) {
//     if (cut.of_segments[i] >= 0) ... exchange ...
//   }
#ifndef DELTAPIPE_WORKER_OPTIM_CUT_TENSORS_H_
#define DELTAPIPE_WORKER_OPTIM_CUT_TENSORS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

struct CutTensors {
  /// The same number on all ranks.
  int count = 0;
  /// For each segment of LayoutOfRange(layout, ranges[rank]), in order: which
  /// of the cut tensors it is a part of; -1: it is a whole tensor.
  std::vector<int> of_segments;

  /// `ranges` by rank; disjoint, in any order, some may be empty.
  static CutTensors Of(const ParameterLayout& layout,
                       absl::Span<const ElementRange> ranges, int rank);
};

/// Replaces each value by its sum over the ranks, the same bits on all of them.
/// Every rank calls it once in each Apply, with as many values. Errors of the
/// exchange, which end the step.
using SumOverRanks =
    std::function<absl::Status(int64_t step, absl::Span<double> values)>;

/// What an optimizer of one share needs of the others; without cut tensors,
/// nothing.
struct SharedNorms {
  CutTensors cut;
  SumOverRanks sum;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_CUT_TENSORS_H_
