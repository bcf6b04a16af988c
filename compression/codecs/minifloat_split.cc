#include "compression/codecs/minifloat_split.h"

#include <cmath>
#include <limits>

#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/log_moments.h"
#include "compression/kernels/portable_math.h"

namespace deltapipe {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Row: bits from 3 on; column: the sigma from which on 2, 3, ... 7 exponent
// bits are best.
constexpr double kThresholds[kMaxSplitBits - kMinSplitBits + 1][6] = {
    {0.22, kNever, kNever, kNever, kNever, kNever},
    {0.34, 0.70, kNever, kNever, kNever, kNever},
    {0.37, 0.77, 1.43, kNever, kNever, kNever},
    {0.38, 0.79, 1.47, 2.86, kNever, kNever},
    {0.38, 0.80, 1.49, 2.80, 5.71, kNever},
    {0.39, 0.81, 1.50, 2.75, 5.43, 11.40},
};

}  // namespace

int ChooseExponentBits(int bits, double sigma) {
  int exponent_bits = 1;
  for (const double threshold : kThresholds[bits - kMinSplitBits]) {
    if (sigma >= threshold) ++exponent_bits;
  }
  return exponent_bits;
}

double LogSpreadWithinBlocks(absl::Span<const float> values, int64_t block) {
  const size_t size = block == 0 ? values.size() : static_cast<size_t>(block);
  double deviations = 0;
  int64_t degrees_of_freedom = 0;
  while (!values.empty()) {
    const auto part = values.subspan(0, size);
    values.remove_prefix(part.size());
    if (LargestMagnitudeBits(part) >= kInfinityBits) continue;
    const LogMoments moments = LogMomentsOf(part);
    if (moments.count < 2) continue;
    deviations += moments.SquaredDeviations();
    degrees_of_freedom += moments.count - 1;
  }
  if (degrees_of_freedom == 0) return 0;
  return kLn2 * std::sqrt(deviations / static_cast<double>(degrees_of_freedom));
}

}  // namespace deltapipe
