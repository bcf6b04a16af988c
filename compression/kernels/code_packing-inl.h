// bit_packing.h in vectors, for the widths where they are faster: 4 bits.
// Included once per vector target, inside Highway's target loop (hence no
// ordinary include guard).
//
// The functions called Block take codes in memory, one per byte; PackNibblesOf
// takes them from registers, where the kernel has just made them.
#if defined(DELTAPIPE_COMPRESSION_KERNELS_CODE_PACKING_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DELTAPIPE_COMPRESSION_KERNELS_CODE_PACKING_INL_H_
#undef DELTAPIPE_COMPRESSION_KERNELS_CODE_PACKING_INL_H_
#else
#define DELTAPIPE_COMPRESSION_KERNELS_CODE_PACKING_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "compression/kernels/bit_packing.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR

// The low nibbles of each two bytes, in one byte.
template <class D16>
HWY_INLINE void StoreNibbles(D16 d16, hwy::HWY_NAMESPACE::Vec<D16> pairs,
                             uint8_t* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D16> di16;
  const hn::Rebind<uint8_t, D16> d8;
  const auto bytes = hn::And(hn::Or(pairs, hn::ShiftRight<4>(pairs)),
                             hn::Set(d16, uint16_t{0xFF}));
  hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di16, bytes)), d8, out);
}

// PackCodes<kBits>.
template <int kBits>
HWY_INLINE void PackBlock(const uint8_t* HWY_RESTRICT codes, size_t count,
                          uint8_t* HWY_RESTRICT out, const uint8_t* end) {
  namespace hn = hwy::HWY_NAMESPACE;
  size_t i = 0;
  if (kBits == 4) {
    const hn::CappedTag<uint16_t, 16> d16;
    const hn::Repartition<uint8_t, decltype(d16)> pair8;
    const size_t n = hn::Lanes(d16);
    for (; i + 2 * n <= count; i += 2 * n) {
      StoreNibbles(d16, hn::BitCast(d16, hn::LoadU(pair8, codes + i)),
                   out + i / 2);
    }
  }
  if (i < count) PackCodes<kBits>(codes + i, count - i, out + i / 2, end);
}

// UnpackCodes<kBits>.
template <int kBits>
HWY_INLINE void UnpackBlock(const uint8_t* HWY_RESTRICT in, const uint8_t* end,
                            size_t count, uint8_t* HWY_RESTRICT codes) {
  namespace hn = hwy::HWY_NAMESPACE;
  size_t i = 0;
  if (kBits == 4) {
    const hn::CappedTag<uint16_t, 32> d16;
    const hn::Rebind<uint8_t, decltype(d16)> d8;
    const hn::Repartition<uint8_t, decltype(d16)> pair8;
    const size_t n = hn::Lanes(d16);
    for (; i + 2 * n <= count; i += 2 * n) {
      const auto bytes = hn::PromoteTo(d16, hn::LoadU(d8, in + i / 2));
      const auto pairs = hn::And(hn::Or(bytes, hn::ShiftLeft<4>(bytes)),
                                 hn::Set(d16, uint16_t{0x0F0F}));
      hn::StoreU(hn::BitCast(pair8, pairs), pair8, codes + i);
    }
  }
  if (i < count) UnpackCodes<kBits>(in + i / 2, end, count - i, codes + i);
}

// Writes the 4n codes of four vectors of n, which are floats, as 2n bytes of
// nibbles: vector after vector, lane after lane.
template <class D>
HWY_INLINE void PackNibblesOf(D d, hwy::HWY_NAMESPACE::Vec<D> codes0,
                              hwy::HWY_NAMESPACE::Vec<D> codes1,
                              hwy::HWY_NAMESPACE::Vec<D> codes2,
                              hwy::HWY_NAMESPACE::Vec<D> codes3,
                              uint8_t* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const hn::Repartition<uint8_t, D> d8;
  const hn::Repartition<uint16_t, D> d16;
  constexpr size_t kLanes = hn::MaxLanes(D());
  constexpr size_t kParts = kLanes / 4;
  // Byte j of lane l is code l of vector j: the lowest bits of exact sums, of
  // which there are fewer than of masks and shifts.
  const auto bias = hn::Set(d, 0x1p23f);
  const auto three =
      hn::MulAdd(codes2, hn::Set(d, 65536.0f),
                 hn::MulAdd(codes1, hn::Set(d, 256.0f), hn::Add(codes0, bias)));
  const auto bytes =
      hn::Or(hn::And(hn::BitCast(du, three), hn::Set(du, 0xFFFFFFu)),
             hn::ShiftLeft<24>(hn::BitCast(du, hn::Add(codes3, bias))));
  // In each 128 bits, the bytes j together; then the 128 bits of each j.
  alignas(16) static constexpr uint8_t kTranspose[16] = {
      0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  alignas(64) static constexpr uint32_t kGather16[16] = {
      0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  alignas(64) static constexpr uint32_t kGather8[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  alignas(64) static constexpr uint32_t kGather4[4] = {0, 1, 2, 3};
  static_assert(kParts == 1 || kParts == 2 || kParts == 4, "");
  const auto parts =
      hn::BitCast(du, hn::TableLookupBytes(hn::BitCast(d8, bytes),
                                           hn::LoadDup128(d8, kTranspose)));
  const auto ordered = hn::TableLookupLanes(
      parts, hn::SetTableIndices(du, kParts == 4   ? kGather16
                                     : kParts == 2 ? kGather8
                                                   : kGather4));
  StoreNibbles(d16, hn::BitCast(d16, ordered), out);
}

// Writes `count` lanes, at most all of them, and nothing after them.
template <class D>
HWY_INLINE void StoreFirst(D d, hwy::HWY_NAMESPACE::Vec<D> values, size_t count,
                           hwy::HWY_NAMESPACE::TFromD<D>* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  if (count >= hn::Lanes(d)) return hn::StoreU(values, d, out);
  alignas(64) hn::TFromD<D> lanes[hn::MaxLanes(D())];
  hn::Store(values, d, lanes);
  std::memcpy(out, lanes, count * sizeof(lanes[0]));
}

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
