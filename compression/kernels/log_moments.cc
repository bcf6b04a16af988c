#include "compression/kernels/log_moments.h"

#include <algorithm>

#include "compression/kernels/reference/log_moments.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/log_moments.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

LogMoments Moments(absl::Span<const float> values) {
  return reference::LogMomentsOf(values);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using WideTag = hn::RepartitionToWide<IntTag>;

// Log2Units for vectors; `bits` of positive finite numbers.
template <class V>
HWY_INLINE V Units(V bits) {
  const FloatTag d;
  const IntTag di;
  const auto is_subnormal = hn::Lt(bits, hn::Set(di, 0x00800000));
  const auto scaled =
      hn::BitCast(di, hn::Mul(hn::BitCast(d, bits), hn::Set(d, 0x1p23f)));
  const auto normal = hn::IfThenElse(is_subnormal, scaled, bits);
  const auto bias =
      hn::IfThenElse(is_subnormal, hn::Set(di, 127 + 23), hn::Set(di, 127));
  const auto exponent = hn::Sub(hn::ShiftRight<23>(normal), bias);
  const auto one = hn::Set(d, 1.0f);
  const auto f =
      hn::Sub(hn::BitCast(d, hn::Or(hn::And(normal, hn::Set(di, 0x7FFFFF)),
                                    hn::Set(di, 0x3F800000))),
              one);
  const auto p = hn::Add(
      hn::Set(d, kLog2Coefficients[0]),
      hn::Mul(f, hn::Add(hn::Set(d, kLog2Coefficients[1]),
                         hn::Mul(f, hn::Set(d, kLog2Coefficients[2])))));
  const auto fraction = hn::Add(f, hn::Mul(hn::Mul(f, hn::Sub(one, f)), p));
  const auto rounded = hn::ConvertTo(
      di, hn::Add(hn::Mul(hn::Set(d, 256.0f), fraction), hn::Set(d, 0.5f)));
  return hn::Add(hn::ShiftLeft<8>(exponent), rounded);
}

}  // namespace

LogMoments Moments(absl::Span<const float> values) {
  const FloatTag d;
  const IntTag di;
  const WideTag wide;
  const hn::RebindToUnsigned<WideTag> unsigned_wide;
  const size_t n = hn::Lanes(d);
  // A lane's sum of so many units stays within 32 bits: 2^15 * 38,144 < 2^31.
  constexpr size_t kVectorsPerChunk = 1 << 15;
  const auto zero = hn::Zero(di);
  const auto infinity = hn::Set(di, 0x7F800000);
  auto sum_squares = hn::Zero(wide);
  LogMoments moments;
  size_t i = 0;
  while (i + n <= values.size()) {
    const size_t end =
        std::min(values.size() / n * n, i + kVectorsPerChunk * n);
    auto sum = zero;
    auto count = zero;
    for (; i < end; i += n) {
      const auto bits =
          hn::And(hn::BitCast(di, hn::LoadU(d, values.data() + i)),
                  hn::Set(di, 0x7FFFFFFF));
      const auto counts = hn::And(hn::Gt(bits, zero), hn::Lt(bits, infinity));
      const auto units = hn::IfThenElseZero(counts, Units(bits));
      count = hn::Sub(count, hn::VecFromMask(di, counts));
      sum = hn::Add(sum, units);
      const auto odd = hn::BitCast(
          di, hn::ShiftRight<32>(hn::BitCast(unsigned_wide, units)));
      sum_squares = hn::Add(sum_squares, hn::Add(hn::MulEven(units, units),
                                                 hn::MulEven(odd, odd)));
    }
    alignas(64) int32_t lanes[16];
    hn::Store(sum, di, lanes);
    for (size_t lane = 0; lane < n; ++lane) moments.sum += lanes[lane];
    hn::Store(count, di, lanes);
    for (size_t lane = 0; lane < n; ++lane) moments.count += lanes[lane];
  }
  alignas(64) int64_t squares[8];
  hn::Store(sum_squares, wide, squares);
  for (size_t lane = 0; lane < hn::Lanes(wide); ++lane) {
    moments.sum_squares += squares[lane];
  }
  const LogMoments rest = reference::LogMomentsOf(values.subspan(i));
  moments.count += rest.count;
  moments.sum += rest.sum;
  moments.sum_squares += rest.sum_squares;
  return moments;
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Moments);

LogMoments LogMomentsOf(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Moments)(values);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
