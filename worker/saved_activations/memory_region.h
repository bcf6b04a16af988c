// Which elements of a storage a tensor covers, however it is viewed.
//
// Views of the same elements (reshaped, transposed, broadcast) have equal
// regions, so that they can share one packed copy; it holds the elements in
// their order in memory.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_MEMORY_REGION_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_MEMORY_REGION_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"

namespace deltapipe {

struct MemoryRegion {
  struct Extent {
    int64_t stride = 1;
    int64_t size = 1;
    bool operator==(const Extent& other) const {
      return stride == other.stride && size == other.size;
    }
  };
  /// Elements, from the storage's first one.
  int64_t offset = 0;
  /// Largest stride first; neighbours that follow each other in memory are one.
  /// Broadcast extents are left out, and what overlaps itself is taken for the
  /// whole span.
  std::vector<Extent> extents;
  int64_t num_elements = 1;
  /// From the first to behind the last element.
  int64_t span = 1;

  bool is_dense() const { return num_elements == span; }
  bool operator==(const MemoryRegion& other) const {
    return offset == other.offset && extents == other.extents;
  }
  /// Whether all elements of `other` are in this region, if it is dense.
  bool Covers(const MemoryRegion& other) const;
};

/// Of a strided tensor with at least one element.
MemoryRegion RegionOf(const at::Tensor& tensor);

/// The region's elements in their order in memory, one-dimensional; shares the
/// storage of `tensor` if the region is dense.
at::Tensor Flatten(const at::Tensor& tensor, const MemoryRegion& region);

/// The extents of a tensor, the slowest in memory first; those that are
/// broadcast are left out.
std::vector<int64_t> ShapeInMemory(const at::Tensor& tensor);

/// A view: `offset` is from the storage's first element, or from that of a flat
/// copy of a region.
struct StridedView {
  int64_t offset = 0;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
};
StridedView ViewOf(const at::Tensor& tensor);

/// How `view` lies in the flat copy of a region that covers it. Of a dense
/// region strides are the view's own; of another they are closed up.
StridedView ViewInFlat(StridedView view, const MemoryRegion& region);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_MEMORY_REGION_H_
