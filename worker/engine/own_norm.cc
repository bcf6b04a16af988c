#include "worker/engine/own_norm.h"

#include <algorithm>

#include "worker/optim/lane_reduction.h"

namespace deltapipe {

OwnNorm::OwnNorm(const ParameterLayout& layout,
                 absl::Span<const float> gradient,
                 absl::Span<const ElementRange> order)
    : layout_(layout),
      gradient_(gradient),
      squares_(layout.segments.size()),
      is_added_(layout.segments.size()) {
  int64_t before = 0;
  for (const ElementRange& range : order) {
    const auto first = std::lower_bound(
        layout.segments.begin(), layout.segments.end(), range.begin,
        [](const ParameterSegment& segment, int64_t begin) {
          return segment.offset < begin;
        });
    for (auto segment = first;
         segment != layout.segments.end() && segment->offset < range.end;
         ++segment) {
      before += segment->num_elements;
      places_.push_back(
          {before, static_cast<size_t>(segment - layout.segments.begin())});
    }
  }
}

void OwnNorm::AddSegment(size_t index) {
  const ParameterSegment& segment = layout_.segments[index];
  squares_[index] =
      SumOfSquares(gradient_.data() + segment.offset, segment.num_elements);
  is_added_[index] = true;
}

void OwnNorm::Add(int64_t num_final) {
  while (num_added_ < places_.size() && places_[num_added_].end <= num_final) {
    AddSegment(places_[num_added_++].segment);
  }
}

double OwnNorm::Sum() {
  double sum = 0;
  for (size_t i = 0; i < layout_.segments.size(); ++i) {
    if (!is_added_[i]) AddSegment(i);
    const bool is_tied = layout_.segments[i].offset >= layout_.tied_begin();
    sum += squares_[i] *
           (is_tied ? static_cast<double>(layout_.tied_stages.size()) : 1.0);
  }
  return sum;
}

}  // namespace deltapipe
