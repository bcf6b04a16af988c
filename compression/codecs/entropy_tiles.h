// entropy_tiles(share=0.8,tile=32,row=0): 4 bits for the tiles of a row that
// have the highest entropy, 3 for the others. hadamard(entropy_tiles) is
// TAH-Quant's quantizer of activations.
//
// A row of `row` values (0: all of them) is cut into tiles of `tile`. With
// p_i = |a_i| / sum |a|, a tile's entropy is -sum p_i log p_i, 0 where all is
// zero; the round(share * tiles) highest of a row, of equal ones the earlier,
// take 4 bits. A shorter tile at the end of a row takes 4 bits, too, and is not
// counted.
//
// Payload, row after row, the last of them perhaps short, t full tiles:
//   u8[ceil(t / 8)]  bit i: tile i has 4 bits; unused bits 0
//   and for each tile
//   bf16             scale, rounded up
//   i8               origin
//   u8[...]          codes of 4 or 3 bits as one stream, least significant
//                    first, unused bits 0
// A code decodes to (origin + code) * scale, rounded once and kept finite: the
// zero point is a whole number, so zero stays zero, and need not lie among the
// codes, since rotated tiles may lie far from zero. Nearest, ties to even; the
// levels cover the tile to half a step. 3 + share + 25 / tile bits per element.
//
// A tile with a NaN or an infinity decodes to NaN in all its elements, the
// others as if it were zeros. Finite tiles decode to finite values. Biased.
//
// TAH-Quant, He et al., arXiv 2506.01352.
#ifndef DELTAPIPE_COMPRESSION_CODECS_ENTROPY_TILES_H_
#define DELTAPIPE_COMPRESSION_CODECS_ENTROPY_TILES_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> EntropyTilesParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeEntropyTilesCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_ENTROPY_TILES_H_
