// rowwise4(search=minmax,row=0): 4 bits per value, in rows of `row` values that
// carry their own levels; row=0, where no shape is known: rows of 64. For what
// is read and written by rows: buffers, embeddings, activations of one token.
//
// Payload with search=minmax and search=greedy, row after row, the last of them
// perhaps short:
//   bf16              scale
//   bf16              bias
//   u8[(count+1)/2]   codes, the earlier one in the low half; an unused half
//                     is 0
// A code c decodes to bias + c * scale, rounded once to fp32 and kept finite. 4
// + 32 / row bits per value: 4.5 at 64. The fields are bf16, which has the
// range of fp32: as fp16 they become infinite beyond 65,504, as fp32 they cost
// 5 bits at 64. Codes are found with the rounded fields; the bias is rounded
// down and the scale up, so that the levels cover the row.
//   minmax   from the smallest value to the largest
//   greedy   the paper's search (GreedyGrid): 8 % less error at rows of 32 to
//            128, 64 passes over the row. The end of the search counts as a
//            candidate, too, which the published code leaves out
//
// Payload with search=codebook: as above with
//   bf16[16]          levels, ascending
// in the place of scale and bias: 4 + 256 / row bits, for long rows.
//
// Payload with search=codebook2, the paper's two tiers, of r rows:
//   bf16[16][k]       k = r / 128 codebooks, at least 1, at most 16
//   and for each row
//   u8                its codebook, or 255
//   u8[(count+1)/2]   codes
// 4 + 8 / row bits. Codebooks are k-means centres (Lloyd, without random
// starts) of the rows that share them; rows begin sorted by their range and
// then move to the codebook that suits them best.
//
// A row with a NaN or an infinity decodes to NaN in all its elements, the
// others as if it were zero. Finite rows decode to finite values. Not unbiased.
//
// Guan et al., "Post-Training 4-bit Quantization on Embedding Tables",
// arXiv 1911.02079.
#ifndef DELTAPIPE_COMPRESSION_CODECS_ROWWISE4_H_
#define DELTAPIPE_COMPRESSION_CODECS_ROWWISE4_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> Rowwise4Parameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeRowwise4Codec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_ROWWISE4_H_
