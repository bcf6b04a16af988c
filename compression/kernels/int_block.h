// One block of the `int` codec in its general form: symmetric or affine levels,
// and a scale stored in 8, 16 or 32 bits, in double (double_levels.h).
// int_quantize.h is faster and does symmetric levels with 8-bit scales alone,
// in a payload of the same arrangement.
//
// A block is a scale, an origin (affine only) and codes, which mean
//
//   affine      origin + code * unit
//   symmetric   as int_scale.h: the unit, which the scale's flag negates
//
// in double, rounded once to fp32 and kept finite.
//
//   scale    log8      as int_scale.h; the flag is 0x80
//            bfloat16  the unit, rounded up; the sign bit is the flag
//            float32   likewise
//            A unit is at least 2^-126. 0 is a block of zeros (symmetric) or of
//            equal values (affine); infinities and NaN, with log8 127, a block
//            with a value that is not finite, which decodes to NaN.
//   origin   bf16. With levels that must cover the block it is rounded down.
//            Of equal values the upper 16 bits of the value, whose lower 16
//            bits take the place of the first codes, so that any value comes
//            back exactly.
//   codes    a stream of bits, least significant first; a block begins on a
//            byte and unused bits are 0. Affine blocks take 2 bytes or more.
//
// All sums are in double over 8 lanes, in a fixed order: the same bits on any
// machine. Thread-compatible; const methods may run at once.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_INT_BLOCK_H_
#define DELTAPIPE_COMPRESSION_KERNELS_INT_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/kernels/int_scale.h"

namespace deltapipe {

enum class IntScaleField { kLog8, kBFloat16, kFloat32 };

struct IntBlockFormat {
  IntFormat format;
  bool is_affine = false;
  IntScaleField field = IntScaleField::kLog8;
};

constexpr int64_t kIntMaxBlock = 4096;

inline int64_t IntScaleFieldBytes(const IntBlockFormat& format) {
  return format.field == IntScaleField::kLog8       ? 1
         : format.field == IntScaleField::kBFloat16 ? 2
                                                    : 4;
}

/// The bytes that the codes of a block of `count` values take.
inline int64_t IntBlockCodeBytes(const IntBlockFormat& format, int64_t count) {
  const int64_t bytes = (count * format.format.bits + 7) / 8;
  return format.is_affine && bytes < 2 ? 2 : bytes;
}

/// As they are stored.
struct IntBlockFields {
  uint32_t scale = 0;
  uint16_t origin = 0;
};

/// Chooses the window of the 8-bit scales of one payload (IntWindow).
class IntWindowChooser {
 public:
  explicit IntWindowChooser(const IntBlockFormat& format) : format_(format) {}
  void Add(absl::Span<const float> block);
  int Window() const;

 private:
  const IntBlockFormat format_;
  std::array<int64_t, 256> histogram_{};  // of fp32 exponent fields
};

class IntBlockCoder {
 public:
  /// `window` (at most kIntMaxWindow) is for 8-bit scales.
  IntBlockCoder(const IntBlockFormat& format, int window)
      : format_(format), units_(window) {}

  /// Encodes 1 to format.block values: writes IntBlockCodeBytes(values.size())
  /// to `packed`, returns the rest. With stochastic rounding value 64 g + 16 j
  /// + l (j < 4, l < 16) of block number `index` takes word j of the Philox
  /// block of counter 16 (index * ceil(block / 64) + g) + l.
  IntBlockFields Encode(absl::Span<const float> values, const RandomKey& key,
                        int64_t index, uint8_t* packed) const;

  /// The inverse; any fields and any bytes decode, to finite values or NaN.
  void Decode(const IntBlockFields& fields, const uint8_t* packed,
              absl::Span<float> out) const;

  /// Whether the bits of `packed` that a block of `count` values does not use
  /// are 0.
  bool UnusedBitsAreZero(const IntBlockFields& fields, const uint8_t* packed,
                         int64_t count) const;

 private:
  // code = (x - base) / step, rounded, within [low, high].
  struct Grid {
    double base;
    double step;
    double low;
    double high;
  };
  struct Summary {
    float min;
    float max;
    float magnitude() const { return max > -min ? max : -min; }
  };
  class Candidates;

  uint32_t FlagBit() const;
  uint32_t UnitAtLeast(double unit) const;
  uint32_t UnitNearest(double unit) const;
  bool IsFine(uint32_t scale) const;
  bool IsNear(uint32_t scale, double unit) const;
  double UnitOf(uint32_t scale) const;
  Grid GridOf(const IntBlockFields& fields) const;
  void AddRun(double unit, int length, uint32_t flag, Candidates* list) const;
  void ListSymmetric(const Summary& summary, absl::Span<const float> values,
                     Candidates* list) const;
  void ListAffine(const Summary& summary, absl::Span<const float> values,
                  Candidates* list) const;
  IntBlockFields Best(const Candidates& list,
                      absl::Span<const float> values) const;

  const IntBlockFormat format_;
  const IntUnits units_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_INT_BLOCK_H_
