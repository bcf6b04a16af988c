#include "compression/kernels/reference/int_quantize.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/int_quantize.h"

namespace deltapipe {
namespace reference {
namespace {

constexpr uint32_t kInfinityBits = 0x7F800000u;

float SumLanes(const std::array<float, 16>& lanes) {
  std::array<float, 16> sums = lanes;
  for (int width = 8; width >= 1; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

// The block's values followed by zeros up to the block's size.
std::vector<float> PaddedBlock(const IntFormat& format,
                               absl::Span<const float> in, size_t begin) {
  std::vector<float> values(format.block, 0.0f);
  const auto part = in.subspan(begin, format.block);
  std::copy(part.begin(), part.end(), values.begin());
  return values;
}

float NearestLevel(const IntScale& scale, float t) {
  return std::nearbyint(std::min(std::max(t, scale.low), scale.high));
}

float SquaredError(const IntScale& scale, const std::vector<float>& values) {
  std::array<float, 16> lanes{};
  for (size_t i = 0; i < values.size(); ++i) {
    const float t = values[i] * scale.inverse + scale.center;
    const float error = t - NearestLevel(scale, t);
    lanes[i % 16] += error * error;
  }
  return SumLanes(lanes);
}

float MeanMagnitude(const std::vector<float>& values, size_t count) {
  const float weight = 1.0f / static_cast<float>(count);
  std::array<float, 16> lanes{};
  for (size_t i = 0; i < values.size(); ++i) {
    lanes[i % 16] += std::fabs(values[i]) * weight;
  }
  return SumLanes(lanes);
}

float RootMeanSquare(float block_max, const std::vector<float>& values,
                     size_t count) {
  const float largest = std::max(block_max, FLT_MIN);
  const float inverse = 1.0f / largest;
  const float weight = 1.0f / static_cast<float>(count);
  std::array<float, 16> lanes{};
  for (size_t i = 0; i < values.size(); ++i) {
    const float part = values[i] * inverse;
    lanes[i % 16] += part * part * weight;
  }
  return largest * std::sqrt(SumLanes(lanes));
}

float Spread(const IntFormat& format, float block_max,
             const std::vector<float>& values, size_t count) {
  if (format.model == IntClipModel::kGauss) {
    return RootMeanSquare(block_max, values, count);
  }
  return format.bits == 1 || format.model == IntClipModel::kLaplace
             ? MeanMagnitude(values, count)
             : 0.0f;
}

IntScale ChooseScale(const IntFormat& format, const IntUnits& units,
                     const std::vector<float>& values, size_t count) {
  const float block_max = BitsToFloat(LargestMagnitudeBits(values));
  const bool positive_max =
      std::find(values.begin(), values.end(), -block_max) == values.end();
  std::array<IntScale, kIntMaxCandidates> scales;
  const int num_scales =
      ListIntScales(format, units, block_max, positive_max,
                    Spread(format, block_max, values, count), scales.data());
  if (num_scales == 1) return scales[0];
  int best = 0;
  float best_error = 0;
  for (int i = 0; i < num_scales; ++i) {
    const float error =
        IntWeightedError(scales[0], scales[i], SquaredError(scales[i], values));
    if (i == 0 || error < best_error) {
      best = i;
      best_error = error;
    }
  }
  return scales[best];
}

uint32_t RandomWord(const RandomKey& key, size_t element) {
  const uint32_t group = static_cast<uint32_t>(element / 64);
  const uint32_t lane = static_cast<uint32_t>(element % 16);
  const PhiloxBlock block =
      Philox4x32(key.PhiloxCounter(16 * group + lane), key.PhiloxKey());
  return block[element % 64 / 16];
}

float StochasticLevel(const IntFormat& format, const IntScale& scale, float x,
                      uint32_t word) {
  const float half_range = static_cast<float>(1 << (format.bits - 1));
  const float y = x * scale.inverse - (half_range - scale.center);
  const float floor = std::floor(y);
  const float up = UniformFloat(word) < y - floor ? 1.0f : 0.0f;
  return std::min(std::max(floor + half_range + up, scale.low), scale.high);
}

void PutCode(uint32_t code, int bits, size_t element, uint8_t* codes) {
  for (int bit = 0; bit < bits; ++bit) {
    const size_t position = element * bits + bit;
    codes[position / 8] |=
        static_cast<uint8_t>((code >> bit & 1) << (position % 8));
  }
}

uint32_t GetCode(const uint8_t* codes, int bits, size_t element) {
  uint32_t code = 0;
  for (int bit = 0; bit < bits; ++bit) {
    const size_t position = element * bits + bit;
    code |= static_cast<uint32_t>(codes[position / 8] >> (position % 8) & 1)
            << bit;
  }
  return code;
}

// How many blocks have their largest magnitude in each exponent field of fp32;
// blocks of zeros and those that are not finite do not count.
std::array<uint32_t, 256> CountBlockMaxima(const IntFormat& format,
                                           absl::Span<const float> in) {
  std::array<uint32_t, 256> maxima{};
  for (size_t begin = 0; begin < in.size(); begin += format.block) {
    const uint32_t bits = LargestMagnitudeBits(in.subspan(begin, format.block));
    if (bits == 0 || bits >= kInfinityBits) continue;
    ++maxima[bits >> 23];
  }
  return maxima;
}

// Of the largest and of the (lower) median.
int ChooseWindow(const IntFormat& format,
                 const std::array<uint32_t, 256>& maxima) {
  const int64_t total =
      std::accumulate(maxima.begin(), maxima.end(), int64_t{0});
  if (total == 0) return 0;
  int largest = 254;
  while (maxima[largest] == 0) --largest;
  int median = 0;
  for (int64_t seen = maxima[0]; 2 * seen < total;) {
    seen += maxima[++median];
  }
  return IntWindow(format, largest, median);
}

}  // namespace

uint32_t LargestMagnitudeBits(absl::Span<const float> values) {
  uint32_t largest = 0;
  for (const float value : values) {
    largest = std::max(largest, FloatBits(value) & 0x7FFFFFFFu);
  }
  return largest;
}

void IntQuantizeBlocks(const IntFormat& format, const IntUnits& units,
                       absl::Span<const float> in, const RandomKey& key,
                       size_t begin, uint8_t* scales, uint8_t* codes) {
  std::fill(codes, codes + IntCodeBytes(format, in.size()), 0);
  for (size_t at = 0; at < in.size(); at += format.block) {
    const std::vector<float> values = PaddedBlock(format, in, at);
    const size_t count = std::min<size_t>(format.block, in.size() - at);
    uint8_t& scale_code = scales[at / format.block];
    const uint32_t largest = LargestMagnitudeBits(values);
    if (largest == 0 || largest >= kInfinityBits) {
      scale_code = largest == 0 ? kIntScaleZero : kIntScaleNonFinite;
      continue;
    }
    const IntScale scale = ChooseScale(format, units, values, count);
    scale_code = scale.code;
    for (size_t i = 0; i < count; ++i) {
      const float level =
          format.is_stochastic
              ? StochasticLevel(format, scale, values[i],
                                RandomWord(key, begin + at + i))
              : NearestLevel(scale, values[i] * scale.inverse + scale.center);
      PutCode(static_cast<uint32_t>(level), format.bits, at + i, codes);
    }
  }
}

void IntDequantizeBlocks(const IntFormat& format, const IntUnits& units,
                         const uint8_t* scales, const uint8_t* codes,
                         absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const uint8_t scale_code = scales[i / format.block];
    const int magnitude = scale_code & kIntScaleMagnitude;
    if (magnitude == kIntScaleZero) {
      out[i] = 0;
    } else if (magnitude == kIntScaleNonFinite) {
      out[i] = std::numeric_limits<float>::quiet_NaN();
    } else {
      const IntScale scale = IntScaleOf(format, units, scale_code);
      const float code = static_cast<float>(GetCode(codes, format.bits, i));
      const float level = code * scale.multiplier - scale.offset;
      out[i] = std::min(std::max(level * scale.unit, -FLT_MAX), FLT_MAX);
    }
  }
}

void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload) {
  if (in.empty()) return;
  const int window = ChooseWindow(format, CountBlockMaxima(format, in));
  payload[0] = static_cast<uint8_t>(window);
  uint8_t* const scales = payload + 1;
  IntQuantizeBlocks(format, IntUnits(window), in, key, 0, scales,
                    scales + IntNumBlocks(format, in.size()));
}

void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out) {
  if (out.empty()) return;
  const uint8_t* const scales = payload + 1;
  IntDequantizeBlocks(format, IntUnits(payload[0]), scales,
                      scales + IntNumBlocks(format, out.size()), out);
}

}  // namespace reference
}  // namespace deltapipe
