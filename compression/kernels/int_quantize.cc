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

// A block's values (up to the next multiple of 16), the first one's element,
// where its codes go and what they decode to.
struct BlockPlace {
  const float* values;
  size_t begin;
  uint8_t* out;
  uint8_t* end;
  float* restored;
};

// The codes of `count` values and, if kRestores, what they decode to.
template <int kBits, bool kRestores, class Levels>
HWY_INLINE void EncodeLevels(const Levels& levels, const IntScale& scale,
                             const BlockPlace& place, size_t count) {
  const FloatTag d;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const ValuesOfLevels decoded(scale);
  // `values` and `restored` may be the same: each is read before it is written.
  const auto code = [&](size_t i) HWY_ATTR {
    const auto biased = levels.Of(hn::LoadU(d, place.values + i), i);
    if (kRestores) {
      const auto level = hn::Sub(biased, hn::Set(d, kBias));
      StoreFirst(d, decoded.Of(level), count - i, place.restored + i);
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
      PackNibblesOf(UnsignedTag(), codes0, codes1, codes2, codes3,
                    place.out + i / 2);
    }
    return;
  }
  alignas(64) uint8_t codes[kMaxBlock];
  for (size_t i = 0; i < count; i += kVector) {
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(IntTag(), code(i))), d8, codes + i);
  }
  PackBlock<kBits>(codes, count, place.out, place.end);
}

template <int kBits, bool kRestores>
HWY_INLINE void EncodeBlock(const IntFormat& format, const IntScale& scale,
                            const BlockPlace& place, size_t count,
                            RandomWords& random) {
  if (format.is_stochastic) {
    EncodeLevels<kBits, kRestores>(
        StochasticLevels(kBits, scale, place.begin, random), scale, place,
        count);
  } else {
    EncodeLevels<kBits, kRestores>(NearestLevels(scale), scale, place, count);
  }
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

// The values of a block that has no scale.
void FillUnscaled(int magnitude, size_t count, float* out) {
  std::fill(out, out + count,
            magnitude == kIntScaleZero
                ? 0.0f
                : std::numeric_limits<float>::quiet_NaN());
}

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

// A few blocks of a tile, no more than the first-level cache holds. All their
// scales are chosen before any is encoded: one scale hangs on sums of its block
// and the codes on the scale, so that a processor gets ahead only where the
// next block's work does not stand behind them.
//
// kBlock: the length of blocks where it is known, 0 elsewhere.
template <int kBits, int kBlock, bool kRestores>
class BlockGroup {
 public:
  static constexpr size_t kValues = 2048;

  HWY_INLINE BlockGroup(const State& state, absl::Span<const float> values)
      : format_(state.format),
        units_(state.units),
        kept_(state),
        blocks_(state.format, values),
        first_(state.num_encoded / state.format.block),
        begin_(state.num_encoded),
        scales_(state.scales + first_),
        out_(state.packed + begin_ * kBits / 8),
        end_(state.end) {}

  // `largest`: LargestOf the first block, if has_largest.
  HWY_INLINE void ChooseScales(bool has_largest, uint32_t largest) {
    const IntFormat format = Format();
    for (size_t index = 0; index < blocks_.size(); ++index) {
      const float* const values = blocks_.Values(index);
      if (index > 0) {
        has_largest = kept_.Has(first_ + index);
        if (has_largest) largest = kept_.Get(first_ + index);
      }
      if (!has_largest) largest = LargestOf(values, format.block);
      const BlockRange range = RangeOf(largest);
      if (range.largest_bits == 0) {
        scales_[index] = kIntScaleZero;
      } else if (range.largest_bits >= 0x7F800000u) {
        scales_[index] = kIntScaleNonFinite;
      } else {
        scales_[index] =
            ChooseScale(format, units_, range, values, blocks_.Count(index))
                .code;
      }
    }
  }

  HWY_INLINE void Encode(RandomWords& random, float* restored) {
    const IntFormat format = Format();
    for (size_t index = 0; index < blocks_.size(); ++index) {
      const size_t begin = blocks_.Begin(index);
      const BlockPlace place = {blocks_.Values(index), begin_ + begin,
                                out_ + begin * kBits / 8, end_,
                                kRestores ? restored + begin : nullptr};
      const size_t count = blocks_.Count(index);
      const int magnitude = scales_[index] & kIntScaleMagnitude;
      if (magnitude == kIntScaleZero || magnitude == kIntScaleNonFinite) {
        std::memset(place.out, 0, (count * kBits + 7) / 8);
        if (kRestores) FillUnscaled(magnitude, count, place.restored);
        continue;
      }
      const IntScale scale = IntScaleOf(format, units_, scales_[index]);
      // Twice, for a number of values that is known.
      if (kBlock != 0 && count == kBlock) {
        EncodeBlock<kBits, kRestores>(format, scale, place, kBlock, random);
      } else {
        EncodeBlock<kBits, kRestores>(format, scale, place, count, random);
      }
    }
  }

 private:
  // With what is known as constants.
  HWY_INLINE IntFormat Format() const {
    // One by one: of a copied struct the compiler forgets the constants.
    return {kBits, kBlock == 0 ? format_.block : kBlock, format_.is_stochastic,
            format_.searches_clip, format_.model};
  }

  const IntFormat& format_;
  const IntUnits& units_;
  const KeptMaxima kept_;
  Blocks blocks_;
  const size_t first_;
  const size_t begin_;
  uint8_t* const scales_;
  uint8_t* const out_;
  uint8_t* const end_;
};

template <int kBits, int kBlock, bool kRestores>
void EncodeT(State& state, absl::Span<const float> tile, float* restored) {
  using Group = BlockGroup<kBits, kBlock, kRestores>;
  const size_t block = state.format.block;
  const size_t step = std::max<size_t>(Group::kValues / block, 1) * block;
  const KeptMaxima kept(state);
  RandomWords random(state.key);
  for (size_t at = 0; at < tile.size(); at += step) {
    const auto values = tile.subspan(at, step);
    Group group(state, values);
    group.ChooseScales(state.has_next_largest, state.next_largest);
    state.num_encoded += values.size();
    // Before these blocks' codes are written, which may spill over.
    const size_t next = state.num_encoded / block;
    state.has_next_largest = kept.Has(next);
    if (state.has_next_largest) state.next_largest = kept.Get(next);
    group.Encode(random, kRestores ? restored + at : nullptr);
  }
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

// Blocks that begin with `scales` and `packed`.
template <int kBits>
void DequantizeT(const IntFormat& format, const IntUnits& units,
                 const uint8_t* scales, const uint8_t* packed,
                 absl::Span<float> out) {
  const uint8_t* const end = packed + IntCodeBytes(format, out.size());
  alignas(64) uint8_t codes[kMaxBlock + 64];
  for (size_t begin = 0; begin < out.size(); begin += format.block) {
    const size_t count = std::min<size_t>(format.block, out.size() - begin);
    float* const values = out.data() + begin;
    const uint8_t scale_code = scales[begin / format.block];
    const int magnitude = scale_code & kIntScaleMagnitude;
    if (magnitude == kIntScaleZero || magnitude == kIntScaleNonFinite) {
      FillUnscaled(magnitude, count, values);
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
  if (state.format.bits == 4 && state.format.block == 64) {
    // What most jobs take: values are restored where they are quantised.
    return restored != nullptr ? EncodeT<4, 64, true>(state, tile, restored)
                               : EncodeT<4, 64, false>(state, tile, nullptr);
  }
  const size_t begin = state.num_encoded;
  DispatchBits(state.format.bits, [&](auto bits) {
    constexpr int kBits = decltype(bits)::value;
    EncodeT<kBits, 0, false>(state, tile, nullptr);
    if (restored == nullptr) return;
    DequantizeT<kBits>(state.format, state.units,
                       state.scales + begin / state.format.block,
                       state.packed + begin * kBits / 8,
                       absl::MakeSpan(restored, tile.size()));
  });
}

void Dequantize(const IntFormat& format, const uint8_t* payload,
                absl::Span<float> out) {
  const IntUnits units(payload[0]);
  const uint8_t* const scales = payload + 1;
  const uint8_t* const packed = scales + IntNumBlocks(format, out.size());
  DispatchBits(format.bits, [&](auto bits) {
    DequantizeT<decltype(bits)::value>(format, units, scales, packed, out);
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
