#include "worker/collective/sync_buckets.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/optim/ranges_at.h"

namespace deltapipe {

std::vector<SyncBucket> CutIntoBuckets(absl::Span<const ElementRange> order,
                                       int64_t num_elements,
                                       int64_t min_elements) {
  const int64_t num_buckets = num_elements / min_elements;
  if (order.empty() || num_buckets < 2) {
    return {{{{0, num_elements}}, num_elements, num_elements}};
  }
  std::vector<SyncBucket> buckets;
  int64_t done = 0;
  // Sizes differ by one element at most; the division of the rest avoids an
  // overflow of the product.
  const int64_t base = num_elements / num_buckets;
  const int64_t rest = num_elements % num_buckets;
  for (int64_t i = 0; i < num_buckets; ++i) {
    SyncBucket bucket;
    bucket.num_elements = base + (i < rest ? 1 : 0);
    bucket.ranges = RangesAt(order, done, done + bucket.num_elements);
    done += bucket.num_elements;
    bucket.ready_at = done;
    buckets.push_back(std::move(bucket));
  }
  return buckets;
}

absl::Status CheckOrder(absl::Span<const ElementRange> order,
                        int64_t num_elements) {
  if (order.empty()) return absl::OkStatus();
  std::vector<ElementRange> sorted(order.begin(), order.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const ElementRange& a, const ElementRange& b) {
              return a.begin < b.begin;
            });
  int64_t end = 0;
  for (const ElementRange& range : sorted) {
    if (range.begin != end || range.end <= range.begin) {
      return absl::InvalidArgumentError(
          absl::StrCat("order: range ", range.begin, " to ", range.end,
                       " after element ", end,
                       ", expected ranges that are disjoint and together all "
                       "of the vector"));
    }
    end = range.end;
  }
  if (end == num_elements) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "order: ranges of ", end, " elements, expected ", num_elements));
}

void CopyOut(const SyncBucket& bucket, absl::Span<const float> vector,
             std::vector<float>* copy) {
  copy->clear();
  copy->reserve(static_cast<size_t>(bucket.num_elements));
  for (const ElementRange& range : bucket.ranges) {
    copy->insert(copy->end(), vector.begin() + range.begin,
                 vector.begin() + range.end);
  }
}

void CopyIn(const SyncBucket& bucket, absl::Span<const float> values,
            absl::Span<float> vector) {
  const float* from = values.data();
  for (const ElementRange& range : bucket.ranges) {
    const int64_t size = range.end - range.begin;
    std::copy(from, from + size, vector.begin() + range.begin);
    from += size;
  }
}

absl::Span<float> Gathered(const SyncBucket& bucket, absl::Span<float> vector,
                           std::vector<float>* copy) {
  if (bucket.ranges.size() == 1) {
    return vector.subspan(static_cast<size_t>(bucket.ranges[0].begin),
                          static_cast<size_t>(bucket.num_elements));
  }
  CopyOut(bucket, vector, copy);
  return absl::MakeSpan(*copy);
}

void Scatter(const SyncBucket& bucket, absl::Span<const float> values,
             absl::Span<float> vector) {
  if (bucket.ranges.size() > 1) CopyIn(bucket, values, vector);
}

}  // namespace deltapipe
