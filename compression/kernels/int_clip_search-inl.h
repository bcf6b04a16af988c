// The scale of one block for the `int` codec's kernels, the clip search
// included. Included once per vector target, inside Highway's target loop
// (hence no ordinary include guard).
//
// Sums run over 16 lanes, element i of the block into lane i % 16, and end in a
// fixed tree: lanes 8 apart, then 4, 2 and 1.
#if defined(DELTAPIPE_COMPRESSION_KERNELS_INT_CLIP_SEARCH_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DELTAPIPE_COMPRESSION_KERNELS_INT_CLIP_SEARCH_INL_H_
#undef DELTAPIPE_COMPRESSION_KERNELS_INT_CLIP_SEARCH_INL_H_
#else
#define DELTAPIPE_COMPRESSION_KERNELS_INT_CLIP_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/float_cast.h"
#include "compression/kernels/int_scale.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 16;

using FloatTag = hn::CappedTag<float, kLanes>;
using IntTag = hn::RebindToSigned<FloatTag>;
using UnsignedTag = hn::RebindToUnsigned<FloatTag>;

constexpr size_t kVector = hn::MaxLanes(FloatTag());
static_assert(kLanes % kVector == 0, "");

struct BlockRange {
  uint32_t largest_bits;  // of the magnitudes
  bool positive_max;      // no element equals -largest
};

// The largest magnitude's bits twice, plus 1 if a negative value has it.
HWY_INLINE uint32_t LargestOf(const float* HWY_RESTRICT values, size_t count) {
  const FloatTag d;
  const UnsignedTag du;
  const size_t n = hn::Lanes(d);
  auto largest = hn::Zero(du);
  HWY_UNROLL(4)
  for (size_t i = 0; i < count; i += n) {
    const auto bits = hn::BitCast(du, hn::LoadU(d, values + i));
    largest = hn::Max(largest, hn::RotateRight<31>(bits));
  }
  // The sign, now the lowest bit, lets a negative value win of equal ones.
  return hn::GetLane(hn::MaxOfLanes(du, largest));
}

BlockRange RangeOf(uint32_t largest) {
  return {largest >> 1, (largest & 1) == 0};
}

// Sixteen sums in as many vectors as it takes.
struct LaneSums {
  hn::Vec<FloatTag> parts[kLanes / kVector];

  HWY_INLINE LaneSums() {
    for (auto& part : parts) part = hn::Zero(FloatTag());
  }

  HWY_INLINE float Total() const {
    const hn::CappedTag<float, 4> d4;
    alignas(64) float lanes[kLanes];
    for (size_t part = 0; part < kLanes / kVector; ++part) {
      hn::Store(parts[part], FloatTag(), lanes + part * kVector);
    }
    const auto low = hn::Add(hn::Load(d4, lanes), hn::Load(d4, lanes + 8));
    const auto high =
        hn::Add(hn::Load(d4, lanes + 4), hn::Load(d4, lanes + 12));
    const auto sums = hn::Add(low, high);
    const auto pairs = hn::Add(sums, hn::Shuffle1032(sums));
    return hn::GetLane(hn::Add(pairs, hn::Shuffle2301(pairs)));
  }
};

// A block's squared errors under a scale, in units of its step.
struct ErrorSum {
  hn::Vec<FloatTag> inverse, center, low, high;
  LaneSums sums;

  HWY_INLINE explicit ErrorSum(const IntScale& scale)
      : inverse(hn::Set(FloatTag(), scale.inverse)),
        center(hn::Set(FloatTag(), scale.center)),
        low(hn::Set(FloatTag(), scale.low)),
        high(hn::Set(FloatTag(), scale.high)) {}

  HWY_INLINE void Add(size_t part, hn::Vec<FloatTag> values) {
    const auto t = hn::Add(hn::Mul(values, inverse), center);
    const auto level = hn::Round(hn::Min(hn::Max(t, low), high));
    const auto error = hn::Sub(t, level);
    sums.parts[part] = hn::Add(sums.parts[part], hn::Mul(error, error));
  }
};

// The squared errors of a block under two scales, in one pass: they share the
// loads, and their sums do not wait for each other.
struct TwoErrors {
  float first, second;
};
HWY_INLINE TwoErrors SquaredErrors(const IntScale& first,
                                   const IntScale& second,
                                   const float* HWY_RESTRICT values,
                                   size_t block) {
  ErrorSum of_first(first);
  ErrorSum of_second(second);
  HWY_UNROLL(4)
  for (size_t i = 0; i < block; i += kLanes) {
    for (size_t part = 0; part < kLanes / kVector; ++part) {
      const auto x = hn::LoadU(FloatTag(), values + i + part * kVector);
      of_first.Add(part, x);
      of_second.Add(part, x);
    }
  }
  return {of_first.sums.Total(), of_second.sums.Total()};
}

// The index of the scale of least error, the first of equal ones.
int BestScale(const IntScale* scales, int num_scales,
              const float* HWY_RESTRICT values, size_t block) {
  int best = 0;
  float best_error = 0;
  for (int index = 0; index < num_scales; index += 2) {
    const int other = std::min(index + 1, num_scales - 1);
    const TwoErrors errors =
        SquaredErrors(scales[index], scales[other], values, block);
    const float error =
        IntWeightedError(scales[0], scales[index], errors.first);
    const float other_error =
        IntWeightedError(scales[0], scales[other], errors.second);
    if (index == 0 || error < best_error) {
      best = index;
      best_error = error;
    }
    if (other_error < best_error) {
      best = other;
      best_error = other_error;
    }
  }
  return best;
}

// The better one of the two scales that ListIntScales lists at 4 bits and more.
// No branch depends on which it is: that cannot be predicted.
HWY_INLINE IntScale BetterOfTwoScales(const IntFormat& format,
                                      const IntUnits& units,
                                      const BlockRange& range,
                                      const float* values) {
  const float target = BitsToFloat(range.largest_bits) /
                       static_cast<float>(1 << (format.bits - 1));
  const int side = range.positive_max ? kIntScaleFlag : 0;
  const int magnitude = IntCeilMagnitude(units.window(), target);
  const int lower = IntLowerMagnitude(magnitude);
  const IntScale first =
      IntScaleOf(format, units, static_cast<uint8_t>(magnitude | side));
  const IntScale second =
      IntScaleOf(format, units, static_cast<uint8_t>(lower | side));
  const TwoErrors errors = SquaredErrors(first, second, values, format.block);
  const int is_second =
      IntWeightedError(first, second, errors.second) < errors.first;
  return IntScaleOf(format, units,
                    static_cast<uint8_t>(
                        (magnitude - (magnitude - lower) * is_second) | side));
}

float MeanMagnitude(const float* HWY_RESTRICT values, size_t block,
                    size_t count) {
  const FloatTag d;
  const auto weight = hn::Set(d, 1.0f / static_cast<float>(count));
  LaneSums sums;
  for (size_t i = 0; i < block; i += kLanes) {
    for (size_t part = 0; part < kLanes / kVector; ++part) {
      const auto x = hn::LoadU(d, values + i + part * kVector);
      sums.parts[part] = hn::Add(sums.parts[part], hn::Mul(hn::Abs(x), weight));
    }
  }
  return sums.Total();
}

float RootMeanSquare(float block_max, const float* HWY_RESTRICT values,
                     size_t block, size_t count) {
  const FloatTag d;
  const float largest = std::max(block_max, FLT_MIN);
  const auto inverse = hn::Set(d, 1.0f / largest);
  const auto weight = hn::Set(d, 1.0f / static_cast<float>(count));
  LaneSums sums;
  for (size_t i = 0; i < block; i += kLanes) {
    for (size_t part = 0; part < kLanes / kVector; ++part) {
      const auto x = hn::LoadU(d, values + i + part * kVector);
      const auto share = hn::Mul(x, inverse);
      sums.parts[part] =
          hn::Add(sums.parts[part], hn::Mul(hn::Mul(share, share), weight));
    }
  }
  return largest * std::sqrt(sums.Total());
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

// The scale of a block of `count` values, filled up with zeros to the format's.
// kBlock: the length of blocks where it is known, 0 elsewhere.
template <int kBits, int kBlock>
HWY_INLINE IntScale ChooseScale(const IntFormat& format, const IntUnits& units,
                                const BlockRange& range, const float* values,
                                size_t count) {
  // What is known, as constants: compilers forget them in a format that a
  // function is called with.
  IntFormat known;
  known.bits = kBits;
  known.block = kBlock == 0 ? format.block : kBlock;
  const float block_max = BitsToFloat(range.largest_bits);
  if (!format.searches_clip) return IntCoveringScale(known, units, block_max);
  if (kBits >= 4 && format.model == IntClipModel::kNone) {
    return BetterOfTwoScales(known, units, range, values);
  }
  IntScale scales[kIntMaxCandidates];
  const int num_scales =
      ListIntScales(format, units, block_max, range.positive_max,
                    Spread(format, block_max, values, count), scales);
  if (num_scales == 1) return scales[0];
  return scales[BestScale(scales, num_scales, values, format.block)];
}

}  // namespace
#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
