// The inner loops of blocks on even levels in double precision: error, codes,
// values. For what fp32 would blur: levels far from zero, ranges beyond the
// largest float.
//
// A value x has the position t = (x - base) * inverse on the grid; its code is
// t clamped to [low, high] and rounded. All functions run the best vector
// instructions of the machine, take any alignment and any count, and are
// bit-equal to compression/kernels/reference/double_levels.h. Values are
// finite.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_DOUBLE_LEVELS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_DOUBLE_LEVELS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

struct DoubleSteps {
  double base = 0;
  double inverse = 0;
  /// Whole numbers within 0..255.
  double low = 0;
  double high = 0;
};

/// Rounds to nearest, ties to even. Writes values.size() codes.
void DoubleCodes(absl::Span<const float> values, const DoubleSteps& steps,
                 uint8_t* codes);

/// Rounds up where the upper 24 bits of the value's word, as a fraction, are
/// below what is above the lower level: unbiased to within 2^-24.
void DoubleStochasticCodes(absl::Span<const float> values,
                           const DoubleSteps& steps, const uint32_t* words,
                           uint8_t* codes);

/// The sum of (t - code)^2 with codes as of DoubleCodes, value i in lane i % 8,
/// then a fixed tree.
double DoubleError(absl::Span<const float> values, const DoubleSteps& steps);

/// values[i] = base + codes[i] * step, rounded to fp32 and kept finite.
void DoubleValues(const uint8_t* codes, double base, double step,
                  absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_DOUBLE_LEVELS_H_
