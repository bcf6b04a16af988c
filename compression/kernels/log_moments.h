// How the magnitudes of a tensor spread over octaves: what fits of the
// lognormal distribution need. Neural gradients are near it (Chmiel et al.,
// "Neural gradients are near-lognormal", ICLR 2021, arXiv 2006.08173).
//
// All sums are of integers, so that every order of adding gives the same.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_LOG_MOMENTS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_LOG_MOMENTS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/float_cast.h"
#include "base/host_device.h"

namespace deltapipe {

/// The unit of the logarithms, in octaves.
constexpr double kLog2Unit = 1.0 / 256;

/// log2(1 + f) = f + f (1 - f) (c0 + c1 f + c2 f^2) for 0 <= f < 1, to 1.3e-4:
/// a least squares fit.
constexpr float kLog2Coefficients[3] = {0.43837933f, -0.237501325f,
                                        0.080653158f};

/// log2 of a positive finite number in units of kLog2Unit, to within 0.6 units.
/// By a polynomial in single operations, the same on every machine.
DP_HOST_DEVICE inline int32_t Log2Units(float x) {
  uint32_t bits = FloatBits(x);
  int32_t exponent = -127;
  if (bits < 0x00800000u) {  // subnormal
    bits = FloatBits(x * 0x1p23f);
    exponent -= 23;
  }
  exponent += static_cast<int32_t>(bits >> 23);
  const float f = BitsToFloat((bits & 0x7FFFFFu) | 0x3F800000u) - 1;
  const float p = kLog2Coefficients[0] +
                  f * (kLog2Coefficients[1] + f * kLog2Coefficients[2]);
  const float fraction = f + f * (1 - f) * p;
  return 256 * exponent + static_cast<int32_t>(256 * fraction + 0.5f);
}

struct LogMoments {
  /// Of the finite values that are not 0.
  int64_t count = 0;
  int64_t sum = 0;
  /// Exact for fewer than 2^32 values.
  int64_t sum_squares = 0;

  /// Of log2 |x|, in octaves; 0 where `count` is.
  DP_HOST_DEVICE double Mean() const {
    if (count == 0) return 0;
    return static_cast<double>(sum) / static_cast<double>(count) * kLog2Unit;
  }
  /// The sum of squared distances from the mean, in squared octaves.
  DP_HOST_DEVICE double SquaredDeviations() const {
    if (count == 0) return 0;
    const double total = static_cast<double>(sum);
    const double deviations = static_cast<double>(sum_squares) -
                              total / static_cast<double>(count) * total;
    return (deviations > 0 ? deviations : 0.0) * (kLog2Unit * kLog2Unit);
  }
};

/// By the machine's best vector instructions; equal to
/// compression/kernels/reference/log_moments.h.
LogMoments LogMomentsOf(absl::Span<const float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_LOG_MOMENTS_H_
