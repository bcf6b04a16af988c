#include "compression/kernels/int_quantize.h"

#include <algorithm>
#include <array>
#include <cfloat>
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
#include "compression/kernels/code_packing-inl.h"
#include "compression/kernels/int_clip_search-inl.h"
#include "compression/kernels/philox_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

using State = IntTileEncoder::State;

#if HWY_TARGET == HWY_SCALAR

void Measure(State& state, absl::Span<const float> tile) {
  reference::CountBlockMaxima(state.format, tile, &state.maxima);
  state.num_measured += tile.size();
}

void Encode(State& state, absl::Span<const float> tile, float* restored) {
  const size_t begin = state.num_encoded;
  uint8_t* const scales = state.scales + begin / state.format.block;
  uint8_t* const codes = state.packed + begin * state.format.bits / 8;
  reference::IntQuantizeBlocks(state.format, state.units, tile, state.key,
                               begin, scales, codes);
  if (restored != nullptr) {
    reference::IntDequantizeBlocks(state.format, state.units, scales, codes,
                                   absl::MakeSpan(restored, tile.size()));
  }
  state.num_encoded += tile.size();
}

void Dequantize(const IntFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  reference::IntDequantize(format, payload, out);
}

#else
namespace {

constexpr size_t kMaxBlock = 4096;

// The random words of the current 64 elements.
class RandomWords {
 public:
  explicit RandomWords(const RandomKey& key) : key_(key) {}

  // Those of the elements from `element` on, up to a multiple of 16.
  HWY_INLINE const uint32_t* From(size_t element) {
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

// A float of 0 to 255 plus this has it, rounded to nearest with ties to even,
// as its lowest bits: cheaper than a conversion, which heeds overflow.
constexpr float kBias = 0x1p23f;

// Values to codes, as floats plus kBias: to nearest.
class NearestLevels {
 public:
  HWY_INLINE explicit NearestLevels(const IntScale& scale)
      : inverse_(hn::Set(FloatTag(), scale.inverse)),
        center_(hn::Set(FloatTag(), scale.center)),
        low_(hn::Set(FloatTag(), scale.low)),
        high_(hn::Set(FloatTag(), scale.high)) {}

  HWY_INLINE hn::Vec<FloatTag> Of(hn::Vec<FloatTag> x, size_t /*i*/) const {
    const auto t = hn::Add(hn::Mul(x, inverse_), center_);
    return hn::Add(hn::Min(hn::Max(t, low_), high_),
                   hn::Set(FloatTag(), kBias));
  }

 private:
  const hn::Vec<FloatTag> inverse_, center_, low_, high_;
};

// Likewise, up with a probability equal to the fraction; element i of a block
// that begins at `begin` of the tensor.
class StochasticLevels {
 public:
  HWY_INLINE StochasticLevels(int bits, const IntScale& scale, size_t begin,
                              RandomWords& random)
      : random_(random),
        begin_(begin),
        inverse_(hn::Set(FloatTag(), scale.inverse)),
        shift_(hn::Set(FloatTag(),
                       static_cast<float>(1 << (bits - 1)) - scale.center)),
        middle_(hn::Set(FloatTag(), static_cast<float>(1 << (bits - 1)))),
        low_(hn::Set(FloatTag(), scale.low)),
        high_(hn::Set(FloatTag(), scale.high)) {}

  HWY_INLINE hn::Vec<FloatTag> Of(hn::Vec<FloatTag> x, size_t i) const {
    const FloatTag d;
    const UnsignedTag du;
    const auto word = hn::ShiftRight<8>(hn::Load(du, random_.From(begin_ + i)));
    const auto uniform = hn::Mul(hn::ConvertTo(d, hn::BitCast(IntTag(), word)),
                                 hn::Set(d, 0x1.0p-24f));
    const auto y = hn::Sub(hn::Mul(x, inverse_), shift_);
    const auto floor = hn::Floor(y);
    const auto up = hn::IfThenElseZero(hn::Lt(uniform, hn::Sub(y, floor)),
                                       hn::Set(d, 1.0f));
    const auto level = hn::Add(hn::Add(floor, middle_), up);
    return hn::Add(hn::Min(hn::Max(level, low_), high_), hn::Set(d, kBias));
  }

 private:
  RandomWords& random_;
  const size_t begin_;
  const hn::Vec<FloatTag> inverse_, shift_, middle_, low_, high_;
};

// Codes, as floats, to values.
class ValuesOfLevels {
 public:
  HWY_INLINE explicit ValuesOfLevels(const IntScale& scale)
      : multiplier_(hn::Set(FloatTag(), scale.multiplier)),
        offset_(hn::Set(FloatTag(), scale.offset)),
        unit_(hn::Set(FloatTag(), scale.unit)) {}

  HWY_INLINE hn::Vec<FloatTag> Of(hn::Vec<FloatTag> code) const {
    const FloatTag d;
    const auto level = hn::Sub(hn::Mul(code, multiplier_), offset_);
    return hn::Min(hn::Max(hn::Mul(level, unit_), hn::Set(d, -FLT_MAX)),
                   hn::Set(d, FLT_MAX));
  }

 private:
  const hn::Vec<FloatTag> multiplier_, offset_, unit_;
};

// A block of `count` values: its codes and, if kRestores, what they decode to.
// There are values up to the next multiple of 16.
template <int kBits, bool kRestores, class Levels>
HWY_INLINE void EncodeBlock(const Levels& levels, const IntScale& scale,
                            const float* values, size_t count, uint8_t* out,
                            uint8_t* end, float* restored) {
  const FloatTag d;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const ValuesOfLevels decoded(scale);
  // `values` and `restored` may be the same: each is read before it is written.
  const auto code = [&](size_t i) HWY_ATTR {
    const auto biased = levels.Of(hn::LoadU(d, values + i), i);
    if (kRestores) {
      const auto level = hn::Sub(biased, hn::Set(d, kBias));
      StoreFirst(d, decoded.Of(level), count - i, restored + i);
    }
    return hn::And(hn::BitCast(UnsignedTag(), biased),
                   hn::Set(UnsignedTag(), 0xFFu));
  };
  constexpr size_t kAtOnce = 4 * kVector;
  if (kBits == 4 && count % kAtOnce == 0) {
    for (size_t i = 0; i < count; i += kAtOnce) {
      const auto codes0 = code(i);
      const auto codes1 = code(i + kVector);
      const auto codes2 = code(i + 2 * kVector);
      const auto codes3 = code(i + 3 * kVector);
      PackNibblesOf(UnsignedTag(), codes0, codes1, codes2, codes3, out + i / 2);
    }
    return;
  }
  alignas(64) uint8_t codes[kMaxBlock];
  for (size_t i = 0; i < count; i += kVector) {
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(IntTag(), code(i))), d8, codes + i);
  }
  PackBlock<kBits>(codes, count, out, end);
}

// Where LargestOf each whole block is kept, if there is room: where its codes
// will be, until those of the block before it are written.
class KeptMaxima {
 public:
  explicit KeptMaxima(const State& state)
      : block_(state.format.block),
        block_bytes_(block_ * state.format.bits / 8),
        num_elements_(state.num_elements),
        packed_(state.packed) {}

  bool Has(size_t index) const {
    // PackCodes overwrites up to 7 bytes of what comes next.
    return block_bytes_ >= 8 && (index + 1) * block_ <= num_elements_;
  }
  void Keep(size_t index, uint32_t largest) const {
    std::memcpy(packed_ + index * block_bytes_, &largest, sizeof(largest));
  }
  uint32_t Get(size_t index) const {
    uint32_t largest;
    std::memcpy(&largest, packed_ + index * block_bytes_, sizeof(largest));
    return largest;
  }

 private:
  const size_t block_;
  const size_t block_bytes_;
  const size_t num_elements_;
  uint8_t* const packed_;
};

// Blocks of one tile; a short last one is copied and filled up with zeros.
class Blocks {
 public:
  Blocks(const IntFormat& format, absl::Span<const float> tile)
      : block_(format.block), tile_(tile) {}

  size_t size() const { return (tile_.size() + block_ - 1) / block_; }
  size_t Begin(size_t index) const { return index * block_; }
  size_t Count(size_t index) const {
    return std::min(block_, tile_.size() - Begin(index));
  }
  const float* Values(size_t index) {
    const size_t count = Count(index);
    if (count == block_) return tile_.data() + Begin(index);
    std::memcpy(padded_, tile_.data() + Begin(index), count * sizeof(float));
    std::fill(padded_ + count, padded_ + block_, 0.0f);
    return padded_;
  }

 private:
  const size_t block_;
  const absl::Span<const float> tile_;
  alignas(64) float padded_[kMaxBlock];
};

template <int kBits, bool kRestores>
void EncodeT(State& state, absl::Span<const float> tile, float* restored) {
  IntFormat format = state.format;
  format.bits = kBits;
  // Copies: bytes written to the payload could be parts of `state`.
  const IntUnits units = state.units;
  uint8_t* const end = state.end;
  const size_t tile_begin = state.num_encoded;
  const size_t first = tile_begin / format.block;
  uint8_t* const scales = state.scales + first;
  uint8_t* const packed = state.packed + tile_begin * kBits / 8;
  const KeptMaxima maxima(state);
  Blocks blocks(format, tile);
  RandomWords random(state.key);
  bool has_largest = state.has_next_largest;
  uint32_t next_largest = state.next_largest;
  for (size_t index = 0; index < blocks.size(); ++index) {
    const float* const values = blocks.Values(index);
    const size_t count = blocks.Count(index);
    const size_t begin = blocks.Begin(index);
    const BlockRange range =
        RangeOf(has_largest ? next_largest : LargestOf(values, format.block));
    // Before this block's codes are written, which may spill over.
    has_largest = maxima.Has(first + index + 1);
    if (has_largest) next_largest = maxima.Get(first + index + 1);
    uint8_t* const out = packed + begin * kBits / 8;
    float* const block_restored = kRestores ? restored + begin : nullptr;
    if (range.largest_bits == 0 || range.largest_bits >= 0x7F800000u) {
      const bool is_zero = range.largest_bits == 0;
      scales[index] = is_zero ? kIntScaleZero : kIntScaleNonFinite;
      std::memset(out, 0, (count * kBits + 7) / 8);
      if (kRestores) {
        std::fill(block_restored, block_restored + count,
                  is_zero ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      }
      continue;
    }
    const IntScale scale = ChooseScale(format, units, range, values, count);
    scales[index] = scale.code;
    if (format.is_stochastic) {
      EncodeBlock<kBits, kRestores>(
          StochasticLevels(kBits, scale, tile_begin + begin, random), scale,
          values, count, out, end, block_restored);
    } else {
      EncodeBlock<kBits, kRestores>(NearestLevels(scale), scale, values, count,
                                    out, end, block_restored);
    }
  }
  state.has_next_largest = has_largest;
  state.next_largest = next_largest;
  state.num_encoded += tile.size();
}

void DecodeCodes(const IntScale& scale, const uint8_t* HWY_RESTRICT codes,
                 size_t count, float* HWY_RESTRICT out) {
  const FloatTag d;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const ValuesOfLevels decoded(scale);
  for (size_t i = 0; i < count; i += kVector) {
    const auto code =
        hn::ConvertTo(d, hn::PromoteTo(IntTag(), hn::LoadU(d8, codes + i)));
    StoreFirst(d, decoded.Of(code), count - i, out + i);
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
    UnpackBlock<kBits>(packed + begin * kBits / 8, end, count, codes);
    DecodeCodes(scale, codes, count, values);
  }
}

}  // namespace

void Measure(State& state, absl::Span<const float> tile) {
  Blocks blocks(state.format, tile);
  const KeptMaxima maxima(state);
  const size_t block = state.format.block;
  const size_t first = state.num_measured / block;
  for (size_t index = 0; index < blocks.size(); ++index) {
    const uint32_t largest = LargestOf(blocks.Values(index), block);
    const uint32_t bits = RangeOf(largest).largest_bits;
    if (bits != 0) ++state.maxima[bits >> 23];
    if (maxima.Has(first + index)) maxima.Keep(first + index, largest);
  }
  state.num_measured += tile.size();
}

void Encode(State& state, absl::Span<const float> tile, float* restored) {
  const KeptMaxima maxima(state);
  if (state.num_encoded == 0 && maxima.Has(0)) {
    state.has_next_largest = true;
    state.next_largest = maxima.Get(0);
  }
  DispatchBits(state.format.bits, [&](auto bits) {
    restored == nullptr
        ? EncodeT<decltype(bits)::value, false>(state, tile, nullptr)
        : EncodeT<decltype(bits)::value, true>(state, tile, restored);
  });
}

void Dequantize(const IntFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  DispatchBits(format.bits, [&](auto bits) {
    DequantizeT<decltype(bits)::value>(format, payload, out);
  });
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Measure);
HWY_EXPORT(Encode);
HWY_EXPORT(Dequantize);

namespace {

// The fields of the largest and of the (lower) median block maximum, over the
// blocks that are finite and not zero.
int ChooseWindow(const IntFormat& format,
                 const std::array<uint32_t, 256>& maxima) {
  int64_t total = 0;
  int largest = 0;
  for (int field = 0; field < 255; ++field) {
    total += maxima[field];
    if (maxima[field] != 0) largest = field;
  }
  if (total == 0) return 0;
  int median = 0;
  for (int64_t seen = maxima[0]; 2 * seen < total;) {
    seen += maxima[++median];
  }
  return IntWindow(format, largest, median);
}

}  // namespace

IntTileEncoder::IntTileEncoder(const IntFormat& format, int64_t num_elements,
                               const RandomKey& key, uint8_t* payload)
    : state_{format, key, static_cast<size_t>(num_elements), payload} {
  state_.scales = payload + 1;
  state_.packed = state_.scales + IntNumBlocks(format, num_elements);
  state_.end = state_.packed + IntCodeBytes(format, num_elements);
}

void IntTileEncoder::Measure(absl::Span<const float> tile) {
  if (tile.empty()) return;
  HWY_DYNAMIC_DISPATCH(Measure)(state_, tile);
}

void IntTileEncoder::Encode(absl::Span<const float> tile, float* restored) {
  if (tile.empty()) return;
  if (state_.num_encoded == 0) {
    const int window = ChooseWindow(state_.format, state_.maxima);
    state_.payload[0] = static_cast<uint8_t>(window);
    state_.units = IntUnits(window);
  }
  HWY_DYNAMIC_DISPATCH(Encode)(state_, tile, restored);
}

void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload) {
  IntTileEncoder encoder(format, static_cast<int64_t>(in.size()), key, payload);
  encoder.Measure(in);
  encoder.Encode(in, nullptr);
}

void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out) {
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(Dequantize)(format, payload, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
