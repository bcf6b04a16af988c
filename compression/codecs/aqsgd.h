// aqsgd(bits,row=0): the quantizer that AQ-SGD was published with, kept to
// compare others with. Prefer int: at 2 to 4 bits its error is 20 to 50 %
// smaller.
//
// One scale per channel over the whole sequence: the values are rows of `row`
// channels, and a channel is what stands at one place of all rows; row=0 takes
// everything for one channel. With m the channel's largest magnitude and
// h = 2^(bits-1):
//
//   s    = fp16(m)
//   y    = round_half_even(x / fp16(s + 1e-6) * h), clipped to [-h, h - 1]
//   code = y + h
//   x'   = (code - h) / h * s
//
// in fp32, as the authors' code (DS3Lab/AC-SGD, compress/fixpoint.py) does for
// fp32 tensors and its default scale; its output to the bit, but for a channel
// beyond 65,504: there s is infinite and everything becomes NaN, here s stays
// at 65,504 and larger values are clipped.
//
// Payload of n > 0 elements in c = min(row, n) channels (row=0: 1):
//   f16[c]                  scales, little-endian
//   u8[ceil(n * bits / 8)]  the codes as one stream of bits, least significant
//                           first; the unused bits at the end are 0
// No elements, no bytes. bits + 16 / number of rows per element.
//
// Known defects, kept: an asymmetric range, so that a channel's positive
// maximum loses 2^(1-bits) of itself and 1 bit means the levels -s and 0;
// biased, and more so the fewer bits there are; one large value takes the
// resolution of its whole channel; channels below 3e-8 become 0, since fp16
// does, and those up to 1e-5 are distorted by the 1e-6.
//
// A channel with a NaN or an infinity decodes to NaN in all its elements, the
// others as if they were alone. Finite channels decode to finite values.
//
// Wang et al., "Fine-tuning Language Models over Slow Networks using Activation
// Compression with Guarantees", NeurIPS 2022, arXiv 2206.01299.
#ifndef DELTAPIPE_COMPRESSION_CODECS_AQSGD_H_
#define DELTAPIPE_COMPRESSION_CODECS_AQSGD_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> AqsgdParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeAqsgdCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_AQSGD_H_
