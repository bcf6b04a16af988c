#include "compression/kernels/tile_rotation.h"

#include <cmath>

namespace deltapipe {

int FindOutlier(absl::Span<const float> tile, double threshold) {
  float largest = 0, second = 0;
  int position = 0;
  bool all_finite = true;
  for (size_t i = 0; i < tile.size(); ++i) {
    const float magnitude = std::fabs(tile[i]);
    all_finite &= std::isfinite(magnitude);
    if (magnitude > largest) {
      second = largest;
      largest = magnitude;
      position = static_cast<int>(i);
    } else if (magnitude > second) {
      second = magnitude;
    }
  }
  const bool is_in_range = largest >= 0x1p-100f && largest <= 0x1p120f;
  return all_finite && is_in_range && largest > threshold * (second + 1e-12)
             ? position
             : -1;
}

void RotateTile(absl::Span<float> tile) {
  for (size_t width = 1; width < tile.size(); width *= 2) {
    for (size_t begin = 0; begin < tile.size(); begin += 2 * width) {
      for (size_t i = begin; i < begin + width; ++i) {
        const float a = tile[i], b = tile[i + width];
        tile[i] = a + b;
        tile[i + width] = a - b;
      }
    }
  }
  const float norm = 1 / std::sqrt(static_cast<float>(tile.size()));
  for (float& value : tile) value *= norm;
}

}  // namespace deltapipe
