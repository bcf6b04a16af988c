#include "worker/saved_activations/memory_region.h"

#include <algorithm>

#include "ATen/ops/as_strided.h"

namespace deltapipe {
namespace {

// What moves through memory: extents of more than one element, not broadcast;
// the slowest first.
std::vector<MemoryRegion::Extent> MovingExtents(const at::Tensor& tensor) {
  std::vector<MemoryRegion::Extent> extents;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.size(i) > 1 && tensor.stride(i) != 0) {
      extents.push_back({tensor.stride(i), tensor.size(i)});
    }
  }
  std::stable_sort(
      extents.begin(), extents.end(),
      [](const auto& a, const auto& b) { return a.stride > b.stride; });
  return extents;
}

}  // namespace

bool MemoryRegion::Covers(const MemoryRegion& other) const {
  return is_dense() && other.offset >= offset &&
         other.offset + other.span <= offset + span;
}

MemoryRegion RegionOf(const at::Tensor& tensor) {
  MemoryRegion region;
  region.offset = tensor.storage_offset();
  bool overlaps = false;
  const std::vector<MemoryRegion::Extent> extents = MovingExtents(tensor);
  // From the fastest on: each must step over what the faster ones span.
  for (auto extent = extents.rbegin(); extent != extents.rend(); ++extent) {
    overlaps |= extent->stride < region.span;
    region.span += extent->stride * (extent->size - 1);
    region.num_elements *= extent->size;
    if (!region.extents.empty() &&
        extent->stride ==
            region.extents.back().stride * region.extents.back().size) {
      region.extents.back().size *= extent->size;
    } else {
      region.extents.push_back(*extent);
    }
  }
  std::reverse(region.extents.begin(), region.extents.end());
  if (overlaps) {
    region.num_elements = region.span;
    region.extents = {{1, region.span}};
  }
  return region;
}

at::Tensor Flatten(const at::Tensor& tensor, const MemoryRegion& region) {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  for (const MemoryRegion::Extent& extent : region.extents) {
    sizes.push_back(extent.size);
    strides.push_back(extent.stride);
  }
  return at::as_strided(tensor, sizes, strides, region.offset).reshape({-1});
}

std::vector<int64_t> ShapeInMemory(const at::Tensor& tensor) {
  std::vector<MemoryRegion::Extent> extents;
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.stride(i) != 0 || tensor.size(i) == 1) {
      extents.push_back({tensor.stride(i), tensor.size(i)});
    }
  }
  std::stable_sort(
      extents.begin(), extents.end(),
      [](const auto& a, const auto& b) { return a.stride > b.stride; });
  std::vector<int64_t> shape;
  for (const MemoryRegion::Extent& extent : extents) {
    shape.push_back(extent.size);
  }
  return shape;
}

StridedView ViewOf(const at::Tensor& tensor) {
  return {tensor.storage_offset(), tensor.sizes().vec(),
          tensor.strides().vec()};
}

StridedView ViewInFlat(StridedView flat, const MemoryRegion& region) {
  flat.offset -= region.offset;
  if (region.is_dense()) return flat;
  // The same elements, closed up: a stride in memory is that of an extent times
  // a whole number, which the closed extent keeps.
  for (size_t i = 0; i < flat.strides.size(); ++i) {
    if (flat.sizes[i] <= 1) {
      flat.strides[i] = 1;
      continue;
    }
    int64_t closed = 1;
    for (auto extent = region.extents.rbegin(); extent != region.extents.rend();
         ++extent) {
      if (flat.strides[i] % extent->stride == 0 &&
          flat.strides[i] / extent->stride < extent->size) {
        flat.strides[i] = closed * (flat.strides[i] / extent->stride);
        break;
      }
      closed *= extent->size;
    }
  }
  return flat;
}

}  // namespace deltapipe
