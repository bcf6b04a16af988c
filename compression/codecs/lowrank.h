// lowrank(rank,columns=0,iterations=1): a matrix as the product of two thin
// ones, found by power iteration. What is lost comes back through ef, not from
// here.
//
// The n values are a matrix M of rows of `columns`, the last one filled up with
// zeros; columns=0: of ceil(sqrt(n)). With r = min(rank, rows, columns), from a
// start Q [columns, r], `iterations` times (PowerSGD, algorithm 1):
//
//   P <- M Q, orthonormalized;  Q <- M^T P
//
// and M is taken for P Q^T. The start is random, keyed by the seed and the
// tensor's id alone, so the same at each step; EncodeNext begins with the Q of
// the last call, which a few calls on slowly changing tensors bring near the
// best Q there is. The last P is rounded before Q is found from it.
//
// Payload of n > 0 elements:
//   f32                 s: a power of two within (m / 2, m], m the largest
//                       magnitude; 0 if all are zero; NaN if one is not finite
//   bf16[rows][r]       P
//   bf16[columns][r]    Q of M / s
// An element decodes to s times the sum of P Q over r, in double, in order,
// rounded once and kept finite. No elements, no bytes.
//
// A NaN or an infinity makes everything NaN and leaves the memory alone. Sums
// are in double and in a fixed order. Biased. |x - x'| <= ||M||_F, up to the
// rounding of P and Q: no element's error has a bound by its value alone.
//
// Vogels, Karimireddy, Jaggi, "PowerSGD", NeurIPS 2019, arXiv 1905.13727.
#ifndef DELTAPIPE_COMPRESSION_CODECS_LOWRANK_H_
#define DELTAPIPE_COMPRESSION_CODECS_LOWRANK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> LowRankParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeLowRankCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_LOWRANK_H_
