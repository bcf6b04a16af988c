#include "compression/kernels/minifloat_quantize.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/random_stream.h"
#include "compression/kernels/reference/minifloat_quantize.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/minifloat_quantize.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// Highway's own order: after highway.h.
#include "compression/kernels/code_packing-inl.h"
#include "compression/kernels/philox_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

void Quantize(const MinifloatFormat& format, uint16_t fixed_scale,
              absl::Span<const float> in, const RandomKey& key,
              uint8_t* payload) {
  if (fixed_scale == kMinifloatScaleZero) {
    reference::MinifloatQuantize(format, in, key, payload);
  } else {
    // The scale times the top gives this scale again.
    reference::MinifloatQuantizeInRange(
        format, BFloat16ToFloat(fixed_scale) * format.top(), in, key, payload);
  }
}

void Dequantize(const MinifloatFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  reference::MinifloatDequantize(format, payload, out);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 16;
// Elements that are encoded or decoded at a time, a multiple of 16.
constexpr size_t kChunk = 1024;

using FloatTag = hn::CappedTag<float, kLanes>;
using IntTag = hn::RebindToSigned<FloatTag>;
using UnsignedTag = hn::RebindToUnsigned<FloatTag>;
using ByteTag = hn::Rebind<uint8_t, FloatTag>;

// The random words of the current 128 elements of one sample.
class RandomWords {
 public:
  RandomWords(const RandomKey& key, int sample)
      : key_(key), stream_(StreamKey(key, 2 * sample)), sample_(sample) {}

  // The words of the 16 elements from `element`, a multiple of 16, of which
  // they take the bits from 16 * Half(element) on.
  HWY_INLINE const uint32_t* Row(size_t element) {
    const uint32_t group = static_cast<uint32_t>(element / 128);
    if (group != group_ || is_empty_) {
      PhiloxWords(stream_, 16 * group, words_);
      group_ = group;
      is_empty_ = false;
    }
    return words_ + element % 64;
  }
  static int Half(size_t element) { return element % 128 / 64; }

  uint32_t TieWord(size_t element) const {
    return reference::MinifloatTieWord(key_, sample_, element);
  }

 private:
  const RandomKey key_;
  const RandomKey stream_;
  const int sample_;
  bool is_empty_ = true;
  uint32_t group_ = 0;
  alignas(64) uint32_t words_[64];
};

// The rare lanes where 16 random bits do not decide.
HWY_NOINLINE void BreakTies(const MinifloatFormat& format,
                            const RandomWords& random, size_t element, size_t n,
                            uint32_t* bits) {
  const int shift = format.dropped_bits() - 16;
  const uint32_t mask = (1u << format.dropped_bits()) - 1;
  for (size_t i = 0; i < n; ++i) {
    if ((bits[i] & mask) > mask + 1 - (1u << shift)) {
      bits[i] += random.TieWord(element + i) >> (32 - shift);
    }
  }
}

// Codes of `count` values, a multiple of 16; the first one is `element`.
template <bool kIsStochastic>
void Codes(const MinifloatFormat& format, float inverse_scale,
           const float* HWY_RESTRICT values, size_t count, size_t element,
           RandomWords& random, uint8_t* HWY_RESTRICT codes) {
  const FloatTag d;
  const IntTag di;
  const UnsignedTag du;
  const ByteTag d8;
  const size_t n = hn::Lanes(d);
  const int dropped = format.dropped_bits();
  const int shift = dropped - 16;
  const auto inverse = hn::Set(d, inverse_scale);
  const auto top = hn::Set(d, format.top());
  const auto smallest_normal = hn::Set(d, format.smallest_normal());
  const auto base = hn::Set(du, format.base());
  const auto one = hn::Set(du, 1u);
  const auto half = hn::Set(du, (1u << (dropped - 1)) - 1);
  const auto word_mask = hn::Set(du, 0xFFFFu);
  const auto dropped_mask = hn::Set(du, (1u << dropped) - 1);
  const auto tie_limit = hn::Set(du, (1u << dropped) - (1u << shift));
  const auto sign_bit = hn::Set(du, 1u << (format.bits() - 1));
  for (size_t row = 0; row < count; row += kLanes) {
    const uint32_t* const words =
        kIsStochastic ? random.Row(element + row) : nullptr;
    const int word_shift = 16 * RandomWords::Half(element + row);
    for (size_t i = 0; i < kLanes; i += n) {
      const auto x = hn::LoadU(d, values + row + i);
      const auto y = hn::Min(hn::Mul(hn::Abs(x), inverse), top);
      auto z = hn::BitCast(du, hn::Add(y, hn::Max(y, smallest_normal)));
      if (kIsStochastic) {
        const auto word = hn::And(
            hn::ShiftRightSame(hn::Load(du, words + i), word_shift), word_mask);
        z = hn::Add(z, hn::ShiftLeftSame(word, shift));
        const auto is_tie = hn::Gt(hn::And(z, dropped_mask), tie_limit);
        if (HWY_UNLIKELY(!hn::AllFalse(du, is_tie))) {
          alignas(64) uint32_t bits[kLanes];
          hn::Store(z, du, bits);
          BreakTies(format, random, element + row + i, n, bits);
          z = hn::Load(du, bits);
        }
      } else {
        const auto last = hn::And(hn::ShiftRightSame(z, dropped), one);
        z = hn::Add(hn::Add(z, half), last);
      }
      const auto magnitude = hn::Sub(hn::ShiftRightSame(z, dropped), base);
      const auto is_negative =
          hn::Ne(hn::ShiftRight<31>(hn::BitCast(du, x)), hn::Zero(du));
      const auto has_sign =
          hn::And(is_negative, hn::Ne(magnitude, hn::Zero(du)));
      const auto code =
          hn::Or(magnitude, hn::IfThenElseZero(has_sign, sign_bit));
      hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, code)), d8, codes + row + i);
    }
  }
}

void CodesOf(const MinifloatFormat& format, float inverse_scale,
             const float* values, size_t count, size_t element,
             RandomWords& random, uint8_t* codes) {
  if (format.is_stochastic) {
    Codes<true>(format, inverse_scale, values, count, element, random, codes);
  } else {
    Codes<false>(format, inverse_scale, values, count, element, random, codes);
  }
}

// The codes of one block, packed. `begin` is a multiple of 16.
template <int kBits>
void QuantizeBlock(const MinifloatFormat& format, uint16_t scale,
                   absl::Span<const float> in, size_t begin,
                   RandomWords& random, uint8_t* HWY_RESTRICT out,
                   const uint8_t* end) {
  if (scale == kMinifloatScaleZero || scale == kMinifloatScaleNonFinite) {
    std::memset(out, 0, (in.size() * kBits + 7) / 8);
    return;
  }
  const float inverse = 1.0f / BFloat16ToFloat(scale);
  alignas(64) uint8_t codes[kChunk];
  for (size_t i = 0; i < in.size(); i += kChunk) {
    const size_t count = std::min(kChunk, in.size() - i);
    const size_t whole = count / kLanes * kLanes;
    CodesOf(format, inverse, in.data() + i, whole, begin + i, random, codes);
    if (whole < count) {
      alignas(64) float last[kLanes] = {};
      std::memcpy(last, in.data() + i + whole, (count - whole) * sizeof(float));
      CodesOf(format, inverse, last, kLanes, begin + i + whole, random,
              codes + whole);
    }
    PackBlock<kBits>(codes, count, out + i * kBits / 8, end);
  }
}

// In units of the scale, for `count` codes, up to the next multiple of 16;
// added to `sums`.
void AddLevels(const MinifloatFormat& format, const uint8_t* HWY_RESTRICT codes,
               size_t count, float* HWY_RESTRICT sums) {
  const FloatTag d;
  const IntTag di;
  const UnsignedTag du;
  const ByteTag d8;
  const size_t n = hn::Lanes(d);
  const int dropped = format.dropped_bits();
  const int sign_shift = 32 - format.bits();
  const auto smallest_normal = hn::Set(d, format.smallest_normal());
  const auto base = hn::Set(du, format.base());
  const auto magnitude_mask = hn::Set(du, (1u << (format.bits() - 1)) - 1);
  const auto sign_mask = hn::Set(du, 0x80000000u);
  const auto half = hn::Set(d, 0.5f);
  for (size_t i = 0; i < count; i += n) {
    const auto code =
        hn::BitCast(du, hn::PromoteTo(di, hn::LoadU(d8, codes + i)));
    const auto magnitude = hn::And(code, magnitude_mask);
    const auto z =
        hn::BitCast(d, hn::ShiftLeftSame(hn::Add(magnitude, base), dropped));
    const auto y = hn::Sub(z, hn::Max(hn::Mul(half, z), smallest_normal));
    const auto sign = hn::And(hn::ShiftLeftSame(code, sign_shift), sign_mask);
    const auto level = hn::Or(y, hn::BitCast(d, sign));
    hn::Store(hn::Add(hn::Load(d, sums + i), level), d, sums + i);
  }
}

void StoreMeans(const MinifloatFormat& format, float scale,
                const float* HWY_RESTRICT sums, size_t count,
                float* HWY_RESTRICT out) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const auto weight = hn::Set(d, 1.0f / static_cast<float>(format.num_samples));
  const auto vector_scale = hn::Set(d, scale);
  const auto low = hn::Set(d, -FLT_MAX);
  const auto high = hn::Set(d, FLT_MAX);
  const auto value = [&](size_t i) HWY_ATTR {
    const auto mean = hn::Mul(hn::Load(d, sums + i), weight);
    return hn::Min(hn::Max(hn::Mul(mean, vector_scale), low), high);
  };
  for (size_t i = 0; i < count; i += n) {
    StoreFirst(d, value(i), count - i, out + i);
  }
}

template <int kBits>
void DequantizeBlock(const MinifloatFormat& format, uint16_t scale,
                     const uint8_t* HWY_RESTRICT in, size_t sample_bytes,
                     const uint8_t* end, absl::Span<float> out) {
  if (scale == kMinifloatScaleZero || scale == kMinifloatScaleNonFinite) {
    std::fill(out.begin(), out.end(),
              scale == kMinifloatScaleZero
                  ? 0.0f
                  : std::numeric_limits<float>::quiet_NaN());
    return;
  }
  alignas(64) uint8_t codes[kChunk];
  alignas(64) float sums[kChunk];
  for (size_t i = 0; i < out.size(); i += kChunk) {
    const size_t count = std::min(kChunk, out.size() - i);
    // Vectors run up to 15 codes past the last one that is written.
    const size_t last_row = (count - 1) / kLanes * kLanes;
    std::memset(codes + last_row, 0, kLanes);
    std::memset(sums, 0, (last_row + kLanes) * sizeof(float));
    const uint8_t* sample = in + i * kBits / 8;
    for (int s = 0; s < format.num_samples; ++s, sample += sample_bytes) {
      UnpackBlock<kBits>(sample, end, count, codes);
      AddLevels(format, codes, count, sums);
    }
    StoreMeans(format, BFloat16ToFloat(scale), sums, count, out.data() + i);
  }
}

template <int kBits>
void QuantizeT(const MinifloatFormat& format, uint16_t fixed_scale,
               absl::Span<const float> in, const RandomKey& key,
               uint8_t* HWY_RESTRICT payload) {
  const size_t block = format.block == 0 ? in.size() : format.block;
  uint8_t* out = payload + 2 * MinifloatNumBlocks(format, in.size());
  for (int sample = 0; sample < format.num_samples; ++sample) {
    RandomWords random(key, sample);
    uint8_t* const end = out + MinifloatCodeBytes(format, in.size());
    for (size_t begin = 0; begin < in.size(); begin += block) {
      const auto values = in.subspan(begin, block);
      uint8_t* const stored = payload + begin / block * 2;
      uint16_t scale = fixed_scale;
      if (sample > 0) {
        std::memcpy(&scale, stored, sizeof(scale));
      } else {
        if (fixed_scale == kMinifloatScaleZero) {
          scale = MinifloatScale(format, LargestMagnitudeBits(values));
        }
        std::memcpy(stored, &scale, sizeof(scale));
      }
      QuantizeBlock<kBits>(format, scale, values, begin, random,
                           out + begin * kBits / 8, end);
    }
    out = end;
  }
}

template <int kBits>
void DequantizeT(const MinifloatFormat& format,
                 const uint8_t* HWY_RESTRICT payload, absl::Span<float> out) {
  const size_t block = format.block == 0 ? out.size() : format.block;
  const uint8_t* const codes =
      payload + 2 * MinifloatNumBlocks(format, out.size());
  const size_t sample_bytes = MinifloatCodeBytes(format, out.size());
  const uint8_t* const end = codes + format.num_samples * sample_bytes;
  for (size_t begin = 0; begin < out.size(); begin += block) {
    uint16_t scale;
    std::memcpy(&scale, payload + begin / block * 2, sizeof(scale));
    DequantizeBlock<kBits>(format, scale, codes + begin * kBits / 8,
                           sample_bytes, end, out.subspan(begin, block));
  }
}

}  // namespace

void Quantize(const MinifloatFormat& format, uint16_t fixed_scale,
              absl::Span<const float> in, const RandomKey& key,
              uint8_t* payload) {
  DispatchBits(format.bits(), [&](auto bits) {
    QuantizeT<decltype(bits)::value>(format, fixed_scale, in, key, payload);
  });
}

void Dequantize(const MinifloatFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  DispatchBits(format.bits(), [&](auto bits) {
    DequantizeT<decltype(bits)::value>(format, payload, out);
  });
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Quantize);
HWY_EXPORT(Dequantize);

void MinifloatQuantize(const MinifloatFormat& format,
                       absl::Span<const float> in, const RandomKey& key,
                       uint8_t* payload) {
  if (in.empty()) return;
  HWY_DYNAMIC_DISPATCH(Quantize)
  (format, kMinifloatScaleZero, in, key, payload);
}

void MinifloatQuantizeInRange(const MinifloatFormat& format, float range,
                              absl::Span<const float> in, const RandomKey& key,
                              uint8_t* payload) {
  if (in.empty()) return;
  HWY_DYNAMIC_DISPATCH(Quantize)
  (format, MinifloatScale(format, FloatBits(range)), in, key, payload);
}

void MinifloatDequantize(const MinifloatFormat& format, const uint8_t* payload,
                         absl::Span<float> out) {
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(Dequantize)(format, payload, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
