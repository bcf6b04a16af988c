// nonzero(codec): which values are zero exactly, in one bit each, and another
// codec for the values that are not, side by side. For what a ReLU or a dropout
// has left: its mask costs nothing more, and zeros take no levels away.
//
// Payload of n > 0 elements, k of which are not zero:
//   u8                 0: no value is negative; 1: signs follow
//   u8[(n+7)/8]        bit i of the stream, least significant first: element i
//                      is not zero; unused bits are 0
//   u8[(k+7)/8]        with signs: bit j: the j-th of the k is negative; unused
//                      bits are 0
//   ...                the k values, in their order, by `codec`
// No elements, no bytes. 1 + (share of non-zeros) * (bits of `codec`) bits per
// element, and another bit per non-zero where signs are mixed: 2.06 of half
// zeros in int(2,block=256,levels=affine,scale=bf16).
//
// +0 and -0 decode to +0. Any other value, NaN and infinities included, goes
// through `codec` and keeps its sign: what that decodes to zero or to the other
// sign becomes the smallest normal number, 2^-126, of the sign it had, and a
// NaN stays one. A gradient that is masked by x > 0 is thus masked exactly.
// NaN and infinities spoil what `codec` says of their neighbours among the k.
//
// Biased where `codec` crosses zero; unbiased by an unbiased codec of values of
// one sign whose levels begin at the least of them or at zero. Blocks and rows
// of `codec` are runs of the k values and no longer rows of the tensor.
//
// Chakrabarti and Moseley, BLPA, arXiv 1901.07988, and Chen et al., ActNN,
// arXiv 2104.14129, keep a ReLU's mask in one bit, too, but beside codes of all
// values.
#ifndef DELTAPIPE_COMPRESSION_CODECS_NONZERO_H_
#define DELTAPIPE_COMPRESSION_CODECS_NONZERO_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> NonzeroParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeNonzeroCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_NONZERO_H_
