// exp and the normal distribution by plain double operations, the same on every
// machine: for what decides bytes, where a C library's own would not do.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_PORTABLE_MATH_H_
#define DELTAPIPE_COMPRESSION_KERNELS_PORTABLE_MATH_H_

#include <cmath>

#include "base/host_device.h"

namespace deltapipe {

constexpr double kLn2 = 0.6931471805599453;

/// e^x, relatively to within 1e-14 for |x| <= 1 and 2e-13 elsewhere; x is
/// clamped to -700..700.
DP_HOST_DEVICE inline double PortableExp(double x) {
  x = x < -700 ? -700 : x > 700 ? 700 : x;
  const double k = std::floor(x / kLn2 + 0.5);
  const double r = x - k * kLn2;
  // Taylor's series for |r| <= ln(2) / 2.
  double sum = 1;
  for (int i = 14; i >= 1; --i) sum = 1 + sum * r / i;
  return std::ldexp(sum, static_cast<int>(k));
}

/// The standard normal density.
DP_HOST_DEVICE inline double NormalDensity(double x) {
  return 0.3989422804014327 * PortableExp(-x * x / 2);
}

/// The standard normal distribution function to within 7.5e-8: Abramowitz and
/// Stegun, 26.2.17.
DP_HOST_DEVICE inline double NormalDistribution(double x) {
  const double t = 1 / (1 + 0.2316419 * std::fabs(x));
  const double p =
      t * (0.319381530 +
           t * (-0.356563782 +
                t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const double tail = NormalDensity(x) * p;
  return x < 0 ? tail : 1 - tail;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_PORTABLE_MATH_H_
