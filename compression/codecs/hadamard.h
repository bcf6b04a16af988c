// hadamard(codec,tile=32,threshold=2): spreads an outlier over its tile by a
// rotation, then any codec.
//
// Tiles are `tile` consecutive values; a row whose length is a multiple of
// `tile` has tiles of its own. Where the largest magnitude of a tile is more
// than `threshold` times the second largest (plus 1e-12), that value changes
// places with the tile's first one and the tile is multiplied by H /
// sqrt(tile), H the Hadamard matrix in natural order: its own inverse. Then the
// largest value is the same share of all, of one sign, and the range smaller by
// up to sqrt(tile). The other tiles and what is left at the end pass unchanged;
// `codec` gets all of them as one tensor. A threshold below 1 rotates every
// tile that is not all zeros.
//
// Payload of n elements in t = floor(n / tile) tiles:
//   u8[ceil(t w / 8)]  a field of w = log2(tile) + 1 bits per tile, as one
//                      stream of bits, least significant first, unused bits 0:
//                      0 as it is, 1 + p rotated with the value at p first
//   ...                the n values by `codec`
// The bits of `codec`, and w / tile: 0.19 at 32.
//
// A tile with a NaN or an infinity, or whose largest magnitude is not within
// 2^-100 .. 2^120, is not rotated. What `codec` makes of a NaN can spread over
// the tiles that share one of its blocks. Unbiased where `codec` is.
//
// TAH-Quant, He et al., arXiv 2506.01352, the tile-wise adaptive Hadamard
// transform; its quantizer of 4 and 3 bits is entropy_tiles.
#ifndef DELTAPIPE_COMPRESSION_CODECS_HADAMARD_H_
#define DELTAPIPE_COMPRESSION_CODECS_HADAMARD_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> HadamardParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeHadamardCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_HADAMARD_H_
