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

// One Philox block per 64-bit lane, each word in a lower half; what the upper
// halves hold means nothing. So a product's upper half is one shift away and
// its lower half none.
template <class D>
struct PhiloxLanes {
  HWY_INLINE void Round(hwy::HWY_NAMESPACE::Vec<D> multiplier0,
                        hwy::HWY_NAMESPACE::Vec<D> multiplier1,
                        hwy::HWY_NAMESPACE::Vec<D> key0,
                        hwy::HWY_NAMESPACE::Vec<D> key1) {
    namespace hn = hwy::HWY_NAMESPACE;
    const D wide;
    const hn::Repartition<uint32_t, D> narrow;
    const auto product0 =
        hn::MulEven(hn::BitCast(narrow, c0), hn::BitCast(narrow, multiplier0));
    const auto product1 =
        hn::MulEven(hn::BitCast(narrow, c2), hn::BitCast(narrow, multiplier1));
    c0 = hn::Xor3(hn::ShiftRight<32>(hn::BitCast(wide, product1)), c1, key0);
    c1 = hn::BitCast(wide, product1);
    c2 = hn::Xor3(hn::ShiftRight<32>(hn::BitCast(wide, product0)), c3, key1);
    c3 = hn::BitCast(wide, product0);
  }

  hwy::HWY_NAMESPACE::Vec<D> c0, c1, c2, c3;
};

// words[16 * j + l] <- word j of the block with counter first_counter + l.
HWY_INLINE void PhiloxWords(const RandomKey& key, uint32_t first_counter,
                            uint32_t* HWY_RESTRICT words) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<uint32_t, 16> d;
  using Wide = hn::RepartitionToWide<decltype(d)>;
  const Wide wide;
  const size_t n = hn::Lanes(d);
  const auto counter = key.PhiloxCounter(0);
  const auto philox_key = key.PhiloxKey();
  const auto multiplier0 = hn::Set(wide, uint64_t{0xD2511F53u});
  const auto multiplier1 = hn::Set(wide, uint64_t{0xCD9E8D57u});
  const auto weyl0 = hn::Set(d, 0x9E3779B9u);
  const auto weyl1 = hn::Set(d, 0xBB67AE85u);
  const auto c1 = hn::Set(wide, uint64_t{counter[1]});
  const auto c2 = hn::Set(wide, uint64_t{counter[2]});
  const auto c3 = hn::Set(wide, uint64_t{counter[3]});
  for (size_t lane = 0; lane < 16; lane += n) {
    const auto c0 = hn::BitCast(
        wide, hn::Iota(d, first_counter + static_cast<uint32_t>(lane)));
    PhiloxLanes<Wide> even = {c0, c1, c2, c3};
    PhiloxLanes<Wide> odd = {hn::ShiftRight<32>(c0), c1, c2, c3};
    auto key0 = hn::Set(d, philox_key[0]);
    auto key1 = hn::Set(d, philox_key[1]);
    // Whole, so that what is the same for all counters, keys and a tenth of the
    // products, leaves a caller's loop over counters.
    HWY_UNROLL(9)
    for (int round = 0; round < 9; ++round) {
      const auto wide_key0 = hn::BitCast(wide, key0);
      const auto wide_key1 = hn::BitCast(wide, key1);
      even.Round(multiplier0, multiplier1, wide_key0, wide_key1);
      odd.Round(multiplier0, multiplier1, wide_key0, wide_key1);
      key0 = hn::Add(key0, weyl0);
      key1 = hn::Add(key1, weyl1);
    }
    // The last round puts even and odd lanes together before it adds them up.
    const auto lower = [&](auto of_even, auto of_odd) HWY_ATTR {
      return hn::OddEven(hn::DupEven(hn::BitCast(d, of_odd)),
                         hn::BitCast(d, of_even));
    };
    const auto upper = [&](auto of_even, auto of_odd) HWY_ATTR {
      return hn::OddEven(of_odd, hn::DupOdd(of_even));
    };
    const auto narrow0 = hn::BitCast(d, multiplier0);
    const auto narrow1 = hn::BitCast(d, multiplier1);
    const auto even0 =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, even.c0), narrow0));
    const auto even1 =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, even.c2), narrow1));
    const auto odd0 =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, odd.c0), narrow0));
    const auto odd1 =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, odd.c2), narrow1));
    uint32_t* const out = words + lane;
    hn::Store(hn::Xor3(upper(even1, odd1), lower(even.c1, odd.c1), key0), d,
              out);
    hn::Store(lower(even1, odd1), d, out + 16);
    hn::Store(hn::Xor3(upper(even0, odd0), lower(even.c3, odd.c3), key1), d,
              out + 32);
    hn::Store(lower(even0, odd0), d, out + 48);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
