// dual_precision(low_bits=16,high_bits=2,block=8,height=0,width=0): the low
// frequencies of images finely, the rest coarsely.
//
// The values are planes of height x width, the last of them perhaps short.
// Per block of block x block pixels (less at the right and lower edges, which
// need no padding) the mean of its pixels is kept in low_bits; what is left of
// each pixel then goes, in high_bits, onto even levels from the plane's
// smallest rest to its largest, rounded stochastically. Where height or width
// are not known (0) or height is 1, a plane is one row, of all values if width
// is 0, and a block is block^2 of them.
//
// Payload, plane after plane:
//   bf16               half the bias of the rest, rounded down
//   bf16               half its scale, rounded up
//   low_bits=16        bf16[blocks], means by rows of blocks, nearest even
//   low_bits=8         bf16 bias, bf16 scale, u8[blocks] codes of the means
//   u8[ceil(c b / 8)]  codes of the rest of the plane's c pixels, b =
//   high_bits,
//                      as one stream of bits, least significant first; unused
//                      bits are 0
// A pixel decodes to mean + 2 (bias + code * scale), in double from the fields
// as they are stored, rounded once and kept finite. (Halves: a rest can be
// twice the largest fp32.) high_bits + low_bits / block^2 + 32 / (height *
// width) bits per element, but for edges.
//
// Unbiased: the rest is taken from the mean as it is stored. Element i of the
// tensor uses word i % 4 of the Philox block of counter i / 4, its upper 24
// bits. A plane with a NaN or an infinity decodes to NaN in all its elements.
// Finite planes decode to finite values.
//
// Wang et al., DIVISION, "Memory Efficient Training via Dual Activation
// Precision", ICML 2023, arXiv 2208.04187, section 3.
#ifndef DELTAPIPE_COMPRESSION_CODECS_DUAL_PRECISION_H_
#define DELTAPIPE_COMPRESSION_CODECS_DUAL_PRECISION_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> DualPrecisionParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeDualPrecisionCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_DUAL_PRECISION_H_
