// RangesAt: where a part of what several ranges hold lies in their vector.
//
//   RangesAt({{4, 6}, {0, 3}}, 1, 3);  // {{5, 6}, {0, 1}}
//
// Those who follow gradients in the order of the backward pass use it, on any
// thread; it knows nothing of values.
#ifndef DELTAPIPE_WORKER_OPTIM_RANGES_AT_H_
#define DELTAPIPE_WORKER_OPTIM_RANGES_AT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Where elements [begin, end) of what `ranges` hold one after the other lie.
std::vector<ElementRange> RangesAt(absl::Span<const ElementRange> ranges,
                                   int64_t begin, int64_t end);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_RANGES_AT_H_
