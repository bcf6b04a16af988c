// Philox4x32-10 for 16 counters at once. Included once per vector target,
// inside Highway's target loop (hence no ordinary include guard).
#if defined(DELTAPIPE_COMPRESSION_KERNELS_PHILOX_VECTOR_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DELTAPIPE_COMPRESSION_KERNELS_PHILOX_VECTOR_INL_H_
#undef DELTAPIPE_COMPRESSION_KERNELS_PHILOX_VECTOR_INL_H_
#else
#define DELTAPIPE_COMPRESSION_KERNELS_PHILOX_VECTOR_INL_H_
#endif

#include <cstdint>

#include "base/philox.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR

// The 64-bit products of each lane with `factor`, as high and low halves.
template <class D, class V>
HWY_INLINE void MultiplyWide(D d, V values, V factor, V& high, V& low) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RepartitionToWide<D> wide;
  const auto even = hn::MulEven(values, factor);
  const auto odd = hn::MulEven(
      hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, values))), factor);
  high = hn::OddEven(hn::BitCast(d, odd),
                     hn::BitCast(d, hn::ShiftRight<32>(even)));
  low =
      hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
}

// words[16 * j + l] <- word j of the block with counter first_counter + l.
HWY_INLINE void PhiloxWords(const RandomKey& key, uint32_t first_counter,
                            uint32_t* HWY_RESTRICT words) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<uint32_t, 16> d;
  const size_t n = hn::Lanes(d);
  const auto counter = key.PhiloxCounter(0);
  const auto multiplier0 = hn::Set(d, 0xD2511F53u);
  const auto multiplier1 = hn::Set(d, 0xCD9E8D57u);
  for (size_t lane = 0; lane < 16; lane += n) {
    auto c0 = hn::Iota(d, first_counter + static_cast<uint32_t>(lane));
    auto c1 = hn::Set(d, counter[1]);
    auto c2 = hn::Set(d, counter[2]);
    auto c3 = hn::Set(d, counter[3]);
    auto round_key = key.PhiloxKey();
    for (int round = 0; round < 10; ++round) {
      auto high0 = c0, low0 = c0, high1 = c0, low1 = c0;
      MultiplyWide(d, c0, multiplier0, high0, low0);
      MultiplyWide(d, c2, multiplier1, high1, low1);
      c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, round_key[0]));
      c1 = low1;
      c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, round_key[1]));
      c3 = low0;
      round_key[0] += 0x9E3779B9u;
      round_key[1] += 0xBB67AE85u;
    }
    hn::Store(c0, d, words + lane);
    hn::Store(c1, d, words + 16 + lane);
    hn::Store(c2, d, words + 32 + lane);
    hn::Store(c3, d, words + 48 + lane);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
