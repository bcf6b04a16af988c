// A codec that a user named, as the lowest level of a ladder: above it groups
// of 4 or 8 bits, and the tensor as it is.
//
// For policies that take a codec. Pure functions, thread-safe.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_CODEC_LADDER_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_CODEC_LADDER_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "compression/codec_spec.h"

namespace deltapipe {

class CodecLadder {
 public:
  /// INVALID_ARGUMENT as MakeCodecFromSpec.
  static absl::StatusOr<CodecLadder> Create(const CodecSpec& codec);
  /// Likewise, but `none` is the tensor as it is, in its own type.
  static absl::StatusOr<CodecLadder> OrAsItIs(const CodecSpec& codec);

  /// Empty: as it is. The codec's bits per element, rounded down, say which
  /// levels are above it.
  std::string CodecText(int times_raised) const;
  /// "int(4)", "8 bits", "as it is".
  std::string LevelText(int times_raised) const;

 private:
  CodecLadder(std::string text, int bits)
      : text_(std::move(text)), bits_(bits) {}

  std::string text_;
  int bits_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_CODEC_LADDER_H_
