// none: fp32 values as they are.
//
// Payload: 4 bytes per element, IEEE 754 binary32, little-endian. Every bit
// pattern survives, NaN payloads included.
#ifndef DELTAPIPE_COMPRESSION_CODECS_NONE_H_
#define DELTAPIPE_COMPRESSION_CODECS_NONE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> NoneParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeNoneCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_NONE_H_
