#include "compression/kernels/int_quantize.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/reference/int_quantize.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/int_quantize.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// Highway's own order: after highway.h.
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/philox_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

void Quantize(const IntFormat& format, absl::Span<const float> in,
              const RandomKey& key, uint8_t* payload) {
  reference::IntQuantize(format, in, key, payload);
}

void Dequantize(const IntFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  reference::IntDequantize(format, payload, out);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 16;
constexpr size_t kMaxBlock = 4096;

using FloatTag = hn::CappedTag<float, kLanes>;
using IntTag = hn::RebindToSigned<FloatTag>;
using UnsignedTag = hn::RebindToUnsigned<FloatTag>;

struct BlockRange {
  uint32_t largest_bits;  // of the magnitudes
  bool positive_max;      // no element equals -largest
};

// The largest magnitude's bits twice, plus 1 if a negative value has it.
uint32_t LargestOf(const float* HWY_RESTRICT values, size_t count) {
  const FloatTag d;
  const UnsignedTag du;
  const size_t n = hn::Lanes(d);
  auto largest = hn::Zero(du);
  for (size_t i = 0; i < count; i += n) {
    const auto bits = hn::BitCast(du, hn::LoadU(d, values + i));
    const auto sign = hn::ShiftRight<31>(bits);
    largest = hn::Max(largest, hn::Or(hn::Add(bits, bits), sign));
  }
  // `sign` is 1 for negative values: of equal magnitudes a negative one wins.
  return hn::GetLane(hn::MaxOfLanes(du, largest));
}

BlockRange RangeOf(uint32_t largest) {
  return {largest >> 1, (largest & 1) == 0};
}

float SumLanes(const float* HWY_RESTRICT lanes) {
  const hn::CappedTag<float, 4> d4;
  if (hn::Lanes(d4) == 4) {
    const auto low = hn::Add(hn::Load(d4, lanes), hn::Load(d4, lanes + 8));
    const auto high =
        hn::Add(hn::Load(d4, lanes + 4), hn::Load(d4, lanes + 12));
    HWY_ALIGN float sums[4];
    hn::Store(hn::Add(low, high), d4, sums);
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
  float sums[kLanes];
  std::copy(lanes, lanes + kLanes, sums);
  for (size_t width = kLanes / 2; width >= 1; width /= 2) {
    for (size_t i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

float SquaredError(const IntScale& scale, const float* HWY_RESTRICT values,
                   size_t block) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const auto inverse = hn::Set(d, scale.inverse);
  const auto center = hn::Set(d, scale.center);
  const auto low = hn::Set(d, scale.low);
  const auto high = hn::Set(d, scale.high);
  alignas(64) float lanes[kLanes];
  for (size_t column = 0; column < kLanes; column += n) {
    auto sum = hn::Zero(d);
    for (size_t i = column; i < block; i += kLanes) {
      const auto t =
          hn::Add(hn::Mul(hn::LoadU(d, values + i), inverse), center);
      const auto level = hn::Round(hn::Min(hn::Max(t, low), high));
      const auto error = hn::Sub(t, level);
      sum = hn::Add(sum, hn::Mul(error, error));
    }
    hn::Store(sum, d, lanes + column);
  }
  return SumLanes(lanes);
}

float MeanMagnitude(const float* HWY_RESTRICT values, size_t block,
                    size_t count) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const auto weight = hn::Set(d, 1.0f / static_cast<float>(count));
  alignas(64) float lanes[kLanes];
  for (size_t column = 0; column < kLanes; column += n) {
    auto sum = hn::Zero(d);
    for (size_t i = column; i < block; i += kLanes) {
      sum = hn::Add(sum, hn::Mul(hn::Abs(hn::LoadU(d, values + i)), weight));
    }
    hn::Store(sum, d, lanes + column);
  }
  return SumLanes(lanes);
}

float RootMeanSquare(float block_max, const float* HWY_RESTRICT values,
                     size_t block, size_t count) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const float largest = std::max(block_max, FLT_MIN);
  const auto inverse = hn::Set(d, 1.0f / largest);
  const auto weight = hn::Set(d, 1.0f / static_cast<float>(count));
  alignas(64) float lanes[kLanes];
  for (size_t column = 0; column < kLanes; column += n) {
    auto sum = hn::Zero(d);
    for (size_t i = column; i < block; i += kLanes) {
      const auto part = hn::Mul(hn::LoadU(d, values + i), inverse);
      sum = hn::Add(sum, hn::Mul(hn::Mul(part, part), weight));
    }
    hn::Store(sum, d, lanes + column);
  }
  return largest * std::sqrt(SumLanes(lanes));
}

float Spread(const IntFormat& format, float block_max, const float* values,
             size_t count) {
  if (format.model == IntClipModel::kGauss) {
    return RootMeanSquare(block_max, values, format.block, count);
  }
  return format.bits == 1 || format.model == IntClipModel::kLaplace
             ? MeanMagnitude(values, format.block, count)
             : 0.0f;
}

IntScale ChooseScale(const IntFormat& format, const IntUnits& units,
                     const BlockRange& range, const float* values,
                     size_t count) {
  IntScale scales[kIntMaxCandidates];
  const float block_max = BitsToFloat(range.largest_bits);
  const int num_scales =
      ListIntScales(format, units, block_max, range.positive_max,
                    Spread(format, block_max, values, count), scales);
  if (num_scales == 1) return scales[0];
  int best = 0;
  float best_error = 0;
  for (int i = 0; i < num_scales; ++i) {
    const float error = IntWeightedError(
        scales[0], scales[i], SquaredError(scales[i], values, format.block));
    if (i == 0 || error < best_error) {
      best = i;
      best_error = error;
    }
  }
  return scales[best];
}

void NearestCodes(const IntScale& scale, const float* HWY_RESTRICT values,
                  size_t block, uint8_t* HWY_RESTRICT codes) {
  const FloatTag d;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const size_t n = hn::Lanes(d);
  const auto inverse = hn::Set(d, scale.inverse);
  const auto center = hn::Set(d, scale.center);
  const auto low = hn::Set(d, scale.low);
  const auto high = hn::Set(d, scale.high);
  for (size_t i = 0; i < block; i += n) {
    const auto t = hn::Add(hn::Mul(hn::LoadU(d, values + i), inverse), center);
    const auto level = hn::NearestInt(hn::Min(hn::Max(t, low), high));
    hn::StoreU(hn::DemoteTo(d8, level), d8, codes + i);
  }
}

// The random words of the current 64 elements.
class RandomWords {
 public:
  explicit RandomWords(const RandomKey& key) : key_(key) {}

  // The words of the 16 elements from `element`, a multiple of 16.
  const uint32_t* Row(size_t element) {
    const uint32_t group = static_cast<uint32_t>(element / 64);
    if (group != group_ || is_empty_) {
      PhiloxWords(key_, 16 * group, words_);
      group_ = group;
      is_empty_ = false;
    }
    return words_ + element % 64;
  }

 private:
  const RandomKey key_;
  bool is_empty_ = true;
  uint32_t group_ = 0;
  alignas(64) uint32_t words_[64];
};

void StochasticCodes(const IntFormat& format, const IntScale& scale,
                     const float* HWY_RESTRICT values, size_t begin,
                     RandomWords& random, uint8_t* HWY_RESTRICT codes) {
  const FloatTag d;
  const IntTag di;
  const UnsignedTag du;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const size_t n = hn::Lanes(d);
  const float half_range = static_cast<float>(1 << (format.bits - 1));
  const auto inverse = hn::Set(d, scale.inverse);
  const auto shift = hn::Set(d, half_range - scale.center);
  const auto middle = hn::Set(d, half_range);
  const auto low = hn::Set(d, scale.low);
  const auto high = hn::Set(d, scale.high);
  const auto one = hn::Set(d, 1.0f);
  const auto unit_of_word = hn::Set(d, 0x1.0p-24f);
  for (size_t row = 0; row < static_cast<size_t>(format.block); row += kLanes) {
    const uint32_t* words = random.Row(begin + row);
    for (size_t i = 0; i < kLanes; i += n) {
      const auto word = hn::ShiftRight<8>(hn::Load(du, words + i));
      const auto uniform =
          hn::Mul(hn::ConvertTo(d, hn::BitCast(di, word)), unit_of_word);
      const auto y =
          hn::Sub(hn::Mul(hn::LoadU(d, values + row + i), inverse), shift);
      const auto floor = hn::Floor(y);
      const auto up =
          hn::IfThenElseZero(hn::Lt(uniform, hn::Sub(y, floor)), one);
      const auto level = hn::Add(hn::Add(floor, middle), up);
      const auto code = hn::ConvertTo(di, hn::Min(hn::Max(level, low), high));
      hn::StoreU(hn::DemoteTo(d8, code), d8, codes + row + i);
    }
  }
}

// Walks the blocks; a short last one is copied and filled up with zeros.
class Blocks {
 public:
  Blocks(const IntFormat& format, absl::Span<const float> in)
      : block_(format.block), in_(in) {}

  size_t size() const { return (in_.size() + block_ - 1) / block_; }
  size_t Begin(size_t index) const { return index * block_; }
  size_t Count(size_t index) const {
    return std::min(block_, in_.size() - Begin(index));
  }
  const float* Values(size_t index) {
    const size_t count = Count(index);
    if (count == block_) return in_.data() + Begin(index);
    std::memcpy(padded_, in_.data() + Begin(index), count * sizeof(float));
    std::fill(padded_ + count, padded_ + block_, 0.0f);
    return padded_;
  }

 private:
  const size_t block_;
  const absl::Span<const float> in_;
  alignas(64) float padded_[kMaxBlock];
};

// Keeps LargestOf each whole block where its codes will be, if there is room,
// until those of the block before it are written: the second pass needs it.
class KeptRanges {
 public:
  KeptRanges(const IntFormat& format, Blocks& blocks, uint8_t* packed)
      : block_(format.block),
        block_bytes_(format.block * format.bits / 8),
        blocks_(blocks),
        packed_(packed) {}

  uint32_t Measure(size_t index) {
    const uint32_t largest = LargestOf(blocks_.Values(index), block_);
    if (IsKept(index)) {
      std::memcpy(packed_ + index * block_bytes_, &largest, sizeof(largest));
    }
    return largest;
  }
  /// 0 past the last block.
  uint32_t Get(size_t index) {
    if (index >= blocks_.size()) return 0;
    if (!IsKept(index)) return LargestOf(blocks_.Values(index), block_);
    uint32_t largest;
    std::memcpy(&largest, packed_ + index * block_bytes_, sizeof(largest));
    return largest;
  }

 private:
  bool IsKept(size_t index) const {
    // PackCodes overwrites up to 7 bytes of what comes next.
    return block_bytes_ >= 8 && blocks_.Count(index) == block_;
  }

  const size_t block_;
  const size_t block_bytes_;
  Blocks& blocks_;
  uint8_t* const packed_;
};

int ChooseWindow(const IntFormat& format, size_t num_blocks,
                 KeptRanges& ranges) {
  std::array<uint32_t, 256> histogram{};
  for (size_t index = 0; index < num_blocks; ++index) {
    const uint32_t bits = RangeOf(ranges.Measure(index)).largest_bits;
    if (bits != 0) ++histogram[bits >> 23];
  }
  int64_t total = 0;
  int largest = 0;
  for (int field = 0; field < 255; ++field) {
    total += histogram[field];
    if (histogram[field] != 0) largest = field;
  }
  if (total == 0) return 0;
  int median = 0;
  for (int64_t seen = histogram[0]; 2 * seen < total;) {
    seen += histogram[++median];
  }
  return IntWindow(format, largest, median);
}

// PackCodes<4> of a multiple of 32 codes.
void PackNibbles(const uint8_t* HWY_RESTRICT codes, size_t count,
                 uint8_t* HWY_RESTRICT out) {
  const hn::CappedTag<int16_t, kLanes> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  const hn::Rebind<uint8_t, decltype(d)> half;
  const size_t n = hn::Lanes(d);
  const auto low_byte = hn::Set(du, uint16_t{0xFF});
  for (size_t i = 0; i < count; i += 2 * n) {
    const auto pair = hn::BitCast(du, hn::LoadU(d8, codes + i));
    const auto both = hn::And(hn::Or(pair, hn::ShiftRight<4>(pair)), low_byte);
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(d, both)), half, out + i / 2);
  }
}

template <int kBits>
void QuantizeT(const IntFormat& format, absl::Span<const float> in,
               const RandomKey& key, uint8_t* HWY_RESTRICT payload) {
  IntFormat constant = format;
  constant.bits = kBits;
  Blocks blocks(format, in);
  uint8_t* const scales = payload + 1;
  uint8_t* const packed = scales + blocks.size();
  KeptRanges ranges(format, blocks, packed);
  const int window = ChooseWindow(format, blocks.size(), ranges);
  const IntUnits units(window);
  payload[0] = static_cast<uint8_t>(window);
  uint8_t* const end = packed + IntCodeBytes(format, in.size());
  RandomWords random(key);
  alignas(64) uint8_t codes[kMaxBlock];
  uint32_t next_largest = ranges.Get(0);
  for (size_t index = 0; index < blocks.size(); ++index) {
    const BlockRange range = RangeOf(next_largest);
    // Before this block's codes are written, which may spill over.
    next_largest = ranges.Get(index + 1);
    const float* values = blocks.Values(index);
    const size_t count = blocks.Count(index);
    const size_t begin = blocks.Begin(index);
    uint8_t* const out = packed + begin * kBits / 8;
    if (range.largest_bits == 0 || range.largest_bits >= 0x7F800000u) {
      scales[index] =
          range.largest_bits == 0 ? kIntScaleZero : kIntScaleNonFinite;
      std::memset(out, 0, (count * kBits + 7) / 8);
      continue;
    }
    const IntScale scale =
        constant.searches_clip
            ? ChooseScale(constant, units, range, values, count)
            : IntCoveringScale(constant, units,
                               BitsToFloat(range.largest_bits));
    scales[index] = scale.code;
    if (format.is_stochastic) {
      StochasticCodes(format, scale, values, begin, random, codes);
    } else {
      NearestCodes(scale, values, format.block, codes);
    }
    if (kBits == 4 && count % 32 == 0) {
      PackNibbles(codes, count, out);
    } else {
      PackCodes<kBits>(codes, count, out, end);
    }
  }
}

void DecodeLevels(const uint8_t* HWY_RESTRICT codes, float multiplier,
                  float offset, float unit, size_t count,
                  float* HWY_RESTRICT out) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const size_t n = hn::Lanes(d);
  const auto vector_multiplier = hn::Set(d, multiplier);
  const auto vector_offset = hn::Set(d, offset);
  const auto vector_unit = hn::Set(d, unit);
  const auto low = hn::Set(d, -FLT_MAX);
  const auto high = hn::Set(d, FLT_MAX);
  const auto decode = [&](size_t i) HWY_ATTR {
    const auto code =
        hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, codes + i)));
    const auto level = hn::Sub(hn::Mul(code, vector_multiplier), vector_offset);
    return hn::Min(hn::Max(hn::Mul(level, vector_unit), low), high);
  };
  size_t i = 0;
  for (; i + n <= count; i += n) hn::StoreU(decode(i), d, out + i);
  if (i < count) {
    alignas(64) float last[kLanes];
    hn::Store(decode(i), d, last);
    std::memcpy(out + i, last, (count - i) * sizeof(float));
  }
}

template <int kBits>
void DequantizeT(const IntFormat& format, const uint8_t* HWY_RESTRICT payload,
                 absl::Span<float> out) {
  const size_t num_blocks = IntNumBlocks(format, out.size());
  const uint8_t* const scales = payload + 1;
  const uint8_t* const packed = scales + num_blocks;
  const uint8_t* const end = packed + IntCodeBytes(format, out.size());
  const IntUnits units(payload[0]);
  alignas(64) uint8_t codes[kMaxBlock + 64];
  for (size_t index = 0; index < num_blocks; ++index) {
    const size_t begin = index * format.block;
    const size_t count = std::min<size_t>(format.block, out.size() - begin);
    float* const values = out.data() + begin;
    const uint8_t scale_code = scales[index];
    const int magnitude = scale_code & kIntScaleMagnitude;
    if (magnitude == kIntScaleZero || magnitude == kIntScaleNonFinite) {
      std::fill(values, values + count,
                magnitude == kIntScaleZero
                    ? 0.0f
                    : std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const IntScale scale = IntScaleOf(format, units, scale_code);
    UnpackCodes<kBits>(packed + begin * kBits / 8, end, count, codes);
    DecodeLevels(codes, scale.multiplier, scale.offset, scale.unit, count,
                 values);
  }
}

}  // namespace

void Quantize(const IntFormat& format, absl::Span<const float> in,
              const RandomKey& key, uint8_t* payload) {
  switch (format.bits) {
    case 1:
      return QuantizeT<1>(format, in, key, payload);
    case 2:
      return QuantizeT<2>(format, in, key, payload);
    case 3:
      return QuantizeT<3>(format, in, key, payload);
    case 4:
      return QuantizeT<4>(format, in, key, payload);
    case 5:
      return QuantizeT<5>(format, in, key, payload);
    case 6:
      return QuantizeT<6>(format, in, key, payload);
    case 7:
      return QuantizeT<7>(format, in, key, payload);
    default:
      return QuantizeT<8>(format, in, key, payload);
  }
}

void Dequantize(const IntFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  switch (format.bits) {
    case 1:
      return DequantizeT<1>(format, payload, out);
    case 2:
      return DequantizeT<2>(format, payload, out);
    case 3:
      return DequantizeT<3>(format, payload, out);
    case 4:
      return DequantizeT<4>(format, payload, out);
    case 5:
      return DequantizeT<5>(format, payload, out);
    case 6:
      return DequantizeT<6>(format, payload, out);
    case 7:
      return DequantizeT<7>(format, payload, out);
    default:
      return DequantizeT<8>(format, payload, out);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Quantize);
HWY_EXPORT(Dequantize);

void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload) {
  if (in.empty()) return;
  HWY_DYNAMIC_DISPATCH(Quantize)(format, in, key, payload);
}

void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out) {
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(Dequantize)(format, payload, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
