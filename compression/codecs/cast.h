// cast(bf16|fp16): 16-bit floats.
//
// Payload: 2 bytes per element, little-endian, in order.
//
// Rounds to nearest, ties to even, and keeps subnormals. Finite values stay
// finite: beyond the narrow type's range they become its largest finite value.
// Infinities stay; a NaN decodes as a quiet NaN of the same sign.
#ifndef DELTAPIPE_COMPRESSION_CODECS_CAST_H_
#define DELTAPIPE_COMPRESSION_CODECS_CAST_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> CastParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeCastCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_CAST_H_
