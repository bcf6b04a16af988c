// int(bits,block=64,round=nearest,clip=search,levels=symmetric,scale=log8,
// axis=row,channel=off,row=0): 1 to 8 bits per value, in blocks with a scale
// each: bits + 8 / block per value, plus one byte per payload.
//
// round=nearest: to the nearest level, ties to the even code.
// round=stochastic: unbiased; the levels then cover the whole block and `clip`
//   has no effect, since clipping would bring a bias back.
// clip=minmax: nothing clipped. clip=search: the levels of least squared error
//   among several, the covering ones included. clip=laplace, clip=gauss: ACIQ's
//   optimum for the block's mean magnitude or root mean square, values being
//   taken for centred, as deltas are (of affine levels: around the block's
//   mean); IntOptimalClip. One pass instead of several.
// levels=symmetric: -2^(b-1) .. 2^(b-1)-1 times the scale, which may be
//   negative (clip=minmax: without the first); of 2 bits -3 -1 1 3 or -1 0 1;
//   of 1 bit -s and s, s the mean magnitude (minmax: the largest).
// levels=affine: origin + code * scale, for values that are not centred, after
//   GELU for one. The origin is bf16: 16 / block bits more. A whole number of
//   scales would be shorter, but has no levels on either side of zero at 1 bit
//   and none that cover what lies far from zero. Equal values, zeros among
//   them, come back exactly.
// scale=log8: a third of an octave in 8 bits. scale=bf16, scale=fp32: 8 or 24 /
//   block bits more, rounded up with minmax, so that nothing is clipped.
// axis=column: a block is `block` values down one column of rows of `row`
//   (int_layout.h); row=0: all is one column, as with axis=row.
// channel=slow: columns are divided by their running magnitude first
//   (int_channels.h), for columns that are always larger than their neighbours;
//   8 / (number of rows) bits more: 0.03 at 256 rows. Encode takes the
//   magnitude of its tensor, EncodeNext the running one; payloads hold the
//   scales they used. Of row=0 there is one column.
//
// Payload of n > 0 values in k blocks; no values, no bytes:
//   u8               scale=log8: the window of the scales (int_scale.h)
//   u8, u8[c]        channel=slow: scales of the c = min(row, n) columns
//   u8|u16|u32[k]    a scale per block (int_scale.h, int_block.h)
//   u16[k]           levels=affine: origins
//   u8[...]          codes, block after block, as one stream of bits, least
//                    significant first; a block begins on a byte (blocks of
//                    `block` values end on one) and unused bits are 0. An
//                    affine block takes 2 bytes or more
//
// A block with a NaN or an infinity decodes to NaN in all its elements; the
// others are encoded as if that one were zero. A block of zeros decodes to 0.
// A finite block decodes to finite values. Affine blocks of 1 bit and
// stochastic ones whose range exceeds the largest float, or 3.38e38 with
// scale=bf16, are clipped.
//
// Symmetric levels with 8-bit scales in blocks along rows have kernels of their
// own (int_quantize.h); the others share slower ones (int_block.h).
//
// Dettmers et al., arXiv 2110.02861 (blocks); Banner, Nahshan, Soudry, ACIQ,
// arXiv 1810.05723 (computed clips).
#ifndef DELTAPIPE_COMPRESSION_CODECS_INT_H_
#define DELTAPIPE_COMPRESSION_CODECS_INT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"
#include "compression/kernels/int_scale.h"

namespace deltapipe {

absl::Span<const CodecParameter> IntParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeIntCodec(
    const CodecArguments& arguments);

/// The format of a codec made here whose payload is what IntTileEncoder
/// (int_quantize.h) writes; null for all others. Lives as long as `codec`.
const IntFormat* IntTileFormat(const Codec& codec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_INT_H_
