// fp(exponent,mantissa,block=128,round=nearest): minifloats with a scale per
// block, one sign bit and any split of 2 to 8 bits in all, subnormals included:
// 1 + exponent + mantissa + 16 / block bits per value.
//
// Payload: compression/kernels/minifloat_quantize.h. Scales are bf16, rounded
// up, and put the block's largest magnitude at the top of the range or less
// than 1/128 below. No code stands for an infinity or a NaN; the code of -0 is
// never written. fp(1,m) has equal steps, fp(1,0) the values -1, 0, 1.
//
// fp(auto,bits): 3 to 8 bits in all, split for each payload as fits the
// standard deviation of ln|x| within its blocks (minifloat_split.h). One byte
// precedes the payload: the exponent bits, 1..bits - 1.
//
// round=nearest: to the nearest value, ties to the even code, to within 2^-24
// of the smallest normal magnitude. round=stochastic: unbiased, up with a
// probability equal to the fraction (minifloat_quantize.h).
//
// Chmiel et al., "Neural gradients are near-lognormal", ICLR 2021, arXiv
// 2006.08173, on the optimal floating-point format.
//
// A block with a NaN or an infinity decodes to NaN in all its elements; the
// others are encoded as if that one were zero. A block of zeros decodes to +0.
// A finite block decodes to finite values; where they would be above, the
// largest float.
#ifndef DELTAPIPE_COMPRESSION_CODECS_FP_H_
#define DELTAPIPE_COMPRESSION_CODECS_FP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> FpParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeFpCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_FP_H_
