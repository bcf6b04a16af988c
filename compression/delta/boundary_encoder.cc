#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/int.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_channel.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/channel_memory.h"
#include "compression/delta/delta_tiles.h"
#include "compression/delta/error_feedback.h"
#include "compression/delta/evictions.h"
#include "compression/delta/not_finite.h"
#include "compression/delta/pending_records.h"
#include "compression/delta/record_math.h"

namespace deltapipe {
namespace {

constexpr double kDeltaRatio = 0.7;

/// A delta goes where ||a - m||^2 <= kDeltaRatio^2 ||a||^2; what is not finite
/// is sent as a value.
bool PaysDelta(const SquaredNorms& norms) {
  return std::isfinite(norms.value) &&
         norms.difference <= kDeltaRatio * kDeltaRatio * norms.value;
}

/// The table and payloads of a body in the making, one after another.
struct Draft {
  std::vector<BodyRow> rows;
  Buffer bytes;
  int64_t size = 0;  // table and payloads so far

  /// Another one, with room for that many rows and bytes of payloads, in
  /// `block` if it is large enough.
  void Begin(size_t num_rows, int64_t payload_bytes, Buffer block) {
    rows.clear();
    size = BodyTableBytes(static_cast<int64_t>(num_rows));
    bytes = std::move(block);
    bytes.Reset(size + payload_bytes);
  }
  absl::Span<uint8_t> room() {
    return bytes.span().subspan(static_cast<size_t>(size));
  }
  void AddRow(uint64_t key, uint32_t base_version, RowMode mode, uint8_t flags,
              int64_t payload_bytes) {
    rows.push_back({key, base_version, mode, flags, payload_bytes});
    size += payload_bytes;
  }
};

class Encoder : public BoundaryEncoder {
 public:
  Encoder(BoundaryChannel channel, std::unique_ptr<StateStore> store)
      : channel_(std::move(channel)),
        store_(std::move(store)),
        math_(channel_.record_form(), channel_.num_elements()),
        pending_(store_.get()) {
    const BoundarySpec& spec = channel_.spec;
    const int64_t float_bytes =
        channel_.num_elements() * static_cast<int64_t>(sizeof(float));
    difference_ = Buffer(float_bytes);
    restored_ = Buffer(float_bytes);
    if (spec.codec->traits().has_memory ||
        (spec.first != nullptr && spec.first->traits().has_memory)) {
      memory_ = std::make_unique<ChannelMemory>();
    }
    const RecordForm form = channel_.record_form();
    const IntFormat* const tile_format = IntTileFormat(*spec.codec);
    if (spec.kind == BoundarySpec::Kind::kDelta && form.codec == nullptr &&
        tile_format != nullptr) {
      tiles_ = std::make_unique<DeltaTiles>(*tile_format, form.is_float32,
                                            channel_.num_elements(), PaysDelta);
    }
    if (spec.kind == BoundarySpec::Kind::kErrorFeedback) {
      feedback_ = std::make_unique<ErrorFeedback>(spec.codec.get(),
                                                  channel_.num_elements());
    }
    if (store_ != nullptr) {
      evictions_ = std::make_unique<Evictions>(
          store_.get(),
          channel_.options.state_capacity_bytes / channel_.record_bytes());
    }
  }

  absl::Status Encode(uint32_t step, absl::Span<const BoundarySample> samples,
                      absl::Span<const float> values, bool reads_only,
                      Buffer* body) override {
    DP_RETURN_IF_ERROR(channel_.CheckValues(samples.size(), values.size()));
    if (reads_only) return EncodeEvaluation(step, samples, values, body);
    if (memory_ != nullptr) memory_->Begin();
    if (store_ == nullptr) return EncodeStateless(step, samples, values, body);

    keys_.clear();
    for (const BoundarySample& sample : samples) keys_.push_back(sample.key);
    store_->Prefetch(keys_);
    const absl::Span<const Evictions::Victim> victims =
        evictions_->After(samples);
    const bool is_delta = channel_.spec.kind == BoundarySpec::Kind::kDelta;
    const uint32_t first_version = store_->usage().last_version + 1;
    if (first_version > UINT32_MAX - samples.size()) {
      return absl::ResourceExhaustedError(
          "encode failed: the channel's 2^32 versions are used up: restart it "
          "without its state");
    }
    BeginDraft(samples.size(), is_delta ? victims.size() : 0,
               channel_.max_payload_bytes(), body);
    pending_.Begin();
    int64_t not_finite = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      is_row_finite_ = false;
      const uint32_t version = first_version + static_cast<uint32_t>(i);
      const absl::Span<const float> value = channel_.Row(values, i);
      const RandomKey key = channel_.Key(step, samples[i].slot);
      const uint64_t sample = samples[i].key;
      DP_RETURN_IF_ERROR(is_delta
                             ? AddDeltaRow(step, sample, key, version, value)
                             : AddFeedbackRow(sample, key, version, value));
      if (!is_row_finite_) not_finite += CountNotFinite(value);
      if (i > 0 || !IsFirstOf(step)) continue;
      if (is_delta) {
        DP_RETURN_IF_ERROR(ProbeDelta(step, value, *pending_.Read(sample)));
      } else {
        DP_RETURN_IF_ERROR(DecodeAndProbe(step, value));
      }
    }
    // Nothing fails from here on.
    if (memory_ != nullptr) memory_->Stage(step);
    if (step != last_step_) ForgetWritten();
    last_step_ = step;
    if (is_delta) {
      for (const auto& written : pending_.in_order()) {
        written_in_step_.push_back(written);
      }
    }
    for (const BodyRow& row : draft_.rows) {
      ++(row.mode == RowMode::kDelta ? counters_.delta_rows
                                     : counters_.value_rows);
    }
    pending_.StageAll(step);
    for (const auto& [key, version] : victims) {
      store_->Stage(step, key, nullptr);
      if (is_delta) {
        // A key of this very body was written by its last row for it.
        draft_.AddRow(key, version, RowMode::kEvict, 0, 0);
      }
    }
    counters_.evictions += static_cast<int64_t>(victims.size());
    Finish(channel_.Context(step), is_delta ? first_version : 0, body);
    Count(samples.size(), not_finite, *body);
    return absl::OkStatus();
  }

  absl::Status EncodeKeyframes(absl::Span<const uint64_t> keys,
                               Buffer* body) override {
    if (channel_.spec.kind != BoundarySpec::Kind::kDelta) {
      return absl::FailedPreconditionError(absl::StrCat(
          "codec ", channel_.spec.codec->text(), " has no keyframes"));
    }
    keyframes_.clear();
    for (const uint64_t key : keys) {
      const size_t num_before = keyframes_.size();
      for (const auto& [written, record] : written_in_step_) {
        if (written == key) keyframes_.emplace_back(key, record.get());
      }
      if (keyframes_.size() > num_before) continue;
      const RecordPtr record = store_->Read(key);
      if (record == nullptr) {
        return absl::NotFoundError(
            absl::StrCat("keyframe of sample ", key, ": there is no record"));
      }
      keyframes_.emplace_back(key, record.get());
    }
    BeginDraft(keyframes_.size(), 0, channel_.record_bytes(), body);
    for (const auto& [key, record] : keyframes_) {
      std::copy_n(record->values.data(), record->values.size(),
                  draft_.room().data());
      draft_.AddRow(key, record->version, RowMode::kKeyframe, 0,
                    record->values.size());
    }
    Finish(channel_.KeyframeContext(), 0, body);
    counters_.keyframe_rows += static_cast<int64_t>(keyframes_.size());
    counters_.body_bytes += body->size();
    return absl::OkStatus();
  }

  void CommitStep(uint32_t step) override {
    if (store_ != nullptr) store_->CommitStep(step);
    if (memory_ != nullptr) memory_->CommitStep(step);
  }

  absl::Status RollbackTo(uint32_t step) override {
    if (memory_ != nullptr) DP_RETURN_IF_ERROR(memory_->RollbackTo(step));
    if (store_ == nullptr) return absl::OkStatus();
    DP_RETURN_IF_ERROR(store_->RollbackTo(step));
    ForgetWritten();
    return absl::OkStatus();
  }

  uint64_t StateHash() const override {
    return channel_.spec.kind == BoundarySpec::Kind::kDelta ? store_->Hash()
                                                            : 0;
  }
  int64_t StateBytes() const override {
    return store_ == nullptr ? 0 : store_->usage().bytes;
  }
  BoundaryCounters counters() const override { return counters_; }
  void Prefetch(absl::Span<const uint64_t> keys) override {
    if (store_ != nullptr) store_->Prefetch(keys);
  }
  StateStore* state() override { return store_.get(); }
  ChannelMemory* memory() override { return memory_.get(); }

 private:
  /// Room for the table and for payloads of the given size, in the block of
  /// `body`.
  void BeginDraft(size_t num_samples, size_t num_evictions,
                  int64_t payload_bytes, Buffer* body) {
    draft_.Begin(num_samples + num_evictions,
                 static_cast<int64_t>(num_samples) * payload_bytes,
                 std::move(*body));
  }

  void Finish(const BodyContext& context, uint32_t first_version,
              Buffer* body) {
    draft_.bytes.Truncate(draft_.size);
    WriteBodyTable(context, first_version, draft_.rows, draft_.bytes.span());
    *body = std::move(draft_.bytes);
  }

  void ForgetWritten() {
    for (auto& [key, record] : written_in_step_) {
      store_->GiveBack(std::move(record));
    }
    written_in_step_.clear();
  }

  void Count(size_t num_samples, int64_t not_finite, const Buffer& body) {
    counters_.not_finite += not_finite;
    counters_.samples += static_cast<int64_t>(num_samples);
    counters_.raw_bytes += channel_.RawBytes(num_samples);
    counters_.body_bytes += body.size();
  }

  absl::StatusOr<int64_t> EncodeRow(ChannelMemory::Which which,
                                    absl::Span<const float> values,
                                    const RandomKey& key,
                                    absl::Span<uint8_t> room) {
    const Codec& codec = which == ChannelMemory::kFirst ? *channel_.spec.first
                                                        : *channel_.spec.codec;
    return memory_ == nullptr
               ? codec.Encode(values, key, room)
               : codec.EncodeNext(values, key, memory_->Of(which), room);
  }

  /// Adds to `not_finite` how many values are; null: they are not counted, as
  /// in evaluation (reads_only).
  absl::Status EncodeRows(uint32_t step,
                          absl::Span<const BoundarySample> samples,
                          absl::Span<const float> values, Buffer* body,
                          int64_t* not_finite) {
    const bool reads_only = not_finite == nullptr;
    const uint8_t flags = reads_only ? kRowReadsOnly : 0;
    const Codec& codec =
        reads_only ? *channel_.evaluation_codec : *channel_.spec.codec;
    BeginDraft(samples.size(), 0,
               codec.MaxPayloadBytes(channel_.num_elements()), body);
    for (size_t i = 0; i < samples.size(); ++i) {
      const absl::Span<const float> value = channel_.Row(values, i);
      const RandomKey key = channel_.Key(step, samples[i].slot);
      // Just before the codec, which then finds the sample in a cache.
      if (!reads_only) *not_finite += CountNotFinite(value);
      DP_ASSIGN_OR_RETURN(const int64_t size,
                          reads_only ? codec.Encode(value, key, draft_.room())
                                     : EncodeRow(ChannelMemory::kCodec, value,
                                                 key, draft_.room()));
      draft_.AddRow(samples[i].key, 0, RowMode::kValue, flags, size);
      if (i == 0 && !reads_only && IsFirstOf(step)) {
        DP_RETURN_IF_ERROR(DecodeAndProbe(step, value));
      }
    }
    Finish(channel_.Context(step), 0, body);
    return absl::OkStatus();
  }

  /// Whether nothing of `step` has been probed.
  bool IsFirstOf(uint32_t step) const { return probed_step_ != step; }

  /// Compares `value` with the draft's last row as the receiver decodes it.
  absl::Status DecodeAndProbe(uint32_t step, absl::Span<const float> value) {
    const int64_t size = draft_.rows.back().payload_bytes;
    const absl::Span<const uint8_t> payload = draft_.bytes.span().subspan(
        static_cast<size_t>(draft_.size - size), static_cast<size_t>(size));
    DP_RETURN_IF_ERROR(channel_.spec.codec->Decode(
        payload, absl::MakeSpan(Floats(&restored_), value.size())));
    Probe(step, value);
    return absl::OkStatus();
  }

  /// The same for what `record` has become.
  absl::Status ProbeDelta(uint32_t step, absl::Span<const float> value,
                          const Record& record) {
    if (sent_norms_.has_value()) {
      CountProbe(step, *sent_norms_);
      return absl::OkStatus();
    }
    DP_RETURN_IF_ERROR(math_.Load(record, Floats(&restored_)));
    Probe(step, value);
    return absl::OkStatus();
  }

  /// Compares `value` with what the receiver gets, in restored_.
  void Probe(uint32_t step, absl::Span<const float> value) {
    CountProbe(step,
               SubtractRecord(value.data(), Floats(&restored_),
                              Floats(&difference_), channel_.num_elements()));
  }

  void CountProbe(uint32_t step, const SquaredNorms& norms) {
    probed_step_ = step;
    if (!std::isfinite(norms.value) || !std::isfinite(norms.difference)) return;
    counters_.probed_value_squares += norms.value;
    counters_.probed_error_squares += norms.difference;
  }

  absl::Status EncodeStateless(uint32_t step,
                               absl::Span<const BoundarySample> samples,
                               absl::Span<const float> values, Buffer* body) {
    int64_t not_finite = 0;
    DP_RETURN_IF_ERROR(EncodeRows(step, samples, values, body, &not_finite));
    if (memory_ != nullptr) memory_->Stage(step);
    counters_.value_rows += static_cast<int64_t>(samples.size());
    Count(samples.size(), not_finite, *body);
    return absl::OkStatus();
  }

  absl::Status EncodeEvaluation(uint32_t step,
                                absl::Span<const BoundarySample> samples,
                                absl::Span<const float> values, Buffer* body) {
    DP_RETURN_IF_ERROR(
        EncodeRows(step, samples, values, body, /*not_finite=*/nullptr));
    counters_.evaluation_samples += static_cast<int64_t>(samples.size());
    counters_.evaluation_raw_bytes += channel_.RawBytes(samples.size());
    counters_.evaluation_body_bytes += body->size();
    return absl::OkStatus();
  }

  /// AQ-SGD, section 3: m <- store(m + deq(Q(a - m))), by what was measured.
  absl::Status AddDeltaRow(uint32_t step, uint64_t key, const RandomKey& random,
                           uint32_t version, absl::Span<const float> value) {
    const RecordPtr base = pending_.Read(key);
    DP_ASSIGN_OR_RETURN(const std::shared_ptr<Record> next,
                        store_->NewRecord(version, channel_.record_bytes()));
    sent_norms_.reset();
    bool sends_delta = false;
    if (base != nullptr && tiles_ != nullptr) {
      SquaredNorms sent;
      if (tiles_->Encode(
              value.data(), *base, random,
              {draft_.room().data(), next.get(),
               IsFirstOf(step) ? &sent : nullptr, &is_row_finite_})) {
        if (IsFirstOf(step)) sent_norms_ = sent;
        draft_.AddRow(key, base->version, RowMode::kDelta, 0,
                      channel_.spec.codec->MaxPayloadBytes(value.size()));
        pending_.Put(key, next);
        return absl::OkStatus();
      }
    } else if (base != nullptr) {
      DP_ASSIGN_OR_RETURN(
          const SquaredNorms norms,
          math_.Subtract(value.data(), *base, Floats(&difference_)));
      sends_delta = PaysDelta(norms);
    }
    const Codec& codec =
        sends_delta ? *channel_.spec.codec : *channel_.spec.first;
    const absl::Span<const float> input =
        sends_delta ? absl::MakeConstSpan(Floats(&difference_), value.size())
                    : value;
    DP_ASSIGN_OR_RETURN(
        const int64_t size,
        EncodeRow(sends_delta ? ChannelMemory::kCodec : ChannelMemory::kFirst,
                  input, random, draft_.room()));
    // The sender stores what the receiver will decode.
    DP_RETURN_IF_ERROR(
        codec.Decode(draft_.room().first(static_cast<size_t>(size)),
                     absl::MakeSpan(Floats(&restored_), value.size())));
    if (sends_delta) {
      DP_RETURN_IF_ERROR(math_.Add(*base, Floats(&restored_), next.get()));
    } else {
      DP_RETURN_IF_ERROR(math_.Store(Floats(&restored_), next.get()));
    }
    draft_.AddRow(key, sends_delta ? base->version : 0,
                  sends_delta ? RowMode::kDelta : RowMode::kValue, 0, size);
    pending_.Put(key, next);
    return absl::OkStatus();
  }

  absl::Status AddFeedbackRow(uint64_t key, const RandomKey& random,
                              uint32_t version, absl::Span<const float> value) {
    const RecordPtr record = pending_.Read(key);
    DP_ASSIGN_OR_RETURN(const std::shared_ptr<Record> next,
                        store_->NewRecord(version, channel_.record_bytes()));
    // Residuals in fp32 are used where they lie.
    const bool is_in_place = channel_.spec.store_codec == nullptr;
    const float* residual = nullptr;
    if (record != nullptr) {
      residual = is_in_place ? record->elements<float>() : Floats(&difference_);
      if (!is_in_place) {
        DP_RETURN_IF_ERROR(math_.Load(*record, Floats(&difference_)));
      }
    }
    float* const next_residual =
        is_in_place ? reinterpret_cast<float*>(next->values.data())
                    : Floats(&difference_);
    DP_ASSIGN_OR_RETURN(
        const int64_t size,
        feedback_->Encode(
            value, residual, random, draft_.room(), next_residual,
            memory_ == nullptr ? nullptr : memory_->Of(ChannelMemory::kCodec)));
    if (!is_in_place) {
      DP_RETURN_IF_ERROR(math_.Store(next_residual, next.get()));
    }
    draft_.AddRow(key, 0, RowMode::kValue, 0, size);
    pending_.Put(key, next);
    return absl::OkStatus();
  }

  static float* Floats(Buffer* buffer) {
    return reinterpret_cast<float*>(buffer->data());
  }

  const BoundaryChannel channel_;
  std::unique_ptr<StateStore> store_;  // null without state
  RecordMath math_;
  std::unique_ptr<DeltaTiles> tiles_;        // null: rows go unfused
  std::unique_ptr<ErrorFeedback> feedback_;  // of ef(...) only
  std::unique_ptr<ChannelMemory> memory_;    // null: no codec has one
  std::unique_ptr<Evictions> evictions_;     // null without state
  Buffer difference_;                        // a - m
  Buffer restored_;                          // deq(Q(a - m)), or what is probed
  BoundaryCounters counters_;
  std::optional<uint32_t> probed_step_;
  /// Of the last row, if it went in tiles and was probed on the way.
  std::optional<SquaredNorms> sent_norms_;
  // The row has no value that is not finite, as norms have shown.
  bool is_row_finite_ = false;

  // Of one call each, kept for their memory.
  PendingRecords pending_;
  Draft draft_;
  std::vector<uint64_t> keys_;
  std::vector<std::pair<uint64_t, const Record*>> keyframes_;

  /// What the last step wrote, for keyframes: also versions that a later row
  /// replaced and records that were evicted at once.
  std::vector<std::pair<uint64_t, RecordPtr>> written_in_step_;
  uint32_t last_step_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BoundaryEncoder>> BoundaryEncoder::Create(
    const BoundaryOptions& options) {
  DP_ASSIGN_OR_RETURN(BoundaryChannel channel,
                      BoundaryChannel::Create(options));
  DP_ASSIGN_OR_RETURN(std::unique_ptr<StateStore> store, channel.MakeStore());
  return std::make_unique<Encoder>(std::move(channel), std::move(store));
}

}  // namespace deltapipe
