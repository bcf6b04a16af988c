// Error feedback around `sign` in one pass over memory, where an unfused one
// takes four with whole tensors between them: what costs is memory, not
// arithmetic. Each block is summed with its residual where the residual will
// be, and goes through scale, signs and what these lose while it is in the
// first-level cache.
//
// Called by ErrorFeedback, whose payloads and residuals it gives bit for bit.
// Thread-safe; allocates nothing.
//
// 1-bit Adam and LAMB, arXiv 2102.02888 and 2104.06069, with a scale a block.
#ifndef DELTAPIPE_COMPRESSION_DELTA_SIGN_FEEDBACK_H_
#define DELTAPIPE_COMPRESSION_DELTA_SIGN_FEEDBACK_H_

#include <cstdint>

#include "absl/types/span.h"
#include "compression/codecs/sign.h"

namespace deltapipe {

/// The payload of values + residual (null: zeros) to `payload`, as many bytes
/// as it has, and what that loses to `next`, which may be `residual`.
void EncodeSignsWithFeedback(const SignFormat& format,
                             absl::Span<const float> values,
                             const float* residual, absl::Span<uint8_t> payload,
                             float* next);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_SIGN_FEEDBACK_H_
