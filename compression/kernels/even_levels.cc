#include "compression/kernels/even_levels.h"

#include <algorithm>
#include <cfloat>

#include "compression/kernels/reference/even_levels.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/even_levels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

ValueRange Range(absl::Span<const float> values) {
  return reference::RangeOfValues(values);
}
void Codes(absl::Span<const float> values, const EvenSteps& steps,
           uint8_t* codes) {
  reference::EvenCodes(values, steps, codes);
}
double Error(absl::Span<const float> values, const EvenSteps& steps) {
  return reference::EvenError(values, steps);
}
void Values(const uint8_t* codes, float scale, float bias,
            absl::Span<float> values) {
  reference::EvenValues(codes, scale, bias, values);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 16;
constexpr size_t kChunk = 4096;
using FloatTag = hn::CappedTag<float, kLanes>;
using IntTag = hn::RebindToSigned<FloatTag>;
using ByteTag = hn::Rebind<uint8_t, FloatTag>;
using Floats = hn::Vec<FloatTag>;

// EvenSteps in all lanes.
struct VectorSteps {
  explicit VectorSteps(const EvenSteps& steps)
      : shrink(hn::Set(FloatTag(), steps.shrink)),
        bias(hn::Set(FloatTag(), steps.bias)),
        inverse(hn::Set(FloatTag(), steps.inverse)) {}

  HWY_INLINE Floats Position(Floats value) const {
    return hn::Mul(hn::Sub(hn::Mul(value, shrink), bias), inverse);
  }

  Floats shrink, bias, inverse;
};

HWY_INLINE Floats Code(Floats position) {
  const FloatTag d;
  return hn::Round(hn::Min(hn::Max(position, hn::Zero(d)), hn::Set(d, 15.0f)));
}

HWY_INLINE Floats SquaredError(const VectorSteps& steps, Floats value) {
  const Floats position = steps.Position(value);
  const Floats error = hn::Sub(position, Code(position));
  return hn::Mul(error, error);
}

// The errors of up to 4,096 values.
float ChunkError(const float* HWY_RESTRICT values, size_t count,
                 const VectorSteps& steps) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  alignas(64) float lanes[kLanes];
  const size_t whole = count / kLanes * kLanes;
  for (size_t column = 0; column < kLanes; column += n) {
    Floats sum = hn::Zero(d);
    for (size_t i = column; i < whole; i += kLanes) {
      sum = hn::Add(sum, SquaredError(steps, hn::LoadU(d, values + i)));
    }
    hn::Store(sum, d, lanes + column);
  }
  if (whole < count) {
    float rest[kLanes] = {};
    std::copy(values + whole, values + count, rest);
    for (size_t column = 0; column < kLanes; column += n) {
      hn::StoreU(SquaredError(steps, hn::LoadU(d, rest + column)), d,
                 rest + column);
    }
    for (size_t i = 0; i < count - whole; ++i) lanes[i] += rest[i];
  }
  for (size_t width = kLanes / 2; width >= 1; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

}  // namespace

ValueRange Range(absl::Span<const float> values) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  if (values.size() < n) return reference::RangeOfValues(values);
  Floats low = hn::LoadU(d, values.data()), high = low;
  // Of finite values 0, of others NaN.
  Floats zeros = hn::Zero(d);
  const auto add = [&](const float* from) {
    const Floats value = hn::LoadU(d, from);
    low = hn::Min(low, value);
    high = hn::Max(high, value);
    zeros = hn::Add(zeros, hn::Mul(value, hn::Zero(d)));
  };
  size_t i = 0;
  for (; i + n <= values.size(); i += n) add(values.data() + i);
  // The last vector again, from the end.
  add(values.data() + values.size() - n);
  ValueRange range;
  range.all_finite = hn::AllTrue(d, hn::Eq(zeros, zeros));
  range.low = hn::GetLane(hn::MinOfLanes(d, low)) + 0.0f;
  range.high = hn::GetLane(hn::MaxOfLanes(d, high)) + 0.0f;
  return range;
}

void Codes(absl::Span<const float> values, const EvenSteps& steps,
           uint8_t* codes) {
  const FloatTag d;
  const IntTag di;
  const ByteTag db;
  const size_t n = hn::Lanes(d);
  const VectorSteps vector_steps(steps);
  size_t i = 0;
  for (; i + n <= values.size(); i += n) {
    const Floats code =
        Code(vector_steps.Position(hn::LoadU(d, values.data() + i)));
    hn::StoreU(hn::DemoteTo(db, hn::ConvertTo(di, code)), db, codes + i);
  }
  reference::EvenCodes(values.subspan(i), steps, codes + i);
}

double Error(absl::Span<const float> values, const EvenSteps& steps) {
  const VectorSteps vector_steps(steps);
  double sum = 0;
  for (size_t i = 0; i < values.size(); i += kChunk) {
    sum += ChunkError(values.data() + i, std::min(kChunk, values.size() - i),
                      vector_steps);
  }
  return sum;
}

void Values(const uint8_t* codes, float scale, float bias,
            absl::Span<float> values) {
  const FloatTag d;
  const IntTag di;
  const ByteTag db;
  const size_t n = hn::Lanes(d);
  const Floats scales = hn::Set(d, scale), biases = hn::Set(d, bias);
  size_t i = 0;
  for (; i + n <= values.size(); i += n) {
    const Floats code =
        hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(db, codes + i)));
    hn::StoreU(hn::Add(hn::Mul(code, scales), biases), d, values.data() + i);
  }
  reference::EvenValues(codes + i, scale, bias, values.subspan(i));
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Range);
HWY_EXPORT(Codes);
HWY_EXPORT(Error);
HWY_EXPORT(Values);

ValueRange RangeOfValues(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Range)(values);
}

void EvenCodes(absl::Span<const float> values, const EvenSteps& steps,
               uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Codes)(values, steps, codes);
}

double EvenError(absl::Span<const float> values, const EvenSteps& steps) {
  return HWY_DYNAMIC_DISPATCH(Error)(values, steps);
}

void EvenValues(const uint8_t* codes, float scale, float bias,
                absl::Span<float> values) {
  HWY_DYNAMIC_DISPATCH(Values)(codes, scale, bias, values);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
