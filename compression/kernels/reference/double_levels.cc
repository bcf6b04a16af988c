#include "compression/kernels/reference/double_levels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/philox.h"

namespace deltapipe {
namespace reference {
namespace {

double Clamp(double x, double low, double high) {
  return std::min(std::max(x, low), high);
}

double Position(float value, const DoubleSteps& steps) {
  return (value - steps.base) * steps.inverse;
}

double NearestCode(double position, const DoubleSteps& steps) {
  return std::nearbyint(Clamp(position, steps.low, steps.high));
}

}  // namespace

void DoubleCodes(absl::Span<const float> values, const DoubleSteps& steps,
                 uint8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] =
        static_cast<uint8_t>(NearestCode(Position(values[i], steps), steps));
  }
}

void DoubleStochasticCodes(absl::Span<const float> values,
                           const DoubleSteps& steps, const uint32_t* words,
                           uint8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const double t = Clamp(Position(values[i], steps), steps.low, steps.high);
    const double floor = std::floor(t);
    const double up = UniformFloat(words[i]) < t - floor ? 1 : 0;
    codes[i] = static_cast<uint8_t>(floor + up);
  }
}

double DoubleError(absl::Span<const float> values, const DoubleSteps& steps) {
  double lanes[8] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    const double t = Position(values[i], steps);
    const double error = t - NearestCode(t, steps);
    lanes[i % 8] += error * error;
  }
  return SumOfEight(lanes);
}

void DoubleValues(const uint8_t* codes, double base, double step,
                  absl::Span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(
        Clamp(base + codes[i] * step, -double{FLT_MAX}, double{FLT_MAX}));
  }
}

}  // namespace reference
}  // namespace deltapipe
