// The levels that tensors of policies move up: 1, 2, 4, 8 bits, as they are.
//
// Pure functions.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_LADDER_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_LADDER_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace deltapipe {

/// Stands for a tensor as it is, whatever its type.
inline constexpr int kExactBits = 32;

/// Elements that share a least value and a scale (ActNN, section 4.1).
inline constexpr int kBitGroup = 256;

/// `bits`, moved up `times` levels.
inline int RaisedBits(int bits, int times) {
  for (; times > 0 && bits < kExactBits; --times) {
    bits = bits < 2 ? 2 : bits < 4 ? 4 : bits < 8 ? 8 : kExactBits;
  }
  return bits;
}

/// "1 bit", "4 bits", "as it is".
inline std::string BitsText(int bits) {
  if (bits >= kExactBits) return "as it is";
  return absl::StrCat(bits, bits == 1 ? " bit" : " bits");
}

/// The codec that quantises groups in `bits` without bias, from the group's
/// least value to its largest, both kept in 16 bits and rounded outward. Empty
/// for kExactBits.
inline std::string GroupCodecText(int bits) {
  if (bits >= kExactBits) return "";
  return absl::StrCat("int(", bits, ",block=", kBitGroup,
                      ",round=stochastic,levels=affine,scale=bf16)");
}

/// Bytes of that codec's payload, to within 2.
inline int64_t GroupCodecBytes(int64_t num_elements, int bits) {
  return (num_elements * bits + 7) / 8 +
         4 * ((num_elements + kBitGroup - 1) / kBitGroup);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_LADDER_H_
