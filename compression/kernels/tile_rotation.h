// The rotation of the `hadamard` codec, for one tile of 2^k values: the outlier
// first, then H / sqrt(tile), H the Sylvester-Hadamard matrix.
//
// TAH-Quant, arXiv 2506.01352. fp32 butterflies in a fixed order: the same bits
// on any machine.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_TILE_ROTATION_H_
#define DELTAPIPE_COMPRESSION_KERNELS_TILE_ROTATION_H_

#include <cstddef>

#include "absl/types/span.h"

namespace deltapipe {

/// Where a tile's outlier stands; -1 if its largest magnitude is not more than
/// `threshold` times (the second largest + 1e-12), or not within 2^-100 ..
/// 2^120, or if not all values are finite.
int FindOutlier(absl::Span<const float> tile, double threshold);

/// tile <- H tile / sqrt(tile.size()); its own inverse but for rounding. The
/// size is a power of two.
void RotateTile(absl::Span<float> tile);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_TILE_ROTATION_H_
