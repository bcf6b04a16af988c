// ShardCompressor: how a two-phase all-reduce writes shards into messages.
//
// One object compresses one vector at a time: AddResidual over the whole
// vector, then Encode for each of its shards. Immutable in between; not
// thread-safe.
//
//   "identity"        fp32 as it is; the residual is zero
//   "sign(block=0)"   f32 scale of the whole vector, then the shard's signs
//   any other codec   f32 RMS of the whole vector, then the codec's payload of
//                     the shard; an RMS that is not finite makes the receiver
//                     decode NaN, whatever the codec does to such values
#ifndef DELTAPIPE_WORKER_COLLECTIVE_SHARD_COMPRESSOR_H_
#define DELTAPIPE_WORKER_COLLECTIVE_SHARD_COMPRESSOR_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/philox.h"

namespace deltapipe {

class ShardCompressor {
 public:
  virtual ~ShardCompressor() = default;

  /// INVALID_ARGUMENT for a text that names no codec. Without feedback Encode
  /// may spare itself the residual and leave anything in its place.
  static absl::StatusOr<std::unique_ptr<ShardCompressor>> Create(
      const std::string& text, bool has_feedback);

  /// The canonical text, equal on ranks that can talk to each other.
  virtual std::string text() const = 0;

  /// The largest message of a shard of `num_elements`.
  virtual int64_t MaxMessageBytes(int64_t num_elements) const = 0;

  /// values <- values + residual (of the same size, or empty for none).
  /// `num_counted` of the elements count in the vector's scale; the rest is
  /// zero.
  virtual void AddResidual(absl::Span<float> values,
                           absl::Span<const float> residual,
                           int64_t num_counted) = 0;

  /// Encodes a shard of the vector of the last AddResidual into `out` (at least
  /// MaxMessageBytes), leaves in `shard` what the message loses, and returns
  /// the message's size.
  virtual absl::StatusOr<int64_t> Encode(absl::Span<float> shard,
                                         const RandomKey& key,
                                         absl::Span<uint8_t> out) = 0;

  /// mean <- mean + (the message's values) / num_ranks. INVALID_ARGUMENT for a
  /// message of an impossible size.
  virtual absl::Status AccumulateMean(absl::Span<const uint8_t> message,
                                      int num_ranks,
                                      absl::Span<float> mean) = 0;

  virtual absl::Status Decode(absl::Span<const uint8_t> message,
                              absl::Span<float> out) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_SHARD_COMPRESSOR_H_
