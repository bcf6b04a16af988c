#include "compression/kernels/double_levels.h"

#include <algorithm>
#include <cfloat>

#include "compression/kernels/reference/double_levels.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/double_levels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

void Codes(absl::Span<const float> values, const DoubleSteps& steps,
           uint8_t* codes) {
  reference::DoubleCodes(values, steps, codes);
}
void StochasticCodes(absl::Span<const float> values, const DoubleSteps& steps,
                     const uint32_t* words, uint8_t* codes) {
  reference::DoubleStochasticCodes(values, steps, words, codes);
}
double Error(absl::Span<const float> values, const DoubleSteps& steps) {
  return reference::DoubleError(values, steps);
}
void Values(const uint8_t* codes, double base, double step,
            absl::Span<float> values) {
  reference::DoubleValues(codes, base, step, values);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 8;
using DoubleTag = hn::CappedTag<double, kLanes>;
using FloatTag = hn::Rebind<float, DoubleTag>;
using IntTag = hn::Rebind<int32_t, DoubleTag>;
using UnsignedTag = hn::Rebind<uint32_t, DoubleTag>;
using ByteTag = hn::Rebind<uint8_t, DoubleTag>;
using Doubles = hn::Vec<DoubleTag>;

// DoubleSteps in all lanes.
struct VectorSteps {
  explicit VectorSteps(const DoubleSteps& steps)
      : base(hn::Set(DoubleTag(), steps.base)),
        inverse(hn::Set(DoubleTag(), steps.inverse)),
        low(hn::Set(DoubleTag(), steps.low)),
        high(hn::Set(DoubleTag(), steps.high)) {}

  HWY_INLINE Doubles Position(const float* value) const {
    return hn::Mul(
        hn::Sub(hn::PromoteTo(DoubleTag(), hn::LoadU(FloatTag(), value)), base),
        inverse);
  }
  HWY_INLINE Doubles Clamp(Doubles position) const {
    return hn::Min(hn::Max(position, low), high);
  }

  Doubles base, inverse, low, high;
};

HWY_INLINE void StoreCode(Doubles code, uint8_t* out) {
  hn::StoreU(hn::DemoteTo(ByteTag(), hn::DemoteTo(IntTag(), code)), ByteTag(),
             out);
}

}  // namespace

void Codes(absl::Span<const float> values, const DoubleSteps& steps,
           uint8_t* HWY_RESTRICT codes) {
  const size_t n = hn::Lanes(DoubleTag());
  const VectorSteps vector_steps(steps);
  size_t i = 0;
  for (; i + n <= values.size(); i += n) {
    const Doubles t = vector_steps.Position(values.data() + i);
    StoreCode(hn::Round(vector_steps.Clamp(t)), codes + i);
  }
  reference::DoubleCodes(values.subspan(i), steps, codes + i);
}

void StochasticCodes(absl::Span<const float> values, const DoubleSteps& steps,
                     const uint32_t* HWY_RESTRICT words,
                     uint8_t* HWY_RESTRICT codes) {
  const DoubleTag d;
  const size_t n = hn::Lanes(d);
  const VectorSteps vector_steps(steps);
  const Doubles one = hn::Set(d, 1.0);
  const Doubles unit_of_word = hn::Set(d, 0x1.0p-24);
  size_t i = 0;
  for (; i + n <= values.size(); i += n) {
    const auto word = hn::ShiftRight<8>(hn::LoadU(UnsignedTag(), words + i));
    const Doubles uniform =
        hn::Mul(hn::PromoteTo(d, hn::BitCast(IntTag(), word)), unit_of_word);
    const Doubles t =
        vector_steps.Clamp(vector_steps.Position(values.data() + i));
    const Doubles floor = hn::Floor(t);
    const Doubles up =
        hn::IfThenElseZero(hn::Lt(uniform, hn::Sub(t, floor)), one);
    StoreCode(hn::Add(floor, up), codes + i);
  }
  reference::DoubleStochasticCodes(values.subspan(i), steps, words + i,
                                   codes + i);
}

double Error(absl::Span<const float> values, const DoubleSteps& steps) {
  const DoubleTag d;
  const size_t n = hn::Lanes(d);
  const VectorSteps vector_steps(steps);
  const size_t whole = values.size() / kLanes * kLanes;
  alignas(64) double lanes[kLanes];
  for (size_t column = 0; column < kLanes; column += n) {
    Doubles sum = hn::Zero(d);
    for (size_t i = column; i < whole; i += kLanes) {
      const Doubles t = vector_steps.Position(values.data() + i);
      const Doubles error = hn::Sub(t, hn::Round(vector_steps.Clamp(t)));
      sum = hn::Add(sum, hn::Mul(error, error));
    }
    hn::Store(sum, d, lanes + column);
  }
  if (whole < values.size()) {
    float rest[kLanes] = {};
    std::copy(values.begin() + whole, values.end(), rest);
    alignas(64) double errors[kLanes];
    for (size_t column = 0; column < kLanes; column += n) {
      const Doubles t = vector_steps.Position(rest + column);
      const Doubles error = hn::Sub(t, hn::Round(vector_steps.Clamp(t)));
      hn::Store(hn::Mul(error, error), d, errors + column);
    }
    for (size_t i = 0; i < values.size() - whole; ++i) lanes[i] += errors[i];
  }
  return reference::SumOfEight(lanes);
}

void Values(const uint8_t* HWY_RESTRICT codes, double base, double step,
            absl::Span<float> values) {
  const DoubleTag d;
  const size_t n = hn::Lanes(d);
  const Doubles bases = hn::Set(d, base);
  const Doubles vector_steps = hn::Set(d, step);
  const Doubles low = hn::Set(d, -double{FLT_MAX});
  const Doubles high = hn::Set(d, double{FLT_MAX});
  size_t i = 0;
  for (; i + n <= values.size(); i += n) {
    const Doubles code = hn::PromoteTo(
        d, hn::PromoteTo(IntTag(), hn::LoadU(ByteTag(), codes + i)));
    const Doubles value = hn::Add(bases, hn::Mul(code, vector_steps));
    hn::StoreU(hn::DemoteTo(FloatTag(), hn::Min(hn::Max(value, low), high)),
               FloatTag(), values.data() + i);
  }
  reference::DoubleValues(codes + i, base, step, values.subspan(i));
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Codes);
HWY_EXPORT(StochasticCodes);
HWY_EXPORT(Error);
HWY_EXPORT(Values);

void DoubleCodes(absl::Span<const float> values, const DoubleSteps& steps,
                 uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Codes)(values, steps, codes);
}

void DoubleStochasticCodes(absl::Span<const float> values,
                           const DoubleSteps& steps, const uint32_t* words,
                           uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(StochasticCodes)(values, steps, words, codes);
}

double DoubleError(absl::Span<const float> values, const DoubleSteps& steps) {
  return HWY_DYNAMIC_DISPATCH(Error)(values, steps);
}

void DoubleValues(const uint8_t* codes, double base, double step,
                  absl::Span<float> values) {
  HWY_DYNAMIC_DISPATCH(Values)(codes, base, step, values);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
