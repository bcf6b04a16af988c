#include "compression/kernels/narrow_floats.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/narrow_floats.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

void Narrow(NarrowFloat type, absl::Span<const float> in, uint8_t* out) {
  reference::NarrowFloats(type, in, out);
}

void Widen(NarrowFloat type, const uint8_t* in, absl::Span<float> out) {
  reference::WidenFloats(type, in, out);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using IntTag = hn::RebindToSigned<FloatTag>;
using NarrowTag = hn::Rebind<uint16_t, FloatTag>;
using Ints = hn::Vec<IntTag>;

// The lines below follow base/float_cast.h; all numbers are below 2^31, so that
// signed comparisons are right.

HWY_INLINE Ints BFloat16Of(Ints bits) {
  const IntTag d;
  const Ints infinity = hn::Set(d, 0x7F800000);
  const Ints magnitude = hn::And(bits, hn::Set(d, 0x7FFFFFFF));
  const Ints odd = hn::And(hn::ShiftRight<16>(magnitude), hn::Set(d, 1));
  Ints rounded = hn::ShiftRight<16>(hn::Add(
      hn::Add(hn::Min(magnitude, hn::Set(d, 0x7F7FFFFF)), hn::Set(d, 0x7FFF)),
      odd));
  rounded = hn::Min(rounded, hn::Set(d, 0x7F7F));
  const Ints truncated = hn::ShiftRight<16>(magnitude);
  rounded = hn::IfThenElse(hn::Eq(magnitude, infinity), truncated, rounded);
  rounded = hn::IfThenElse(hn::Gt(magnitude, infinity),
                           hn::Or(truncated, hn::Set(d, 0x40)), rounded);
  return rounded;
}

HWY_INLINE Ints Float16Of(Ints bits) {
  const IntTag d;
  const FloatTag df;
  const Ints infinity = hn::Set(d, 0x7F800000);
  const Ints magnitude = hn::And(bits, hn::Set(d, 0x7FFFFFFF));
  const Ints rebiased = hn::Sub(magnitude, hn::Set(d, 0x38000000));
  const Ints odd = hn::And(hn::ShiftRight<13>(rebiased), hn::Set(d, 1));
  Ints result =
      hn::ShiftRight<13>(hn::Add(hn::Add(rebiased, hn::Set(d, 0x0FFF)), odd));
  const Ints shifted =
      hn::BitCast(d, hn::Add(hn::BitCast(df, hn::Min(magnitude, infinity)),
                             hn::Set(df, 0.5f)));
  result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x38800000)),
                          hn::Sub(shifted, hn::Set(d, 0x3F000000)), result);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, 0x477FEFFF)),
                          hn::Set(d, 0x7BFF), result);
  result =
      hn::IfThenElse(hn::Eq(magnitude, infinity), hn::Set(d, 0x7C00), result);
  return hn::IfThenElse(hn::Gt(magnitude, infinity), hn::Set(d, 0x7E00),
                        result);
}

HWY_INLINE Ints FloatOfFloat16(Ints narrow) {
  const IntTag d;
  const FloatTag df;
  const Ints sign = hn::ShiftLeft<16>(hn::And(narrow, hn::Set(d, 0x8000)));
  const Ints exponent = hn::And(narrow, hn::Set(d, 0x7C00));
  const Ints mantissa = hn::And(narrow, hn::Set(d, 0x3FF));
  const Ints magnitude = hn::And(narrow, hn::Set(d, 0x7FFF));
  Ints result = hn::Add(hn::ShiftLeft<13>(magnitude), hn::Set(d, 112 << 23));
  const Ints small = hn::BitCast(
      d, hn::Mul(hn::ConvertTo(df, mantissa), hn::Set(df, 0x1.0p-24f)));
  result = hn::IfThenElse(hn::Eq(exponent, hn::Zero(d)), small, result);
  result = hn::IfThenElse(
      hn::Eq(exponent, hn::Set(d, 0x7C00)),
      hn::Or(hn::Set(d, 0x7F800000), hn::ShiftLeft<13>(mantissa)), result);
  return hn::Or(result, sign);
}

template <NarrowFloat kType>
void NarrowT(absl::Span<const float> in, uint8_t* HWY_RESTRICT out) {
  const FloatTag df;
  const IntTag d;
  const NarrowTag dn;
  const size_t n = hn::Lanes(df);
  const Ints sign_mask = hn::Set(d, 0x8000);
  size_t i = 0;
  for (; i + n <= in.size(); i += n) {
    const Ints bits = hn::BitCast(d, hn::LoadU(df, in.data() + i));
    const Ints sign = hn::And(hn::ShiftRight<16>(bits), sign_mask);
    const Ints narrow =
        kType == NarrowFloat::kBFloat16 ? BFloat16Of(bits) : Float16Of(bits);
    hn::StoreU(hn::DemoteTo(dn, hn::Or(narrow, sign)), dn,
               reinterpret_cast<uint16_t*>(out + 2 * i));
  }
  reference::NarrowFloats(kType, in.subspan(i), out + 2 * i);
}

template <NarrowFloat kType>
void WidenT(const uint8_t* HWY_RESTRICT in, absl::Span<float> out) {
  const FloatTag df;
  const IntTag d;
  const NarrowTag dn;
  const size_t n = hn::Lanes(df);
  size_t i = 0;
  for (; i + n <= out.size(); i += n) {
    const Ints narrow = hn::PromoteTo(
        d, hn::LoadU(dn, reinterpret_cast<const uint16_t*>(in + 2 * i)));
    const Ints bits = kType == NarrowFloat::kBFloat16
                          ? hn::ShiftLeft<16>(narrow)
                          : FloatOfFloat16(narrow);
    hn::StoreU(hn::BitCast(df, bits), df, out.data() + i);
  }
  reference::WidenFloats(kType, in + 2 * i, out.subspan(i));
}

}  // namespace

void Narrow(NarrowFloat type, absl::Span<const float> in, uint8_t* out) {
  if (type == NarrowFloat::kBFloat16) {
    NarrowT<NarrowFloat::kBFloat16>(in, out);
  } else {
    NarrowT<NarrowFloat::kFloat16>(in, out);
  }
}

void Widen(NarrowFloat type, const uint8_t* in, absl::Span<float> out) {
  if (type == NarrowFloat::kBFloat16) {
    WidenT<NarrowFloat::kBFloat16>(in, out);
  } else {
    WidenT<NarrowFloat::kFloat16>(in, out);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Narrow);
HWY_EXPORT(Widen);

void NarrowFloats(NarrowFloat type, absl::Span<const float> in, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(Narrow)(type, in, out);
}

void WidenFloats(NarrowFloat type, const uint8_t* in, absl::Span<float> out) {
  HWY_DYNAMIC_DISPATCH(Widen)(type, in, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
