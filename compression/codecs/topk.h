// topk(ratio,values=cast(bf16)): the share `ratio` of the elements that is
// largest in magnitude; the rest decodes to zero. What is left out comes back
// through ef, not from here.
//
// Of n elements k = round(ratio * n) are kept, at least 1; of equal magnitudes
// the earlier ones. A NaN counts as larger than an infinity.
//
// Payload of n > 0 elements:
//   u8[...]   which k of n: compression/kernels/index_set.h
//   ...       the k values, in their order, by the codec `values`
// No elements, no bytes. With r for ratio, min(1, r (log2(1/r) + 1 .. 2)) +
// r * (bits of `values`) bits per element; a fixed size where `values` has one.
//
// NaN and infinities are kept, and become what `values` makes of them. Finite
// inputs decode to finite values. Biased.
//
// Aji and Heafield, "Sparse Communication for Distributed Gradient Descent",
// EMNLP 2017, arXiv 1704.05021; Lin et al., "Deep Gradient Compression",
// arXiv 1712.01887.
#ifndef DELTAPIPE_COMPRESSION_CODECS_TOPK_H_
#define DELTAPIPE_COMPRESSION_CODECS_TOPK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> TopKParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeTopKCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_TOPK_H_
