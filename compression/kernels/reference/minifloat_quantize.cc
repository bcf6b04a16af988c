#include "compression/kernels/reference/minifloat_quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/minifloat_quantize.h"
#include "compression/kernels/random_stream.h"

namespace deltapipe {
namespace reference {
namespace {

// Adds to the bits of z what makes the dropped ones carry or not.
uint32_t RoundToNearest(const MinifloatFormat& format, uint32_t z) {
  const int dropped = format.dropped_bits();
  return z + (1u << (dropped - 1)) - 1 + (z >> dropped & 1);
}

uint32_t RoundStochastically(const MinifloatFormat& format, uint32_t z,
                             const RandomKey& key, int sample, size_t element) {
  const int shift = format.dropped_bits() - 16;
  z += MinifloatRandomBits(key, sample, element) << shift;
  const uint32_t dropped_mask = (1u << format.dropped_bits()) - 1;
  if ((z & dropped_mask) > dropped_mask + 1 - (1u << shift)) {
    z += MinifloatTieWord(key, sample, element) >> (32 - shift);
  }
  return z;
}

uint32_t Code(const MinifloatFormat& format, float inverse_scale, float x,
              const RandomKey& key, int sample, size_t element) {
  const float y = std::min(std::fabs(x) * inverse_scale, format.top());
  const uint32_t z = FloatBits(y + std::max(y, format.smallest_normal()));
  const uint32_t rounded =
      format.is_stochastic
          ? RoundStochastically(format, z, key, sample, element)
          : RoundToNearest(format, z);
  const uint32_t magnitude = (rounded >> format.dropped_bits()) - format.base();
  const uint32_t sign = FloatBits(x) >> 31;
  return magnitude == 0 ? 0 : magnitude | sign << (format.bits() - 1);
}

// In units of the scale.
float Level(const MinifloatFormat& format, uint32_t code) {
  const uint32_t sign = code >> (format.bits() - 1);
  const uint32_t magnitude = code & ((1u << (format.bits() - 1)) - 1);
  const float z =
      BitsToFloat((magnitude + format.base()) << format.dropped_bits());
  const float y = z - std::max(0.5f * z, format.smallest_normal());
  return sign != 0 ? -y : y;
}

uint32_t LargestMagnitudeBits(absl::Span<const float> values) {
  uint32_t largest = 0;
  for (const float value : values) {
    largest = std::max(largest, FloatBits(value) & 0x7FFFFFFFu);
  }
  return largest;
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

void QuantizeBlock(const MinifloatFormat& format, uint16_t scale,
                   absl::Span<const float> in, size_t begin,
                   const RandomKey& key, size_t num_elements, uint8_t* codes) {
  if (scale == kMinifloatScaleZero || scale == kMinifloatScaleNonFinite) return;
  const float inverse = 1.0f / BFloat16ToFloat(scale);
  for (int sample = 0; sample < format.num_samples; ++sample) {
    uint8_t* const out =
        codes + sample * MinifloatCodeBytes(format, num_elements);
    for (size_t i = 0; i < in.size(); ++i) {
      PutCode(Code(format, inverse, in[i], key, sample, begin + i),
              format.bits(), begin + i, out);
    }
  }
}

}  // namespace

uint32_t MinifloatRandomBits(const RandomKey& key, int sample, size_t element) {
  const RandomKey stream = StreamKey(key, 2 * sample);
  const uint32_t group = static_cast<uint32_t>(element / 128);
  const uint32_t lane = static_cast<uint32_t>(element % 16);
  const PhiloxBlock block =
      Philox4x32(stream.PhiloxCounter(16 * group + lane), stream.PhiloxKey());
  return block[element % 64 / 16] >> (16 * (element % 128 / 64)) & 0xFFFFu;
}

uint32_t MinifloatTieWord(const RandomKey& key, int sample, size_t element) {
  const RandomKey stream = StreamKey(key, 2 * sample + 1);
  const uint32_t counter = static_cast<uint32_t>(element / 4);
  return Philox4x32(stream.PhiloxCounter(counter),
                    stream.PhiloxKey())[element % 4];
}

void MinifloatQuantize(const MinifloatFormat& format,
                       absl::Span<const float> in, const RandomKey& key,
                       uint8_t* payload) {
  uint8_t* const codes = payload + 2 * MinifloatNumBlocks(format, in.size());
  std::fill(payload, payload + MinifloatPayloadBytes(format, in.size()), 0);
  const size_t block = format.block == 0 ? in.size() : format.block;
  for (size_t begin = 0; begin < in.size(); begin += block) {
    const auto values = in.subspan(begin, block);
    const uint16_t scale = MinifloatScale(format, LargestMagnitudeBits(values));
    std::memcpy(payload + begin / block * 2, &scale, sizeof(scale));
    QuantizeBlock(format, scale, values, begin, key, in.size(), codes);
  }
}

void MinifloatQuantizeInRange(const MinifloatFormat& format, float range,
                              absl::Span<const float> in, const RandomKey& key,
                              uint8_t* payload) {
  if (in.empty()) return;
  std::fill(payload, payload + MinifloatPayloadBytes(format, in.size()), 0);
  const uint16_t scale = MinifloatScale(format, FloatBits(range));
  std::memcpy(payload, &scale, sizeof(scale));
  QuantizeBlock(format, scale, in, 0, key, in.size(), payload + 2);
}

void MinifloatDequantize(const MinifloatFormat& format, const uint8_t* payload,
                         absl::Span<float> out) {
  const size_t block = format.block == 0 ? out.size() : format.block;
  const uint8_t* const codes =
      payload + 2 * MinifloatNumBlocks(format, out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t scale;
    std::memcpy(&scale, payload + i / block * 2, sizeof(scale));
    if (scale == kMinifloatScaleZero || scale == kMinifloatScaleNonFinite) {
      out[i] = scale == kMinifloatScaleZero
                   ? 0.0f
                   : std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    float sum = 0;
    for (int sample = 0; sample < format.num_samples; ++sample) {
      sum +=
          Level(format,
                GetCode(codes + sample * MinifloatCodeBytes(format, out.size()),
                        format.bits(), i));
    }
    const float mean = sum * (1.0f / static_cast<float>(format.num_samples));
    out[i] =
        std::min(std::max(mean * BFloat16ToFloat(scale), -FLT_MAX), FLT_MAX);
  }
}

}  // namespace reference
}  // namespace deltapipe
