#include "compression/delta/not_finite.h"

#include <algorithm>

#include "base/float_cast.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/delta/not_finite.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

// Each lane of a counter takes one value in every turn: it cannot overflow
// within a run of 2^30 values.
constexpr size_t kRun = size_t{1} << 30;

int64_t CountRun(const float* values, size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t n = hn::Lanes(d);
  // Without its sign, what is not finite is 0x7F800000 or more.
  const auto magnitude = hn::Set(di, 0x7FFFFFFF);
  const auto largest_finite = hn::Set(di, 0x7F7FFFFF);
  const auto is_not_finite = [&](size_t at) HWY_ATTR {
    const auto bits = hn::BitCast(di, hn::LoadU(d, values + at));
    return hn::VecFromMask(di,
                           hn::Gt(hn::And(bits, magnitude), largest_finite));
  };
  // A mask is -1 in each of its lanes.
  auto first = hn::Zero(di);
  auto second = hn::Zero(di);
  size_t i = 0;
  for (; i + 2 * n <= count; i += 2 * n) {
    first = hn::Sub(first, is_not_finite(i));
    second = hn::Sub(second, is_not_finite(i + n));
  }
  int64_t found = hn::GetLane(hn::SumOfLanes(di, hn::Add(first, second)));
  for (; i < count; ++i) {
    found += (FloatBits(values[i]) & 0x7FFFFFFFu) > 0x7F7FFFFFu ? 1 : 0;
  }
  return found;
}

int64_t Count(absl::Span<const float> values) {
  int64_t found = 0;
  for (size_t begin = 0; begin < values.size(); begin += kRun) {
    found +=
        CountRun(values.data() + begin, std::min(kRun, values.size() - begin));
  }
  return found;
}

}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Count);

int64_t CountNotFinite(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Count)(values);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
