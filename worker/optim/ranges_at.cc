#include "worker/optim/ranges_at.h"

namespace deltapipe {

std::vector<ElementRange> RangesAt(absl::Span<const ElementRange> ranges,
                                   int64_t begin, int64_t end) {
  std::vector<ElementRange> found;
  int64_t at = 0;
  for (const ElementRange& range : ranges) {
    const ElementRange part =
        Overlap(range, {range.begin + begin - at, range.begin + end - at});
    if (part.begin < part.end) found.push_back(part);
    at += range.end - range.begin;
  }
  return found;
}

}  // namespace deltapipe
