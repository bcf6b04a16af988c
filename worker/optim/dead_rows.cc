#include "worker/optim/dead_rows.h"

#include <algorithm>

namespace deltapipe {
namespace {

int64_t RowElements(const ParameterSegment& segment) {
  const bool has_rows = segment.shape.size() >= 2 && segment.shape[0] > 0 &&
                        segment.num_elements % segment.shape[0] == 0;
  return has_rows ? segment.num_elements / segment.shape[0]
                  : segment.num_elements;
}

template <typename Real>
bool IsZero(const Real* values, int64_t count) {
  return std::all_of(values, values + count,
                     [](Real value) { return value == 0; });
}

}  // namespace

template <typename Real>
DeadRows<Real>::DeadRows(const ParameterLayout& layout)
    : num_segments_(layout.segments.size()) {
  for (size_t l = 0; l < num_segments_; ++l) {
    const ParameterSegment& segment = layout.segments[l];
    const int64_t size = RowElements(segment);
    const int64_t end = segment.offset + segment.num_elements;
    for (int64_t at = segment.offset; at < end; at += size) {
      rows_.push_back({l, {at, at + size}});
    }
  }
  flags_.resize(rows_.size());
  Rebuild();
}

template <typename Real>
void DeadRows<Real>::Find(absl::Span<const Real> variance) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    const ElementRange& range = rows_[row].range;
    flags_[row] =
        IsZero(variance.data() + range.begin, range.end - range.begin) ? 1 : 0;
  }
  Rebuild();
}

template <typename Real>
void DeadRows<Real>::Clear() {
  std::fill(flags_.begin(), flags_.end(), Real{0});
  Rebuild();
}

template <typename Real>
void DeadRows<Real>::Rebuild() {
  excluded_.clear();
  excluded_rows_.clear();
  live_.clear();
  live_begin_.assign(num_segments_ + 1, 0);
  woken_.clear();
  size_t segment = 0;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const Row& entry = rows_[row];
    while (segment < entry.segment_index) live_begin_[++segment] = live_.size();
    if (flags_[row] != 0) {
      excluded_.push_back(entry.range);
      excluded_rows_.push_back(row);
    } else if (live_.size() > live_begin_[segment] &&
               live_.back().end == entry.range.begin) {
      live_.back().end = entry.range.end;
    } else {
      live_.push_back(entry.range);
    }
  }
  while (segment < num_segments_) live_begin_[++segment] = live_.size();
}

template <typename Real>
absl::Span<const ElementRange> DeadRows<Real>::live(
    size_t segment_index) const {
  const size_t begin = live_begin_[segment_index];
  return absl::MakeConstSpan(live_).subspan(
      begin, live_begin_[segment_index + 1] - begin);
}

template <typename Real>
int64_t DeadRows<Real>::num_live_elements(size_t segment_index) const {
  int64_t count = 0;
  for (const ElementRange& range : live(segment_index)) {
    count += range.end - range.begin;
  }
  return count;
}

template <typename Real>
void DeadRows<Real>::SetWoken(absl::Span<const uint8_t> is_woken) {
  woken_.assign(is_woken.begin(), is_woken.end());
}

template <typename Real>
Real DeadRows<Real>::MeanVariance(size_t begin_segment, size_t end_segment,
                                  absl::Span<const Real> variance) const {
  double sum = 0;
  int64_t count = 0;
  for (size_t l = begin_segment; l < end_segment; ++l) {
    for (const ElementRange& range : live(l)) {
      count += range.end - range.begin;
      for (int64_t i = range.begin; i < range.end; ++i) {
        sum += static_cast<double>(variance[static_cast<size_t>(i)]);
      }
    }
  }
  return count == 0 ? Real{0}
                    : static_cast<Real>(sum / static_cast<double>(count));
}

template <typename Real>
std::vector<typename DeadRows<Real>::JoinedRow> DeadRows<Real>::Join(
    absl::Span<Real> momentum, absl::Span<Real> variance) {
  std::vector<JoinedRow> joined;
  size_t known_segment = num_segments_;
  Real mean = 0;
  for (size_t i = 0; i < woken_.size(); ++i) {
    if (woken_[i] == 0) continue;
    const Row& row = rows_[excluded_rows_[i]];
    const size_t l = row.segment_index;
    if (l != known_segment) {
      known_segment = l;
      mean = MeanVariance(l, l + 1, variance);
      if (mean == 0) mean = MeanVariance(0, num_segments_, variance);
      if (mean == 0) mean = 1;
    }
    const size_t begin = static_cast<size_t>(row.range.begin);
    const size_t size = static_cast<size_t>(row.range.end) - begin;
    for (Real& value : momentum.subspan(begin, size)) value = 0;
    for (Real& value : variance.subspan(begin, size)) value = mean;
    joined.push_back({l, row.range, live(l).empty()});
    flags_[excluded_rows_[i]] = 0;
  }
  // The means above are those of the rows that were live before.
  if (joined.empty()) {
    woken_.clear();
  } else {
    Rebuild();
  }
  return joined;
}

template class DeadRows<float>;
template class DeadRows<double>;

}  // namespace deltapipe
