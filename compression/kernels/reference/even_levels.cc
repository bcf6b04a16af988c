#include "compression/kernels/reference/even_levels.h"

#include <algorithm>
#include <cmath>

namespace deltapipe {
namespace reference {
namespace {

float Position(float value, const EvenSteps& steps) {
  return (value * steps.shrink - steps.bias) * steps.inverse;
}

float Code(float position) {
  return std::nearbyint(std::min(std::max(position, 0.0f), 15.0f));
}

}  // namespace

ValueRange RangeOfValues(absl::Span<const float> values) {
  ValueRange range;
  if (values.empty()) return range;
  range.low = range.high = values[0];
  for (const float value : values) {
    range.all_finite &= std::isfinite(value);
    range.low = std::min(range.low, value);
    range.high = std::max(range.high, value);
  }
  // -0 to 0.
  range.low += 0.0f;
  range.high += 0.0f;
  return range;
}

void EvenCodes(absl::Span<const float> values, const EvenSteps& steps,
               uint8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<uint8_t>(Code(Position(values[i], steps)));
  }
}

double EvenError(absl::Span<const float> values, const EvenSteps& steps) {
  constexpr size_t kChunk = 4096;
  double sum = 0;
  for (; !values.empty();
       values.remove_prefix(std::min(values.size(), kChunk))) {
    const auto chunk = values.first(std::min(values.size(), kChunk));
    float lanes[16] = {};
    for (size_t i = 0; i < chunk.size(); ++i) {
      const float position = Position(chunk[i], steps);
      const float error = position - Code(position);
      lanes[i % 16] += error * error;
    }
    for (int width = 8; width >= 1; width /= 2) {
      for (int lane = 0; lane < width; ++lane) {
        lanes[lane] += lanes[lane + width];
      }
    }
    sum += lanes[0];
  }
  return sum;
}

void EvenValues(const uint8_t* codes, float scale, float bias,
                absl::Span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(codes[i]) * scale + bias;
  }
}

}  // namespace reference
}  // namespace deltapipe
