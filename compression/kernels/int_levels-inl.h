// Values of one block to codes, and codes to values, once its scale is known,
// for the `int` codec's kernels. Included once per vector target, inside
// Highway's target loop (hence no ordinary include guard).
#if defined(DELTAPIPE_COMPRESSION_KERNELS_INT_LEVELS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DELTAPIPE_COMPRESSION_KERNELS_INT_LEVELS_INL_H_
#undef DELTAPIPE_COMPRESSION_KERNELS_INT_LEVELS_INL_H_
#else
#define DELTAPIPE_COMPRESSION_KERNELS_INT_LEVELS_INL_H_
#endif

#include <cfloat>
#include <cstddef>
#include <cstdint>

#include "absl/base/attributes.h"
#include "base/philox.h"
#include "compression/kernels/code_packing-inl.h"
#include "compression/kernels/int_clip_search-inl.h"
#include "compression/kernels/int_scale.h"
#include "compression/kernels/philox_vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR
namespace {

constexpr size_t kMaxBlock = 4096;

// The random words of up to kMaxBlock elements. All are made before the first
// is used: rounds of different counters then fill each other's gaps.
class RandomWords {
 public:
  explicit RandomWords(const RandomKey& key) : key_(key) {}

  // For the `count` elements from `begin` on.
  HWY_INLINE void Fill(size_t begin, size_t count) {
    const RandomKey key = key_;  // not to be read again after each store
    const size_t first = begin / 64;
    first_element_ = 64 * first;
    for (size_t group = first; 64 * group < begin + count; ++group) {
      PhiloxWords(key, static_cast<uint32_t>(16 * group),
                  words_ + 64 * (group - first));
    }
  }

  // Those of the elements from `element` on.
  HWY_INLINE const uint32_t* From(size_t element) const {
    return words_ + (element - first_element_);
  }

 private:
  const RandomKey key_;
  size_t first_element_ = 0;
  alignas(64) uint32_t words_[kMaxBlock + 128];
};

// Values to codes, as floats: to nearest, ties to even.
class NearestLevels {
 public:
  HWY_INLINE explicit NearestLevels(const IntScale& scale)
      : inverse_(hn::Set(FloatTag(), scale.inverse)),
        center_(hn::Set(FloatTag(), scale.center)),
        low_(hn::Set(FloatTag(), scale.low)),
        high_(hn::Set(FloatTag(), scale.high)) {}

  HWY_INLINE hn::Vec<FloatTag> Of(hn::Vec<FloatTag> x, size_t /*i*/) const {
    const auto t = hn::Add(hn::Mul(x, inverse_), center_);
    return hn::Round(hn::Min(hn::Max(t, low_), high_));
  }

 private:
  const hn::Vec<FloatTag> inverse_, center_, low_, high_;
};

// Likewise, up with a probability equal to the fraction; element i of a block
// takes words[i].
class StochasticLevels {
 public:
  HWY_INLINE StochasticLevels(int bits, const IntScale& scale,
                              const uint32_t* words)
      : words_(words),
        inverse_(hn::Set(FloatTag(), scale.inverse)),
        shift_(hn::Set(FloatTag(),
                       static_cast<float>(1 << (bits - 1)) - scale.center)),
        middle_(hn::Set(FloatTag(), static_cast<float>(1 << (bits - 1)))),
        low_(hn::Set(FloatTag(), scale.low)),
        high_(hn::Set(FloatTag(), scale.high)) {}

  HWY_INLINE hn::Vec<FloatTag> Of(hn::Vec<FloatTag> x, size_t i) const {
    const FloatTag d;
    const UnsignedTag du;
    const auto word = hn::ShiftRight<8>(hn::Load(du, words_ + i));
    const auto uniform = hn::Mul(hn::ConvertTo(d, hn::BitCast(IntTag(), word)),
                                 hn::Set(d, 0x1.0p-24f));
    const auto y = hn::Sub(hn::Mul(x, inverse_), shift_);
    const auto floor = hn::Floor(y);
    const auto down = hn::Add(floor, middle_);
    const auto level = hn::IfThenElse(hn::Lt(uniform, hn::Sub(y, floor)),
                                      hn::Add(down, hn::Set(d, 1.0f)), down);
    return hn::Min(hn::Max(level, low_), high_);
  }

 private:
  const uint32_t* const words_;
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
  const auto code = [&](size_t i) HWY_ATTR ABSL_ATTRIBUTE_ALWAYS_INLINE {
    const auto level = levels.Of(hn::LoadU(d, place.values + i), i);
    if (kRestores) {
      StoreFirst(d, decoded.Of(level), count - i, place.restored + i);
    }
    return level;
  };
  constexpr size_t kAtOnce = 4 * kVector;
  if (kBits == 4 && count % kAtOnce == 0) {
    for (size_t i = 0; i < count; i += kAtOnce) {
      const auto codes0 = code(i);
      const auto codes1 = code(i + kVector);
      const auto codes2 = code(i + 2 * kVector);
      const auto codes3 = code(i + 3 * kVector);
      PackNibblesOf(d, codes0, codes1, codes2, codes3, place.out + i / 2);
    }
    return;
  }
  // A float of 0 to 255 plus this has it as its lowest bits: cheaper than a
  // conversion, which heeds overflow.
  const auto bias = hn::Set(d, 0x1p23f);
  alignas(64) uint8_t codes[kMaxBlock];
  for (size_t i = 0; i < count; i += kVector) {
    const auto bits = hn::And(hn::BitCast(IntTag(), hn::Add(code(i), bias)),
                              hn::Set(IntTag(), 0xFF));
    hn::StoreU(hn::DemoteTo(d8, bits), d8, codes + i);
  }
  PackBlock<kBits>(codes, count, place.out, place.end);
}

template <int kBits, bool kRestores>
HWY_INLINE void EncodeBlock(const IntFormat& format, const IntScale& scale,
                            const BlockPlace& place, size_t count,
                            const RandomWords& random) {
  if (format.is_stochastic) {
    EncodeLevels<kBits, kRestores>(
        StochasticLevels(kBits, scale, random.From(place.begin)), scale, place,
        count);
  } else {
    EncodeLevels<kBits, kRestores>(NearestLevels(scale), scale, place, count);
  }
}

}  // namespace
#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
