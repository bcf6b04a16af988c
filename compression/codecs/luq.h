// luq(block=128,samples=1,range=exact,momentum=0.1): logarithmic unbiased
// quantization to 4 bits, for activation gradients: exactly 15 values, zero and
// +-alpha * 2^0 .. 2^6, alpha the block's largest magnitude over 64.
//
// Payload: compression/kernels/minifloat_quantize.h, with 3 exponent bits and
// no mantissa; the stored scale is 32 alpha in bf16, rounded up, so that
// nothing is clipped. A code is sign * 8 + magnitude: 0 is zero, 1..7 alpha *
// 2^0 .. 2^6; code 8 is never written and decodes to zero. 4 samples + 16 /
// block bits per value.
//
// Chmiel et al., "Accurate neural training with 4-bit matrix multiplications at
// standard formats" (LUQ), ICLR 2023, arXiv 2112.10769: below alpha,
// sign(x) alpha with probability |x| / alpha, else 0; between L = 2^e alpha and
// 2L, 2L with probability (|x| - L) / L, else L. So E[Q(x)] = x. The paper's
// text has 5 magnitudes and its code 8, which do not fit 4 bits with a zero.
//
// samples=N sends N independent draws over one scale, N times the bits; Decode
// gives their mean, whose variance is that of one draw over N (the paper's SMP
// averages products instead, which is equal in expectation).
//
// block=0: one scale for the payload, as in the paper. range=hindsight: the
// same, and EncodeNext takes the running maximum that the tensors before left,
//   m <- (1 - momentum) * max|x| + momentum * m,
// instead of this one's maximum. Values beyond it are clamped, which biases
// them: E[Q(x)] = sign(x) min(|x|, m), m rounded up to bf16. The first tensor,
// Encode, and all after a maximum of 0 use their own.
//
// A block with a NaN or an infinity decodes to NaN in all its elements and
// leaves the running maximum as it is; a block of zeros decodes to +0.
// Magnitudes above the largest bf16 number may decode to the largest float.
// Blocks below 2^-120 use alpha = 2^-131.
#ifndef DELTAPIPE_COMPRESSION_CODECS_LUQ_H_
#define DELTAPIPE_COMPRESSION_CODECS_LUQ_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> LuqParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeLuqCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_LUQ_H_
