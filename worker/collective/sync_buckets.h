// Buckets: the parts of a flat vector that are all-reduced one after the other,
// each as soon as this rank has its values.
//
// Values become ready in an order that is not that of the vector: a model's
// last layers first, wherever they lie. The cut is a function of that order,
// the vector's size and the number of ranks alone, and so equal on all ranks,
// whenever their values are ready; so are, with it, the bits of the sums.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_SYNC_BUCKETS_H_
#define DELTAPIPE_WORKER_COLLECTIVE_SYNC_BUCKETS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

struct SyncBucket {
  /// Of the vector, in the order in which they become ready.
  std::vector<ElementRange> ranges;
  int64_t num_elements = 0;
  /// The first so many elements of the order are ready when the bucket is.
  int64_t ready_at = 0;
};

/// Cuts the vector into as many buckets, of even size, as have `min_elements`
/// or more; one bucket, in the order of the vector, where there would be fewer
/// than two, or where `order` is empty.
std::vector<SyncBucket> CutIntoBuckets(absl::Span<const ElementRange> order,
                                       int64_t num_elements,
                                       int64_t min_elements);

/// INVALID_ARGUMENT unless `order` is empty, or its ranges are disjoint and
/// together all of the vector.
absl::Status CheckOrder(absl::Span<const ElementRange> order,
                        int64_t num_elements);

/// The bucket's values, in its order, to `copy`.
void CopyOut(const SyncBucket& bucket, absl::Span<const float> vector,
             std::vector<float>* copy);
/// `values`, in its order, to their places.
void CopyIn(const SyncBucket& bucket, absl::Span<const float> values,
            absl::Span<float> vector);

/// The bucket's values, where they lie if that is in one place, otherwise as
/// copied to `copy`.
absl::Span<float> Gathered(const SyncBucket& bucket, absl::Span<float> vector,
                           std::vector<float>* copy);
/// Puts `values`, what became of Gathered's, back into their places.
void Scatter(const SyncBucket& bucket, absl::Span<const float> values,
             absl::Span<float> vector);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_SYNC_BUCKETS_H_
