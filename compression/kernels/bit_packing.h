// Codes of 1 to 8 bits, one per byte, to a dense stream of bits and back: eight
// codes at a time in one 64-bit word. The stream is least significant bit
// first: code i takes the bits from i * kBits on. Kernels take
// code_packing-inl.h, which does some widths faster.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_BIT_PACKING_H_
#define DELTAPIPE_COMPRESSION_KERNELS_BIT_PACKING_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deltapipe {

/// Gathers the low kBits of each byte of `codes` in the low 8 * kBits bits.
template <int kBits>
inline uint64_t GatherCodes(uint64_t codes) {
  if (kBits == 8) return codes;
  constexpr uint64_t kBytes = 0x00FF00FF00FF00FFu;
  constexpr uint64_t kPairs = 0x0000FFFF0000FFFFu;
  codes = (codes & kBytes) | ((codes & ~kBytes) >> (8 - kBits));
  codes = (codes & kPairs) | ((codes & ~kPairs) >> (16 - 2 * kBits));
  return (codes & 0xFFFFFFFFu) | ((codes >> 32) << (4 * kBits));
}

/// The inverse of GatherCodes.
template <int kBits>
inline uint64_t SpreadCodes(uint64_t bits) {
  if (kBits == 8) return bits;
  constexpr uint64_t kFour = (uint64_t{1} << (4 * kBits)) - 1;
  constexpr uint64_t kTwo =
      ((uint64_t{1} << (2 * kBits)) - 1) * 0x0000000100000001u;
  constexpr uint64_t kOne = ((uint64_t{1} << kBits) - 1) * 0x0001000100010001u;
  bits = (bits & kFour) | (((bits >> (4 * kBits)) & kFour) << 32);
  bits = (bits & kTwo) | (((bits >> (2 * kBits)) & kTwo) << 16);
  return (bits & kOne) | (((bits >> kBits) & kOne) << 8);
}

/// Writes `count` codes as (count * kBits + 7) / 8 bytes at `out`, with unused
/// bits 0. May overwrite further bytes before `end` (to be written later);
/// reads up to the next multiple of 8 codes.
template <int kBits>
inline void PackCodes(const uint8_t* codes, size_t count, uint8_t* out,
                      const uint8_t* end) {
  for (size_t i = 0; i < count; i += 8) {
    uint64_t word;
    std::memcpy(&word, codes + i, sizeof(word));
    if (count - i < 8) word &= (uint64_t{1} << (8 * (count - i))) - 1;
    const uint64_t bits = GatherCodes<kBits>(word);
    const size_t room = static_cast<size_t>(end - out);
    if (room >= sizeof(bits)) {
      std::memcpy(out, &bits, sizeof(bits));
    } else {
      std::memcpy(out, &bits, room < kBits ? room : kBits);
    }
    out += kBits;
  }
}

/// Reads `count` codes from `in` and never beyond `end`; writes up to the next
/// multiple of 8 codes.
template <int kBits>
inline void UnpackCodes(const uint8_t* in, const uint8_t* end, size_t count,
                        uint8_t* codes) {
  for (size_t i = 0; i < count; i += 8) {
    uint64_t bits = 0;
    const size_t room = static_cast<size_t>(end - in);
    if (room >= sizeof(bits)) {
      std::memcpy(&bits, in, sizeof(bits));
    } else {
      std::memcpy(&bits, in, room < kBits ? room : kBits);
    }
    const uint64_t word = SpreadCodes<kBits>(bits);
    std::memcpy(codes + i, &word, sizeof(word));
    in += kBits;
  }
}

/// Calls `function` with std::integral_constant<int, bits>: how a number of
/// bits, 1 to 8, that is known at run time only picks its kernel.
template <class Function>
inline auto DispatchBits(int bits, Function&& function) {
  switch (bits) {
    case 1:
      return function(std::integral_constant<int, 1>());
    case 2:
      return function(std::integral_constant<int, 2>());
    case 3:
      return function(std::integral_constant<int, 3>());
    case 4:
      return function(std::integral_constant<int, 4>());
    case 5:
      return function(std::integral_constant<int, 5>());
    case 6:
      return function(std::integral_constant<int, 6>());
    case 7:
      return function(std::integral_constant<int, 7>());
    default:
      return function(std::integral_constant<int, 8>());
  }
}

/// PackCodes and UnpackCodes for a number of bits that is not a constant.
inline void PackCodes(int bits, const uint8_t* codes, size_t count,
                      uint8_t* out, const uint8_t* end) {
  DispatchBits(bits, [&](auto constant) {
    PackCodes<decltype(constant)::value>(codes, count, out, end);
  });
}

inline void UnpackCodes(int bits, const uint8_t* in, const uint8_t* end,
                        size_t count, uint8_t* codes) {
  DispatchBits(bits, [&](auto constant) {
    UnpackCodes<decltype(constant)::value>(in, end, count, codes);
  });
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_BIT_PACKING_H_
