#include "compression/kernels/int_quantize.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/reference/int_quantize.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/int_quantize.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// Highway's own order: after highway.h.
#include "compression/kernels/code_packing-inl.h"
#include "compression/kernels/int_clip_search-inl.h"
#include "compression/kernels/int_levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

using State = IntTileEncoder::State;

#if HWY_TARGET == HWY_SCALAR

void Measure(State& state, absl::Span<const float> tile) {
  for (size_t begin = 0; begin < tile.size(); begin += state.format.block) {
    state.maxima.Add(reference::LargestMagnitudeBits(
        tile.subspan(begin, state.format.block)));
  }
}

void Encode(State& state, absl::Span<const float> tile, float* restored) {
  Measure(state, tile);
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

// A few blocks of a tile, no more than the first-level cache holds. Each step
// is taken for all of them before the next one: a scale hangs on sums of its
// block, those on the largest value and the codes on the scale, so that a
// processor gets ahead only where the next block's work does not stand behind
// them.
//
// kBlock: the length of blocks where it is known, 0 elsewhere.
template <int kBits, int kBlock, bool kRestores>
class BlockGroup {
 public:
  static constexpr size_t kValues = 2048;

  // `next`: where the group after this one begins, or null.
  HWY_INLINE BlockGroup(State& state, absl::Span<const float> values,
                        const float* next)
      : format_(state.format),
        units_(state.units),
        maxima_(state.maxima),
        blocks_(state.format, values),
        begin_(state.num_encoded),
        num_values_(values.size()),
        next_(next),
        scales_(state.scales + begin_ / state.format.block),
        out_(state.packed + begin_ * kBits / 8),
        end_(state.end) {}

  HWY_INLINE void ChooseScales() {
    const IntFormat format = Format();
    uint32_t largest[kValues / 16];
    for (size_t index = 0; index < blocks_.size(); ++index) {
      largest[index] = LargestOf(blocks_.Values(index), format.block);
      maxima_.Add(RangeOf(largest[index]).largest_bits);
    }
    for (size_t index = 0; index < blocks_.size(); ++index) {
      const BlockRange range = RangeOf(largest[index]);
      if (range.largest_bits == 0) {
        scales_[index] = kIntScaleZero;
      } else if (range.largest_bits >= 0x7F800000u) {
        scales_[index] = kIntScaleNonFinite;
      } else {
        scales_[index] = ChooseScale<kBits, kBlock>(format, units_, range,
                                                    blocks_.Values(index),
                                                    blocks_.Count(index))
                             .code;
      }
    }
  }

  HWY_INLINE void Encode(RandomWords& random, float* restored) {
    const IntFormat format = Format();
    if (format.is_stochastic) random.Fill(begin_, num_values_);
    for (size_t index = 0; index < blocks_.size(); ++index) {
      const size_t begin = blocks_.Begin(index);
      const size_t count = blocks_.Count(index);
      // Hardware that follows a stream stops while nothing is read from it.
      for (size_t i = 0; next_ != nullptr && i < count; i += 16) {
        hwy::Prefetch(next_ + begin + i);
      }
      const BlockPlace place = {blocks_.Values(index), begin_ + begin,
                                out_ + begin * kBits / 8, end_,
                                kRestores ? restored + begin : nullptr};
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
  IntBlockMaxima& maxima_;
  Blocks blocks_;
  const size_t begin_;
  const size_t num_values_;
  const float* const next_;
  uint8_t* const scales_;
  uint8_t* const out_;
  uint8_t* const end_;
};

template <int kBits, int kBlock, bool kRestores>
void EncodeT(State& state, absl::Span<const float> tile, float* restored) {
  using Group = BlockGroup<kBits, kBlock, kRestores>;
  const size_t block = state.format.block;
  const size_t step = std::max<size_t>(Group::kValues / block, 1) * block;
  RandomWords random(state.key);
  for (size_t at = 0; at < tile.size(); at += step) {
    const auto values = tile.subspan(at, step);
    const bool has_next = at + 2 * step <= tile.size();
    Group group(state, values, has_next ? values.data() + step : nullptr);
    group.ChooseScales();
    group.Encode(random, kRestores ? restored + at : nullptr);
    state.num_encoded += values.size();
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
  for (size_t index = 0; index < blocks.size(); ++index) {
    const uint32_t largest =
        LargestOf(blocks.Values(index), state.format.block);
    state.maxima.Add(RangeOf(largest).largest_bits);
  }
}

void Encode(State& state, absl::Span<const float> tile, float* restored) {
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

// Whole blocks: as many as there are in so many values.
constexpr int64_t kGuessedFrom = 1024;
constexpr int64_t kTile = 64 << 10;

size_t WholeBlocks(const IntFormat& format, int64_t num_values) {
  return static_cast<size_t>(std::max(num_values / format.block, int64_t{1}) *
                             format.block);
}

}  // namespace

IntTileEncoder::IntTileEncoder(const IntFormat& format, int64_t num_elements,
                               const RandomKey& key, uint8_t* payload)
    : state_{format, key, static_cast<size_t>(num_elements), payload},
      is_encoding_(CanGuessIntWindow(format)) {
  state_.scales = payload + 1;
  state_.packed = state_.scales + IntNumBlocks(format, num_elements);
  state_.end = state_.packed + IntCodeBytes(format, num_elements);
}

bool IntTileEncoder::Encode(absl::Span<const float> tile, float* restored) {
  if (tile.empty()) return is_encoding_;
  if (!has_begun_ && is_encoding_) {
    const auto first = tile.first(
        std::min(tile.size(), WholeBlocks(state_.format, kGuessedFrom)));
    HWY_DYNAMIC_DISPATCH(Measure)(state_, first);
    state_.units = IntUnits(GuessIntWindow(state_.format, state_.maxima));
    state_.maxima = IntBlockMaxima();
  }
  has_begun_ = true;
  if (!is_encoding_) {
    HWY_DYNAMIC_DISPATCH(Measure)(state_, tile);
    return false;
  }
  const uint32_t least = state_.maxima.least;
  const uint32_t largest = state_.maxima.largest;
  HWY_DYNAMIC_DISPATCH(Encode)(state_, tile, restored);
  if (!is_last_pass_ &&
      (state_.maxima.least != least || state_.maxima.largest != largest)) {
    is_encoding_ =
        ShowsAllUnits(state_.format, state_.units.window(), state_.maxima);
  }
  return true;
}

bool IntTileEncoder::Finish() {
  if (!has_begun_ || is_last_pass_) return true;
  const IntFormat& format = state_.format;
  const int guess = state_.units.window();
  const int window = ChooseIntWindow(format, state_.maxima);
  state_.payload[0] = static_cast<uint8_t>(window);
  if (is_encoding_ && ShowsAllUnits(format, window, state_.maxima)) {
    MoveIntScales(guess, window, state_.scales,
                  IntNumBlocks(format, state_.num_elements));
    return true;
  }
  state_.units = IntUnits(window);
  state_.num_encoded = 0;
  is_encoding_ = is_last_pass_ = true;
  return false;
}

void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload) {
  const size_t tile = WholeBlocks(format, kTile);
  IntTileEncoder encoder(format, static_cast<int64_t>(in.size()), key, payload);
  do {
    for (size_t at = 0; at < in.size(); at += tile) {
      encoder.Encode(in.subspan(at, tile), nullptr);
    }
  } while (!encoder.Finish());
}

void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out) {
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(Dequantize)(format, payload, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
