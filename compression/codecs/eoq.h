// eoq_shift8(round=nearest,block=0) and eoq_flag8(round=nearest,block=0): the
// 8-bit quantizers for errors and gradients of EOQ, which takes them from
// WAGEUBN, with a power of two as scale:
//
//   R = 2^round(log2 max|x|), over a block (block=0: the payload, as published)
//
// eoq_shift8, the shift quantizer: x becomes c R / 128, c = Q(128 x / R)
// clipped to -127..127. 8 + 8 / block bits per value. round=stochastic is the
// rounding of the paper's constant quantizer, which has the same levels.
//
// eoq_flag8, the flag quantizer: with Sc = R / 128, |x| >= Sc becomes c Sc as
// above (flag 0) and |x| < Sc becomes c Sc / 128 (flag 1), which covers the
// 14 octaves below R with two steps. 9 + 8 / block bits per value.
//
// Payload of n > 0 elements:
//   u8[ceil(n / block)]  log2(R) + 126, 1..254; 0 for a block of zeros, 255 for
//                        one with a NaN or an infinity
//   i8[n]                c; 0 in these two kinds of blocks
//   u8[ceil(n / 8)]      eoq_flag8: the flags, least significant bit first; the
//                        unused bits at the end are 0
// No elements, no bytes. A block with a NaN or an infinity decodes to NaN in
// all its elements. log2(R) is kept within -125..128.
//
// Clipping: max|x| / R lies between 2^-0.5 and 2^0.5. What is above 127 R / 128
// becomes 127 R / 128 (of the half step above it, nearest makes that anyway):
// an error of less than 0.2985 max|x|, always towards zero. Below, stochastic
// rounding has mean x, to within 2^-24 steps, and nearest, ties to even, errs
// by half a step at most; hence is_unbiased is false for both.
//
// Yang et al., "Towards efficient full 8-bit integer DNN online training on
// resource-limited devices without batch normalization"
// (EOQ), Neurocomputing 2022, arXiv 2105.13890; Yang et al., WAGEUBN, Neural
// Networks 2020, arXiv 1909.02384.
#ifndef DELTAPIPE_COMPRESSION_CODECS_EOQ_H_
#define DELTAPIPE_COMPRESSION_CODECS_EOQ_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> EoqShift8Parameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeEoqShift8Codec(
    const CodecArguments& arguments);

absl::Span<const CodecParameter> EoqFlag8Parameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeEoqFlag8Codec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_EOQ_H_
