// What crosses one boundary in one direction: a micro-batch of samples' tensors
// becomes a body (a table with one row per sample, then the payloads) and back.
//
// The prediction is a property of the channel, apart from the codec: with
// `delta(codec,first=codec)` both ends keep a record m of each sample's last
// value; the sender transmits Q(a - m) and both set m <- store(m + deq(Q)) and
// use exactly the stored value (AQ-SGD, arXiv 2206.01299, section 3). A first
// visit is sent with `first`. Without `delta` no state is kept. `ef(codec)`
// keeps a residual per sample at the sender only, in fp32 or by `store`.
//
// The sender chooses per sample: a delta where ||a - m|| <= 0.7 ||a||, the
// value through `first` otherwise (the difference to an unrelated record is
// larger than the value). Records are bf16 unless `store=fp32` is given;
// storing never overflows.
//
// Sender and receiver are a replicated state machine: equal StateHash() after
// every step. Each object is used by one thread at a time. The body's layout is
// in boundary_body.h.
//
// Once every sample has been seen, or the cap is reached, and bodies have been
// as large, calls allocate nothing: records that a commit drops are filled
// again, tables and bodies keep their memory. A record that somebody holds
// (HeldRows, a checkpoint being written) is replaced by a fresh one instead.
//
//   encoder->Encode(step, samples, values, false, &body);            // sender
//   decoder->Decode(step, samples, body.span(), false, values, &missing);
//   if (!missing.empty()) {
//     encoder->EncodeKeyframes(missing, &keyframes);                 // sender
//     decoder->ApplyKeyframes(step, samples, body.span(), keyframes.span(),
//                             values);
//   }
//   encoder->CommitStep(step); decoder->CommitStep(step);
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
#include "compression/delta/channel_memory.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

class HeldRows;  // held_rows.h

struct BoundaryOptions {
  /// "delta(int(4),first=int(8))", "int(8)", "none", "cast(bf16)",
  /// "ef(int(4))". An `int` that names no rounding, in no wrapper, rounds
  /// stochastically when direction is 1.
  std::string codec;
  uint64_t seed = 0;
  /// Names the channel in random keys: boundary index.
  uint32_t boundary_id = 0;
  /// 0 activations, 1 activation gradients.
  uint32_t direction = 0;
  int64_t elements_per_sample = 0;
  /// The cap of the state store, the smaller of both ends' caps; the sender
  /// evicts, least recently used first, and says so in rows of their own.
  int64_t state_capacity_bytes = INT64_MAX;
  /// Where a file holds the records or residuals, mapped into memory; empty:
  /// they are on the heap.
  std::string state_folder;
};

/// One sample of a micro-batch.
struct BoundarySample {
  uint64_t key = 0;   // identity of the sample: same content, same key
  uint32_t slot = 0;  // position in the global batch
};

/// How a row of a body updates its sample's record. The numbers are part of the
/// wire format. Rows of kEvict carry no sample: they follow the others and name
/// keys to forget.
enum class RowMode : uint8_t {
  kValue = 0,
  kDelta = 1,
  kKeyframe = 2,
  kEvict = 3,
};

/// Counts since creation; raw bytes are 4 per element. Evaluation (reads_only)
/// is in its own three only.
struct BoundaryCounters {
  int64_t samples = 0;
  int64_t delta_rows = 0;
  int64_t value_rows = 0;
  int64_t keyframe_rows = 0;
  int64_t evictions = 0;
  int64_t raw_bytes = 0;
  int64_t body_bytes = 0;  // keyframes included
  int64_t evaluation_samples = 0;
  int64_t evaluation_raw_bytes = 0;
  int64_t evaluation_body_bytes = 0;
  /// At the sender, of the first sample of each step: sums of ||x||^2 and of
  /// ||x' - x||^2, where x' is what the receiver gets. Of finite samples only.
  double probed_value_squares = 0;
  double probed_error_squares = 0;
  /// At the sender: values that are NaN or infinite, as they were before a
  /// delta or a residual. Costs one more read of them, 25 GB/s from memory
  /// where copying does 8, 90 GB/s where a sample fits a cache.
  int64_t not_finite = 0;
};

class BoundaryEncoder {
 public:
  virtual ~BoundaryEncoder() = default;

  /// INVALID_ARGUMENT for a codec text that CheckBoundaryCodec refuses or sizes
  /// out of range; errors of RecordFile::Create.
  static absl::StatusOr<std::unique_ptr<BoundaryEncoder>> Create(
      const BoundaryOptions& options);

  /// Encodes `values`, samples.size() x elements_per_sample, and advances the
  /// state of each sample (staged until CommitStep). The same sample may occur
  /// twice in a step; rows apply in order. `reads_only` (evaluation) encodes
  /// with cast(bf16), reads no state and advances none. Steps never decrease.
  /// `body` is written in the memory it has, where that suffices. After an
  /// error the state is as before, and `body` means nothing.
  virtual absl::Status Encode(uint32_t step,
                              absl::Span<const BoundarySample> samples,
                              absl::Span<const float> values, bool reads_only,
                              Buffer* body) = 0;

  /// A body of keyframes for what the last step encoded: the records of `keys`,
  /// verbatim, in every version that step wrote (one, unless a sample occurred
  /// twice), or else as they are in the store. NOT_FOUND names a key without a
  /// record.
  virtual absl::Status EncodeKeyframes(absl::Span<const uint64_t> keys,
                                       Buffer* body) = 0;

  /// Makes everything staged up to `step` permanent: called after each step, or
  /// at each checkpoint where a rollback must reach that (it costs at most one
  /// more record per key).
  virtual void CommitStep(uint32_t step) = 0;
  /// Undoes all steps after `step`, which is that of the last commit or the one
  /// before the step in flight; FAILED_PRECONDITION otherwise. Residuals of
  /// `ef` go back too. Both ends of a channel roll back together.
  virtual absl::Status RollbackTo(uint32_t step) = 0;
  /// A hash of all records and versions, independent of their order; 0 without
  /// `delta`.
  virtual uint64_t StateHash() const = 0;
  /// Bytes of the live records, or of the residuals of `ef`.
  virtual int64_t StateBytes() const = 0;
  virtual BoundaryCounters counters() const = 0;
  /// Says that these samples are encoded soon.
  virtual void Prefetch(absl::Span<const uint64_t> keys) = 0;
  /// The records (or residuals), for record_set.h; null if the codec keeps
  /// none.
  virtual StateStore* state() = 0;
  /// What its codecs remember from one message to the next; null if they
  /// remember nothing.
  virtual ChannelMemory* memory() = 0;
};

class BoundaryDecoder {
 public:
  virtual ~BoundaryDecoder() = default;

  static absl::StatusOr<std::unique_ptr<BoundaryDecoder>> Create(
      const BoundaryOptions& options);

  /// Decodes a body into `values` (samples.size() x elements_per_sample, in row
  /// order) and advances the state as the sender did. `expected` are the
  /// samples that the receiver knows to come; a body for others is
  /// INVALID_ARGUMENT, as is any damage, a body of another step, channel or
  /// codec, and one that changed the state before; the state is then untouched
  /// and `values` is unspecified. If records are missing or of another version,
  /// nothing is applied, the result is OK and `missing_keys` (else empty) names
  /// them: ask the sender for keyframes, call ApplyKeyframes with its answer.
  virtual absl::Status Decode(uint32_t step,
                              absl::Span<const BoundarySample> expected,
                              absl::Span<const uint8_t> body, bool reads_only,
                              absl::Span<float> values,
                              std::vector<uint64_t>* missing_keys) = 0;

  /// Completes a Decode that named missing keys: keyframe records replace the
  /// rows they belong to, the other rows decode from `body`. INVALID_ARGUMENT
  /// for damage, FAILED_PRECONDITION if a needed record is not among the
  /// keyframes; the state is then untouched.
  virtual absl::Status ApplyKeyframes(uint32_t step,
                                      absl::Span<const BoundarySample> expected,
                                      absl::Span<const uint8_t> body,
                                      absl::Span<const uint8_t> keyframes,
                                      absl::Span<float> values) = 0;

  /// What the last Decode or ApplyKeyframes gave for `samples`, those of its
  /// call, in its order, in an object of the caller's; null where no records
  /// hold the same bits: without a delta, after evictions, or if a sample came
  /// twice.
  virtual std::shared_ptr<const HeldRows> Hold(
      absl::Span<const BoundarySample> samples) = 0;

  // As for BoundaryEncoder.
  virtual void CommitStep(uint32_t step) = 0;
  virtual absl::Status RollbackTo(uint32_t step) = 0;
  virtual uint64_t StateHash() const = 0;
  virtual int64_t StateBytes() const = 0;
  virtual BoundaryCounters counters() const = 0;
  virtual void Prefetch(absl::Span<const uint64_t> keys) = 0;
  virtual StateStore* state() = 0;
};

/// Whether `codec` is a text that Create accepts; the error is a sentence with
/// the position of the mistake. `keeps_state` (may be null) tells whether it is
/// a delta.
absl::Status CheckBoundaryCodec(const std::string& codec, bool* keeps_state);

/// The body's size for one micro-batch, for plans: bytes on the first visit and
/// on later ones, table included, frame header not. Deltas are assumed to pay
/// from the second visit on.
struct BoundaryBytes {
  double first_visit = 0;
  double later_visit = 0;
  double state_per_sample = 0;  // at each end; of `ef` at the sender only
};
absl::StatusOr<BoundaryBytes> PredictBoundaryBytes(const std::string& codec,
                                                   int64_t samples,
                                                   int64_t elements_per_sample);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CODEC_H_
