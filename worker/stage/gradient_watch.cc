#include "worker/stage/gradient_watch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {

GradientWatch::GradientWatch(const ParameterLayout& layout,
                             const std::vector<std::string>& part_names) {
  for (const ParameterSegment& segment : layout.segments) {
    sizes_.push_back(segment.num_elements);
    parts_.push_back(-1);
    for (size_t part = 0; part < part_names.size(); ++part) {
      if (absl::StartsWith(segment.name, absl::StrCat(part_names[part], "."))) {
        parts_.back() = static_cast<int>(part);
      }
    }
  }
  segments_.resize(layout.segments.size());
  std::iota(segments_.begin(), segments_.end(), size_t{0});
  std::stable_sort(segments_.begin(), segments_.end(),
                   [&](size_t a, size_t b) { return parts_[a] > parts_[b]; });
  for (const size_t index : segments_) {
    const ParameterSegment& segment = layout.segments[index];
    const int64_t end = segment.offset + segment.num_elements;
    if (!order_.empty() && order_.back().end == segment.offset) {
      order_.back().end = end;
    } else {
      order_.push_back({segment.offset, end});
    }
  }
}

void GradientWatch::Begin(std::function<void(int64_t num_final)> on_final) {
  on_final_ = std::move(on_final);
  is_final_.assign(segments_.size(), false);
  num_told_ = 0;
  num_final_ = 0;
}

void GradientWatch::Accumulated(size_t index) {
  if (on_final_ == nullptr || parts_[index] < first_part_) return;
  is_final_[index] = true;
  const int64_t before = num_final_;
  while (num_told_ < segments_.size() && is_final_[segments_[num_told_]]) {
    num_final_ += sizes_[segments_[num_told_++]];
  }
  if (num_final_ > before) on_final_(num_final_);
}

}  // namespace deltapipe
