#include "compression/kernels/channel_quantize.h"

#include "compression/kernels/reference/channel_quantize.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/channel_quantize.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

void Maxima(absl::Span<const float> row, absl::Span<float> channels) {
  reference::UpdateChannelMaxima(row, channels);
}
void Codes(absl::Span<const float> row, absl::Span<const float> divisors,
           float half, uint8_t* codes) {
  reference::ChannelCodes(row, divisors, half, codes);
}
void Values(const uint8_t* codes, absl::Span<const float> scales, float half,
            absl::Span<float> row) {
  reference::ChannelValues(codes, scales, half, row);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using ByteTag = hn::Rebind<uint8_t, FloatTag>;

// What is left of `channels` from i on: the one channel of all, if it is one.
absl::Span<const float> From(absl::Span<const float> channels, size_t i) {
  return channels.size() == 1 ? channels : channels.subspan(i);
}

}  // namespace

void Maxima(absl::Span<const float> row, absl::Span<float> channels) {
  const FloatTag d;
  const IntTag di;
  const size_t n = hn::Lanes(d);
  size_t i = 0;
  for (; i + n <= row.size(); i += n) {
    const auto value = hn::BitCast(di, hn::Abs(hn::LoadU(d, row.data() + i)));
    const auto channel =
        hn::BitCast(di, hn::Abs(hn::LoadU(d, channels.data() + i)));
    hn::StoreU(hn::BitCast(d, hn::Max(value, channel)), d, channels.data() + i);
  }
  reference::UpdateChannelMaxima(row.subspan(i), channels.subspan(i));
}

void Codes(absl::Span<const float> row, absl::Span<const float> divisors,
           float half, uint8_t* codes) {
  const FloatTag d;
  const IntTag di;
  const ByteTag db;
  const size_t n = hn::Lanes(d);
  const bool is_one = divisors.size() == 1;
  const auto halves = hn::Set(d, half);
  const auto low = hn::Set(d, -half), high = hn::Set(d, half - 1);
  auto divisor = hn::Set(d, divisors.empty() ? 1.0f : divisors[0]);
  size_t i = 0;
  for (; i + n <= row.size(); i += n) {
    if (!is_one) divisor = hn::LoadU(d, divisors.data() + i);
    const auto is_good = hn::Eq(divisor, divisor);
    const auto level =
        hn::Mul(hn::Div(hn::LoadU(d, row.data() + i), divisor), halves);
    const auto clipped = hn::Min(hn::Max(level, low), high);
    const auto code = hn::Add(hn::Round(clipped), halves);
    const auto kept = hn::IfThenElseZero(is_good, code);
    hn::StoreU(hn::DemoteTo(db, hn::ConvertTo(di, kept)), db, codes + i);
  }
  if (i < row.size()) {
    reference::ChannelCodes(row.subspan(i), From(divisors, i), half, codes + i);
  }
}

void Values(const uint8_t* codes, absl::Span<const float> scales, float half,
            absl::Span<float> row) {
  const FloatTag d;
  const IntTag di;
  const ByteTag db;
  const size_t n = hn::Lanes(d);
  const bool is_one = scales.size() == 1;
  const auto halves = hn::Set(d, half);
  // A power of two: exact.
  const auto inverse = hn::Set(d, 1 / half);
  auto scale = hn::Set(d, scales.empty() ? 1.0f : scales[0]);
  size_t i = 0;
  for (; i + n <= row.size(); i += n) {
    if (!is_one) scale = hn::LoadU(d, scales.data() + i);
    const auto code =
        hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(db, codes + i)));
    const auto level = hn::Mul(hn::Sub(code, halves), inverse);
    hn::StoreU(hn::Mul(level, scale), d, row.data() + i);
  }
  if (i < row.size()) {
    reference::ChannelValues(codes + i, From(scales, i), half, row.subspan(i));
  }
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Maxima);
HWY_EXPORT(Codes);
HWY_EXPORT(Values);

void UpdateChannelMaxima(absl::Span<const float> row,
                         absl::Span<float> channels) {
  HWY_DYNAMIC_DISPATCH(Maxima)(row, channels);
}

void ChannelCodes(absl::Span<const float> row, absl::Span<const float> divisors,
                  float half, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Codes)(row, divisors, half, codes);
}

void ChannelValues(const uint8_t* codes, absl::Span<const float> scales,
                   float half, absl::Span<float> row) {
  HWY_DYNAMIC_DISPATCH(Values)(codes, scales, half, row);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
