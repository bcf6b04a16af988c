// Error feedback: what a codec loses of one message is added to the next one,
// so that nothing is lost for good (Karimireddy et al., arXiv 1901.09847).
//
//   x = a + e;  send Q(x);  e' = x - deq(Q(x))
//
// Called by the boundary encoder, for a residual per sample. Used by one thread
// at a time: it owns scratch memory of one message. The caller owns residuals.
//
// Conserved: the sum of all decoded messages plus the residual is the sum of
// all inputs, up to the rounding of fp32 (and, where the caller keeps residuals
// in a codec, of that: ef's store=). An element whose residual would not
// be finite (NaN or infinite input, overflow) starts again at 0.
#ifndef DELTAPIPE_COMPRESSION_DELTA_ERROR_FEEDBACK_H_
#define DELTAPIPE_COMPRESSION_DELTA_ERROR_FEEDBACK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "compression/codec.h"
#include "compression/codecs/sign.h"

namespace deltapipe {

class ErrorFeedback {
 public:
  /// Borrows `codec`, for messages of exactly `num_elements` values.
  ErrorFeedback(const Codec* codec, int64_t num_elements);

  /// Encodes `values` plus `residual` (null: zeros) into `out`, at least
  /// codec->MaxPayloadBytes(num_elements) bytes; returns the payload's size.
  /// Writes the residual that is left to `next_residual`, which may be
  /// `residual`. `memory` (null: none) is that of Codec::EncodeNext.
  /// INVALID_ARGUMENT for another number of values, errors of the codec; both
  /// residuals are then untouched.
  absl::StatusOr<int64_t> Encode(absl::Span<const float> values,
                                 const float* residual, const RandomKey& key,
                                 absl::Span<uint8_t> out, float* next_residual,
                                 std::vector<float>* memory = nullptr);

 private:
  const Codec* const codec_;
  const SignFormat* const sign_;  // null: another codec, which goes unfused
  const int64_t num_elements_;
  // Unfused only.
  Buffer input_;     // values plus residual
  Buffer restored_;  // what the receiver decodes
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_ERROR_FEEDBACK_H_
