// sign(block=2048,scale=rms): 1 bit per value and the RMS of each block as its
// scale, as 1-bit LAMB has it; scale=mean: the mean magnitude, which has the
// least squared error of all scales. block=0 gives one scale for the whole
// payload. 1 + 32 / block bits per value.
//
// Payload of n > 0 elements:
//   f32[ceil(n / block)]   scales, little-endian
//   u8[ceil(n / 8)]        the signs, least significant bit first; a bit is 1
//                          where the value is >= 0, so zero counts as +1 (and
//                          so does -0.0); the unused bits at the end are 0
// No elements, no bytes. An element decodes to +scale or -scale.
//
// The RMS is sqrt(sum of squares / count), the mean sum of magnitudes / count,
// in double and rounded once to fp32: no finite input overflows. A block with a
// NaN or an infinity has a NaN as scale and decodes to NaN in all its elements.
#ifndef DELTAPIPE_COMPRESSION_CODECS_SIGN_H_
#define DELTAPIPE_COMPRESSION_CODECS_SIGN_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> SignParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeSignCodec(
    const CodecArguments& arguments);

struct SignFormat {
  int64_t block = 0;     // values that share a scale; 0: all of them
  bool is_mean = false;  // else the RMS

  int64_t ScaleBytes(int64_t num_elements) const;
  /// Of the first of the values that are left.
  int64_t BlockCount(int64_t remaining) const;
  float ScaleOf(absl::Span<const float> block) const;
};

/// The format of a codec made here; null for all others. Lives as long as
/// `codec`.
const SignFormat* SignFormatOf(const Codec& codec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_SIGN_H_
