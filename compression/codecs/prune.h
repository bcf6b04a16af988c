// prune(sparsity,model=lognormal,values=luq): makes the share `sparsity` of the
// values zero, keeping the mean of each: |x| < tau becomes sign(x) tau with
// probability |x| / tau, else 0; larger values are kept, and what they have
// above tau goes through `values`, so that none becomes zero after all.
//
// Payload of n > 0 elements, of varying size:
//   f32              tau, >= 0 and finite
//   u8[ceil(n / 8)]  a bit per element, least significant first: 1 where it is
//                    kept
//   u8[ceil(k / 4)]  for each of the k kept ones two bits, least significant
//                    first: the sign (1: negative) and 1 where |x| >= tau
//   u8[]             the payload of `values` for |x| - tau of the latter
// No elements, no bytes. Unused bits are 0. An element decodes to 0, +-tau or
// +-(tau + its value), one addition. 1 + 2 k / n + l b / n bits per element,
// for l that go through `values` at b bits each. traits() counts it for
// normally distributed values.
//
// The threshold is found for each payload (prune_threshold.h): model=lognormal
// fits ln|x| and solves Chmiel et al., "Neural gradients are near-lognormal",
// ICLR 2021, arXiv 2006.08173; model=normal fits the deviation as Ye
// et al., ECCV 2020, arXiv 1908.00173, but solves for the share of zeros, which
// theirs does not give; model=exact has no model. Where a fit gives these
// values a share that is off by more than a point, the exact solution is taken
// instead. Zeros of the input count; where they are enough, nothing else is
// pruned.
//
// Unbiased if `values` is, to within 2^-23 of tau and of |x|. NaN and
// infinities are kept and become what `values` makes of them: with luq, NaN in
// up to 128 kept values. All other values are as if these were not there, but
// for how `values` groups them.
#ifndef DELTAPIPE_COMPRESSION_CODECS_PRUNE_H_
#define DELTAPIPE_COMPRESSION_CODECS_PRUNE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> PruneParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakePruneCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PRUNE_H_
