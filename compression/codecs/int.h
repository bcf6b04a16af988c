// int(bits,block=64,round=nearest,clip=search): 1 to 8 bits per value, in
// blocks with an 8-bit logarithmic scale each: bits + 8 / block per value, plus
// one byte per payload.
//
// Payload and scales: compression/kernels/int_quantize.h and int_scale.h.
//
// round=nearest: to the nearest level, ties to the even code.
// round=stochastic: unbiased; the scale then covers the whole block and `clip`
//   has no effect, since clipping would bring a bias back.
// clip=search: the scale of least squared error among the largest ones; the
//   levels of 3 bits and more then include zero and one more on the side of the
//   block's largest magnitude. clip=minmax: levels symmetric, nothing clipped.
// 1 bit: levels -s and s, s the mean magnitude (minmax: the largest).
//
// A block with a NaN or an infinity decodes to NaN in all its elements; the
// others are encoded as if that one were zero. A block of zeros decodes to +0.
// A finite block decodes to finite values.
#ifndef DELTAPIPE_COMPRESSION_CODECS_INT_H_
#define DELTAPIPE_COMPRESSION_CODECS_INT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> IntParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeIntCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_INT_H_
