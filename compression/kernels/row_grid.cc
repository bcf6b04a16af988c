#include "compression/kernels/row_grid.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/float_cast.h"
#include "compression/kernels/directed_bfloat16.h"

namespace deltapipe {
namespace {

constexpr int kBins = 200;        // of the greedy search
constexpr int kBinsToKeep = 168;  // 1 - 0.16 of them
constexpr int kLloydSteps = 20;
constexpr size_t kLanes = 8;

using Centres = std::array<double, kRowLevels>;

// In multiples of the grid's own step, and so comparable with another's.
double GridError(absl::Span<const float> row, RowGrid grid, float max) {
  const double scale = BFloat16ToFloat(grid.scale);
  return EvenError(row, StepsOf(grid, max)) * scale * scale;
}

// Sums error(value) over eight lanes and a fixed tree.
template <class Error>
double SumOfErrors(absl::Span<const float> row, Error error) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += error(row[i + lane]);
    }
  }
  for (size_t lane = 0; i < row.size(); ++i, ++lane) {
    lanes[lane] += error(row[i]);
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// The ends of each centre's values in `sorted`.
std::array<size_t, kRowLevels + 1> Segments(absl::Span<const float> sorted,
                                            const Centres& centres) {
  std::array<size_t, kRowLevels + 1> ends{};
  for (int c = 1; c < kRowLevels; ++c) {
    const double middle = (centres[c - 1] + centres[c]) / 2;
    ends[c] =
        std::upper_bound(sorted.begin() + ends[c - 1], sorted.end(), middle,
                         [](double a, float b) { return a < b; }) -
        sorted.begin();
  }
  ends[kRowLevels] = sorted.size();
  return ends;
}

// A centre without values stays where it is, and so between its neighbours.
Centres Lloyd(absl::Span<const float> sorted, Centres centres) {
  std::array<size_t, kRowLevels + 1> last{};
  for (int step = 0; step < kLloydSteps; ++step) {
    const auto ends = Segments(sorted, centres);
    if (ends == last) break;
    last = ends;
    for (int c = 0; c < kRowLevels; ++c) {
      if (ends[c] == ends[c + 1]) continue;
      const size_t count = ends[c + 1] - ends[c];
      const double sum = SumOfErrors(sorted.subspan(ends[c], count),
                                     [](float value) { return value; });
      centres[c] = sum / static_cast<double>(count);
    }
  }
  return centres;
}

RowCodebook Rounded(const Centres& centres) {
  RowCodebook codebook;
  for (int c = 0; c < kRowLevels; ++c) {
    // A mean may lie a rounding beyond what it is the mean of.
    codebook[c] = FloatToBFloat16(static_cast<float>(
        std::min(std::max(centres[c], -double{FLT_MAX}), double{FLT_MAX})));
  }
  return codebook;
}

}  // namespace

RowGrid MinMaxGrid(const ValueRange& range) {
  return GridOver(range.low, range.high);
}

RowGrid GreedyGrid(absl::Span<const float> row, const ValueRange& range) {
  const double step = (static_cast<double>(range.high) - range.low) / kBins;
  RowGrid best = MinMaxGrid(range);
  if (step == 0) return best;
  const float max = std::max(std::fabs(range.low), std::fabs(range.high));
  double best_error = GridError(row, best, max);
  for (int lower = 0, upper = 0; kBins - lower - upper > kBinsToKeep;) {
    const RowGrid raised =
        GridOver(range.low + (lower + 1) * step, range.high - upper * step);
    const RowGrid lowered =
        GridOver(range.low + lower * step, range.high - (upper + 1) * step);
    const double raised_error = GridError(row, raised, max);
    const double lowered_error = GridError(row, lowered, max);
    const bool raises = raised_error < lowered_error;
    ++(raises ? lower : upper);
    const double error = raises ? raised_error : lowered_error;
    if (error < best_error) {
      best_error = error;
      best = raises ? raised : lowered;
    }
  }
  return best;
}

RowLevels LevelsOf(RowGrid grid) {
  const double scale = BFloat16ToFloat(grid.scale);
  const double bias = BFloat16ToFloat(grid.bias);
  RowLevels levels;
  for (int c = 0; c < kRowLevels; ++c) {
    const double level = bias + c * scale;
    levels[c] = static_cast<float>(
        std::min(std::max(level, -double{FLT_MAX}), double{FLT_MAX}));
  }
  return levels;
}

RowLevels LevelsOf(const RowCodebook& codebook) {
  RowLevels levels;
  for (int c = 0; c < kRowLevels; ++c) levels[c] = BFloat16ToFloat(codebook[c]);
  return levels;
}

void NearestLevels(absl::Span<const float> row, const RowLevels& levels,
                   uint8_t* codes) {
  double middles[kRowLevels - 1];
  for (int c = 0; c + 1 < kRowLevels; ++c) {
    middles[c] = (static_cast<double>(levels[c]) + levels[c + 1]) / 2;
  }
  for (size_t i = 0; i < row.size(); ++i) {
    int code = 0;
    for (const double middle : middles) code += row[i] > middle;
    codes[i] = static_cast<uint8_t>(code);
  }
}

double LevelError(absl::Span<const float> row, const RowLevels& levels) {
  constexpr size_t kChunk = 256;
  uint8_t codes[kChunk];
  double error = 0;
  for (; !row.empty(); row.remove_prefix(std::min(row.size(), kChunk))) {
    const auto chunk = row.first(std::min(row.size(), kChunk));
    NearestLevels(chunk, levels, codes);
    for (size_t i = 0; i < chunk.size(); ++i) {
      const double difference =
          static_cast<double>(chunk[i]) - levels[codes[i]];
      error += difference * difference;
    }
  }
  return error;
}

RowCodebook FitCodebook(absl::Span<const float> sorted) {
  const RowLevels even = LevelsOf(GridOver(sorted.front(), sorted.back()));
  Centres of_levels, of_quantiles;
  for (size_t c = 0; c < kRowLevels; ++c) {
    of_levels[c] = even[c];
    of_quantiles[c] = sorted[(2 * c + 1) * sorted.size() / (2 * kRowLevels)];
  }
  const RowCodebook a = Rounded(Lloyd(sorted, of_levels));
  const RowCodebook b = Rounded(Lloyd(sorted, of_quantiles));
  return LevelError(sorted, LevelsOf(b)) < LevelError(sorted, LevelsOf(a)) ? b
                                                                           : a;
}

RowCodebook RefineCodebook(absl::Span<const float> sorted,
                           const RowCodebook& codebook) {
  const RowLevels levels = LevelsOf(codebook);
  Centres centres;
  std::copy(levels.begin(), levels.end(), centres.begin());
  return Rounded(Lloyd(sorted, centres));
}

}  // namespace deltapipe
