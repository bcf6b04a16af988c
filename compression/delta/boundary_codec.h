// What crosses one boundary in one direction: a micro-batch of samples' tensors
// becomes a body (a table with one row per sample, then the payloads) and back.
//
// The prediction is a property of the channel, apart from the codec: with
// `delta(codec,first=codec)` both ends keep a record m of each sample's last
// value; the sender transmits Q(a - m) and both set m <- store(m + deq(Q)) and
// use exactly the stored value (AQ-SGD, arXiv 2206.01299, section 3). A first
// visit is sent with `first`. Without `delta` no state is kept. `ef(codec)` keeps
// a residual per sample at the sender only.
//
// Sender and receiver are a replicated state machine: equal StateHash() after
// every step. Each object is used by one thread at a time.
//
// Body: u32 row count, rows (see BoundaryRow), payloads back to back; integers
// are little-endian.
#ifndef DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CODEC_H_
#define DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CODEC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/buffer.h"

namespace deltapipe {

struct BoundaryOptions {
  /// "delta(int(4),first=int(8))", "int(8)", "none", "cast(bf16)", "ef(int(4))".
  std::string codec;
  uint64_t seed = 0;
  /// Names the channel in random keys: boundary index.
  uint32_t boundary_id = 0;
  /// 0 activations, 1 activation gradients.
  uint32_t direction = 0;
  int64_t elements_per_sample = 0;
  /// The cap of the state store, the smaller of both ends' caps; the sender
  /// evicts, least recently used first, and says so in the row.
  int64_t state_capacity_bytes = INT64_MAX;
};

/// One sample of a micro-batch.
struct BoundarySample {
  uint64_t key = 0;   // identity of the sample: same content, same key
  uint32_t slot = 0;  // position in the global batch
};

enum class RowMode : uint8_t { kValue = 0, kDelta = 1, kKeyframe = 2 };

/// Counts since creation; raw bytes are 4 per element.
struct BoundaryCounters {
  int64_t samples = 0;
  int64_t delta_rows = 0;
  int64_t value_rows = 0;
  int64_t keyframe_rows = 0;
  int64_t evictions = 0;
  int64_t raw_bytes = 0;
  int64_t body_bytes = 0;
};

class BoundaryEncoder {
 public:
  virtual ~BoundaryEncoder() = default;

  static absl::StatusOr<std::unique_ptr<BoundaryEncoder>> Create(
      const BoundaryOptions& options);

  /// Encodes `values`, samples.size() x elements_per_sample, and advances the
  /// state of each sample (staged until CommitStep). The same sample may occur
  /// twice in a step; rows apply in order. `reads_only` (evaluation) encodes with
  /// cast(bf16), reads no state and advances none.
  virtual absl::Status Encode(uint32_t step,
                              absl::Span<const BoundarySample> samples,
                              absl::Span<const float> values, bool reads_only,
                              Buffer* body) = 0;

  /// A body of keyframes: the stored records of `keys`, verbatim, as they are
  /// after the last Encode. NOT_FOUND names a key without a record.
  virtual absl::Status EncodeKeyframes(absl::Span<const uint64_t> keys,
                                       Buffer* body) = 0;

  /// Makes everything staged up to `step` permanent.
  virtual void CommitStep(uint32_t step) = 0;
  /// A hash of all records and versions, independent of their order.
  virtual uint64_t StateHash() const = 0;
  virtual int64_t StateBytes() const = 0;
  virtual BoundaryCounters counters() const = 0;
};

class BoundaryDecoder {
 public:
  virtual ~BoundaryDecoder() = default;

  static absl::StatusOr<std::unique_ptr<BoundaryDecoder>> Create(
      const BoundaryOptions& options);

  /// Decodes a body into `values` (samples.size() x elements_per_sample, in row
  /// order) and advances the state as the sender did. `expected` are the samples
  /// that the receiver knows to come; a body for others is INVALID_ARGUMENT, as is
  /// any damage; the state is then untouched. If records are missing or of
  /// another version, nothing is applied and `missing_keys` names them: ask the
  /// sender for keyframes, call ApplyKeyframes with its answer.
  virtual absl::Status Decode(uint32_t step,
                              absl::Span<const BoundarySample> expected,
                              absl::Span<const uint8_t> body, bool reads_only,
                              absl::Span<float> values,
                              std::vector<uint64_t>* missing_keys) = 0;

  /// Completes a Decode that named missing keys: keyframe records replace the
  /// rows they belong to, the other rows decode from `body`.
  virtual absl::Status ApplyKeyframes(
      uint32_t step, absl::Span<const BoundarySample> expected,
      absl::Span<const uint8_t> body, absl::Span<const uint8_t> keyframes,
      absl::Span<float> values) = 0;

  virtual void CommitStep(uint32_t step) = 0;
  virtual uint64_t StateHash() const = 0;
  virtual int64_t StateBytes() const = 0;
  virtual BoundaryCounters counters() const = 0;
};

/// Whether `codec` is a text that Create accepts; the error is a sentence with
/// the position of the mistake. `keeps_state` tells whether it is a delta.
absl::Status CheckBoundaryCodec(const std::string& codec, bool* keeps_state);

/// The body's size for one micro-batch, for plans: bytes on the first visit and
/// on later ones, table included, frame header not.
struct BoundaryBytes {
  double first_visit = 0;
  double later_visit = 0;
  double state_per_sample = 0;  // at each end
};
absl::StatusOr<BoundaryBytes> PredictBoundaryBytes(const std::string& codec,
                                                   int64_t samples,
                                                   int64_t elements_per_sample);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CODEC_H_
