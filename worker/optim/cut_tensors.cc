#include "worker/optim/cut_tensors.h"

#include <algorithm>

namespace deltapipe {

CutTensors CutTensors::Of(const ParameterLayout& layout,
                          absl::Span<const ElementRange> ranges, int rank) {
  const auto overlaps = [](const ParameterSegment& segment,
                           const ElementRange& range) {
    const ElementRange common = Overlap(RangeOf(segment), range);
    return common.begin < common.end;
  };
  CutTensors cut;
  for (const ParameterSegment& segment : layout.segments) {
    const auto num_owners = std::count_if(
        ranges.begin(), ranges.end(),
        [&](const ElementRange& range) { return overlaps(segment, range); });
    const int index = num_owners > 1 ? cut.count++ : -1;
    if (overlaps(segment, ranges[static_cast<size_t>(rank)])) {
      cut.of_segments.push_back(index);
    }
  }
  return cut;
}

}  // namespace deltapipe
