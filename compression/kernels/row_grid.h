// Sixteen levels for a row of floats: even ones (a scale and a bias), searched
// or not, and free ones (a codebook). What the `rowwise4` codec sends before a
// row's codes.
//
// Guan, Malevich, Yang, Park, Yuen, "Post-Training 4-bit Quantization on
// Embedding Tables", arXiv 1911.02079.
//
// All functions take finite values of any size, sum in a fixed order and give
// the same bits on any machine.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_ROW_GRID_H_
#define DELTAPIPE_COMPRESSION_KERNELS_ROW_GRID_H_

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/even_levels.h"

namespace deltapipe {

inline constexpr int kRowLevels = 16;

/// Level c is bias + c * scale, both bf16 as they are sent.
struct RowGrid {
  uint16_t scale = 0;
  uint16_t bias = 0;
};

/// The levels in ascending order, as they are sent.
using RowCodebook = std::array<uint16_t, kRowLevels>;
using RowLevels = std::array<float, kRowLevels>;

/// From `low` to `high`, as MinMaxGrid.
DP_HOST_DEVICE inline RowGrid GridOver(double low, double high) {
  RowGrid grid;
  grid.bias = BFloat16AtMost(low);
  const double range = high - BFloat16ToFloat(grid.bias);
  grid.scale = BFloat16AtLeast((range > 0 ? range : 0.0) / (kRowLevels - 1));
  return grid;
}

/// From a row's smallest value to its largest: the bias is rounded down and
/// the scale up, so that no value of magnitude below 3.38e38 lies outside.
RowGrid MinMaxGrid(const ValueRange& range);

/// The paper's greedy search (algorithm 1): from MinMaxGrid on moves the end
/// whose move costs less inwards by 1/200 of the range, until 16 % are gone;
/// returns the grid of least squared error on the way, so never a worse one
/// than MinMaxGrid.
RowGrid GreedyGrid(absl::Span<const float> row, const ValueRange& range);

/// How to find the nearest of the grid's levels (EvenCodes) for values of at
/// most `max_magnitude`.
DP_HOST_DEVICE inline EvenSteps StepsOf(RowGrid grid, float max_magnitude) {
  EvenSteps steps;
  // Differences of the largest values overflow, reciprocals of the smallest
  // scales do. Otherwise a scale is 0 or at least 2^-24 / 15 of the maximum.
  if (max_magnitude >= 0x1p126f) steps.shrink = 0x1p-2f;
  if (max_magnitude < 0x1p-60f) steps.shrink = 0x1p64f;
  const float scale = BFloat16ToFloat(grid.scale) * steps.shrink;
  steps.bias = BFloat16ToFloat(grid.bias) * steps.shrink;
  steps.inverse = scale > 0 ? 1 / scale : 0;
  return steps;
}

/// bias + c * scale, rounded once to fp32 and kept finite.
RowLevels LevelsOf(RowGrid grid);
RowLevels LevelsOf(const RowCodebook& codebook);

/// The nearest of ascending `levels`, the lower one of two as near.
void NearestLevels(absl::Span<const float> row, const RowLevels& levels,
                   uint8_t* codes);
double LevelError(absl::Span<const float> row, const RowLevels& levels);

/// k-means (Lloyd) of 16 centres over `sorted` (ascending, not empty), begun
/// both from MinMaxGrid's levels and from quantiles; the better of the two.
RowCodebook FitCodebook(absl::Span<const float> sorted);

/// Lloyd's steps from `codebook` on.
RowCodebook RefineCodebook(absl::Span<const float> sorted,
                           const RowCodebook& codebook);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_ROW_GRID_H_
