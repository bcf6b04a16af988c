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
EvenSteps StepsOf(RowGrid grid, float max_magnitude);

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
