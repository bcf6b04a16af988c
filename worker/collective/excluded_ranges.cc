#include "worker/collective/excluded_ranges.h"

#include <algorithm>

namespace deltapipe {

ElementRange ExcludedPart::range(size_t i) const {
  const ElementRange part = Overlap(ranges[first + i], {begin, end});
  return {part.begin - begin, part.end - begin};
}

int64_t ExcludedPart::num_elements() const {
  int64_t count = 0;
  for (size_t i = 0; i < size(); ++i) count += range(i).end - range(i).begin;
  return count;
}

ExcludedPart PartOf(absl::Span<const ElementRange> ranges, int64_t begin,
                    int64_t end) {
  ExcludedPart part{ranges, begin, end};
  if (begin >= end) return part;
  const auto first = std::partition_point(
      ranges.begin(), ranges.end(),
      [&](const ElementRange& range) { return range.end <= begin; });
  const auto last = std::partition_point(
      first, ranges.end(),
      [&](const ElementRange& range) { return range.begin < end; });
  part.first = static_cast<size_t>(first - ranges.begin());
  part.last = static_cast<size_t>(last - ranges.begin());
  return part;
}

ExcludedInBucket ExcludedIn(const SyncBucket& bucket,
                            absl::Span<const ElementRange> ranges) {
  ExcludedInBucket excluded;
  int64_t at = 0;
  for (const ElementRange& piece : bucket.ranges) {
    const ExcludedPart part = PartOf(ranges, piece.begin, piece.end);
    for (size_t i = 0; i < part.size(); ++i) {
      const ElementRange range = part.range(i);
      excluded.ranges.push_back({at + range.begin, at + range.end});
      excluded.origins.push_back(part.first + i);
    }
    at += piece.end - piece.begin;
  }
  return excluded;
}

void WriteWakeBits(const ExcludedPart& part, absl::Span<const uint8_t> flags,
                   absl::Span<uint8_t> out) {
  std::fill(out.begin(), out.end(), uint8_t{0});
  for (size_t i = 0; i < part.size(); ++i) {
    const bool is_woken = flags[part.first + i] != 0;
    out[i / 8] |= static_cast<uint8_t>(uint8_t{is_woken} << (i % 8));
  }
}

void AddWakeBits(const ExcludedPart& part, absl::Span<const uint8_t> bits,
                 absl::Span<uint8_t> flags) {
  for (size_t i = 0; i < part.size(); ++i) {
    if ((bits[i / 8] >> (i % 8) & 1) != 0) flags[part.first + i] = 1;
  }
}

}  // namespace deltapipe
