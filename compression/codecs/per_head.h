// per_head(codec,head=64,row=0): each attention head, or group of channels, in
// its own range; then any codec.
//
// The values are rows of `row`; a head is the columns [h * head, (h+1) * head)
// of all rows, the last one perhaps narrower; row=0: one row. For each head
// the encoder takes a range center +- half, maps it onto [-1, 1], clamps, and
// gives the mapped values to `codec`, head after head and row after row within
// a head, as one tensor.
//
// Encode uses the range of this tensor. EncodeNext uses running ones, for half
// and center alike
//   running = 0.9 * running + 0.1 * (what this tensor has)
// begun with those of the first. Values outside a running range become its
// ends; they never wrap around. The payload holds the range that was used, so
// that it decodes the same whatever the encoder has seen since.
//
// Payload of n > 0 elements, h = ceil(min(row, n) / head) heads:
//   f32[2][h]   half and center of each head, by heads
//   ...         the n mapped values by `codec`
// No elements, no bytes. The bits of `codec`, and 64 per head and tensor.
//
// A head with a NaN or an infinity decodes to NaN in all its elements and does
// not change its running range; `codec` sees zeros there. Finite heads decode
// to finite values where `codec` does. Not unbiased, since it may clamp.
//
// Pan et al., "Mesa: A Memory-saving Training Framework for Transformers",
// arXiv 2111.11124, section 3.2; per_head(int(8,round=stochastic)) comes
// nearest to it.
#ifndef DELTAPIPE_COMPRESSION_CODECS_PER_HEAD_H_
#define DELTAPIPE_COMPRESSION_CODECS_PER_HEAD_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> PerHeadParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakePerHeadCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PER_HEAD_H_
