// The inner loops of 4-bit rows on even levels: range, codes, error, values.
//
// A value x has the position t = (x * shrink - bias) * inverse on the grid; its
// code is t clamped to [0, 15] and rounded to nearest, ties to even. All in
// fp32. All functions run the best vector instructions of the machine, take any
// alignment and any count, and are bit-equal to
// compression/kernels/reference/even_levels.h.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_EVEN_LEVELS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_EVEN_LEVELS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

struct ValueRange {
  /// Only where all values are finite; 0 of none; never -0.
  float low = 0;
  float high = 0;
  bool all_finite = true;
};

ValueRange RangeOfValues(absl::Span<const float> values);

struct EvenSteps {
  /// A power of two that keeps what follows within fp32.
  float shrink = 1;
  float bias = 0;
  float inverse = 0;
};

/// Writes values.size() codes.
void EvenCodes(absl::Span<const float> values, const EvenSteps& steps,
               uint8_t* codes);

/// The sum of (t - code)^2: over 4,096 values in 16 lanes of fp32, value i in
/// lane i % 16, then a fixed tree; these sums in double, in order.
double EvenError(absl::Span<const float> values, const EvenSteps& steps);

/// values[i] = codes[i] * scale + bias. `scale` and `bias` are bf16 numbers:
/// the product is exact.
void EvenValues(const uint8_t* codes, float scale, float bias,
                absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_EVEN_LEVELS_H_
