#include "compression/kernels/largest_magnitude.h"

#include <algorithm>

#include "base/float_cast.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/largest_magnitude.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

uint32_t Largest(absl::Span<const float> values) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const size_t n = hn::Lanes(d);
  const auto mask = hn::Set(du, 0x7FFFFFFFu);
  auto first = hn::Zero(du);
  auto second = hn::Zero(du);
  const auto bits = [&](size_t at) HWY_ATTR {
    return hn::And(hn::BitCast(du, hn::LoadU(d, values.data() + at)), mask);
  };
  size_t i = 0;
  for (; i + 2 * n <= values.size(); i += 2 * n) {
    first = hn::Max(first, bits(i));
    second = hn::Max(second, bits(i + n));
  }
  uint32_t largest = hn::GetLane(hn::MaxOfLanes(du, hn::Max(first, second)));
  for (; i < values.size(); ++i) {
    largest = std::max(largest, FloatBits(values[i]) & 0x7FFFFFFFu);
  }
  return largest;
}

}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Largest);

uint32_t LargestMagnitudeBits(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Largest)(values);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
