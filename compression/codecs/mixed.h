// mixed(bits=2.5,block=256,row=0): rows of one tensor in different numbers of
// bits, 1 to 8 each and `bits` on average, more where the values range more.
//
// The values are rows of `row`, the last one perhaps short; row=0: rows of
// `block`. A row is cut into groups of `block` values, the last one perhaps
// shorter, whose levels are even from the group's least value to its largest,
// as int(b,block=...,round=stochastic,levels=affine,scale=bf16) has them in
// the row's b bits: bf16 origin rounded down, bf16 scale rounded up, codes
// within 0..2^b-1, equal values exact (kernels/int_block.h).
//
// Bits over rows: the error of the gradient that a row's rounding causes is
// taken for C / (2^b - 1)^2, C being the sum of the squared ranges of its
// groups; the sum over all rows is least, for floor(bits * rows) bits in all,
// when time and again the bit is given that saves most. Of bits that save the
// same, the lower one and then the earlier row is first. A short last row has
// floor(bits).
//
// Payload of n > 0 elements in r rows, with k groups in all:
//   u8[(r+1)/2]        bits of each row, the earlier one in the low half; an
//                      unused half is 0
//   {u16, u16}[k]      scale and origin of each group
//   u8[...]            codes, group after group: of c values in b bits
//                      max(2, ceil(c / 8)) * b bytes, as one stream of bits,
//                      least significant first; unused bits are 0
// No elements, no bytes. The size depends on n alone. bits + 32 / block +
// 4 / row bits per element, where rows and groups are multiples of 8.
//
// A group with a NaN or an infinity decodes to NaN in all its elements and
// counts as one without range; the others are encoded as if it were zero.
// Finite groups decode to finite values; ranges beyond 3.38e38 are clipped.
// Unbiased. Group g of row r is block r * ceil(row / block) + g of the random
// words of kernels/int_block.h.
//
// Chen et al., ActNN, ICML 2021, arXiv 2104.14129, sections 4.1 and 4.2; there
// scale and origin are rounded to nearest, after use. The authors' greedy takes
// bits away from 8; the sum is convex in each row's bits, so that it ends where
// giving them does.
#ifndef DELTAPIPE_COMPRESSION_CODECS_MIXED_H_
#define DELTAPIPE_COMPRESSION_CODECS_MIXED_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> MixedParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeMixedCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_MIXED_H_
