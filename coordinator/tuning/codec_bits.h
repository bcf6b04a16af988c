// The bits of a boundary's codec text, read and replaced.
//
// What surrounds the innermost codec stays: delta(int(4),first=int(8)) with 2
// bits is delta(int(2),first=int(8)), and so stay the rounding and clipping of
// an int. Pure; thread-safe.
#ifndef DELTAPIPE_COORDINATOR_TUNING_CODEC_BITS_H_
#define DELTAPIPE_COORDINATOR_TUNING_CODEC_BITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace deltapipe {

/// Of values on the wire, without scales.
struct CodecBits {
  int bits = 32;
  /// Values that share a scale; 0 where there are no scales.
  int64_t block = 0;
  /// Of another codec than int, sign, cast and none: its size with all that
  /// belongs to it, rounded. Its error does not follow from the bits.
  bool is_nominal = false;
};

/// The bits that a budget or the tuner chooses from: int(b), cast(bf16), none.
inline constexpr int kBitLevels[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 32};

/// INVALID_ARGUMENT if `codec` is none for a boundary.
absl::StatusOr<CodecBits> ReadCodecBits(const std::string& codec,
                                        bool is_gradient);

/// `codec` with `bits`, one of kBitLevels, and `block` values to a scale (0:
/// as it has now, or the default). In the codec's canonical spelling.
absl::StatusOr<std::string> WithBits(const std::string& codec, bool is_gradient,
                                     int bits, int64_t block = 0);

/// The canonical spelling: equal for texts that mean the same.
absl::StatusOr<std::string> CanonicalBoundaryCodec(const std::string& codec,
                                                   bool is_gradient);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_CODEC_BITS_H_
