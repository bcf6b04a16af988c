#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_channel.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/held_rows.h"
#include "compression/delta/node_cache.h"
#include "compression/delta/pending_records.h"
#include "compression/delta/record_math.h"

namespace deltapipe {
namespace {

class Decoder : public BoundaryDecoder {
 public:
  /// `store` is null where nothing is kept.
  Decoder(BoundaryChannel channel, std::unique_ptr<StateStore> store)
      : channel_(std::move(channel)),
        math_(channel_.record_form(), channel_.num_elements()),
        store_(std::move(store)),
        pending_(store_.get()) {}

  absl::Status Decode(uint32_t step, absl::Span<const BoundarySample> expected,
                      absl::Span<const uint8_t> body, bool reads_only,
                      absl::Span<float> values,
                      std::vector<uint64_t>* missing_keys) override {
    if (missing_keys != nullptr) missing_keys->clear();
    DP_RETURN_IF_ERROR(channel_.CheckValues(expected.size(), values.size()));
    DP_RETURN_IF_ERROR(Parse(step, expected, body, reads_only));
    if (reads_only || !keeps_records()) {
      return DecodeWithoutState(body.size(), reads_only, values);
    }
    FindMissingKeys();
    if (!missing_.empty()) {
      if (missing_keys == nullptr) {
        return absl::FailedPreconditionError(
            absl::StrCat("decode failed: ", missing_.size(),
                         " records are missing or of another version, such as "
                         "that of sample ",
                         missing_[0]));
      }
      *missing_keys = missing_;
      return absl::OkStatus();
    }
    keyframes_.clear();
    DP_RETURN_IF_ERROR(Apply(step, values));
    Count(expected.size(), body.size());
    return absl::OkStatus();
  }

  absl::Status ApplyKeyframes(uint32_t step,
                              absl::Span<const BoundarySample> expected,
                              absl::Span<const uint8_t> body,
                              absl::Span<const uint8_t> keyframes,
                              absl::Span<float> values) override {
    if (!keeps_records()) {
      return absl::FailedPreconditionError(
          absl::StrCat("codec ", channel_.spec.Text(), " has no keyframes"));
    }
    DP_RETURN_IF_ERROR(channel_.CheckValues(expected.size(), values.size()));
    DP_RETURN_IF_ERROR(Parse(step, expected, body, false));
    DP_RETURN_IF_ERROR(
        ParseBody(channel_.KeyframeContext(), keyframes, &parsed_keyframes_));
    keyframes_.clear();
    for (size_t i = 0; i < parsed_keyframes_.rows.size(); ++i) {
      const BodyRow& row = parsed_keyframes_.rows[i];
      if (row.mode != RowMode::kKeyframe ||
          row.payload_bytes != channel_.record_bytes()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "bad keyframes: row ", i, " of sample ", row.key, " has mode ",
            static_cast<int>(row.mode), " and ", row.payload_bytes,
            " bytes, expected a record of ", channel_.record_bytes()));
      }
      keyframes_[{row.key, row.base_version}] = parsed_keyframes_.payloads[i];
    }
    DP_RETURN_IF_ERROR(Apply(step, values));
    counters_.keyframe_rows +=
        static_cast<int64_t>(parsed_keyframes_.rows.size());
    counters_.body_bytes += static_cast<int64_t>(keyframes.size());
    Count(expected.size(), body.size());
    return absl::OkStatus();
  }

  void CommitStep(uint32_t step) override {
    if (store_ != nullptr) store_->CommitStep(step);
  }
  absl::Status RollbackTo(uint32_t step) override {
    return store_ == nullptr ? absl::OkStatus() : store_->RollbackTo(step);
  }
  uint64_t StateHash() const override {
    return store_ == nullptr ? 0 : store_->Hash();
  }
  int64_t StateBytes() const override {
    return store_ == nullptr ? 0 : store_->usage().bytes;
  }
  BoundaryCounters counters() const override { return counters_; }
  void Prefetch(absl::Span<const uint64_t> keys) override {
    if (store_ != nullptr) store_->Prefetch(keys);
  }
  StateStore* state() override { return store_.get(); }

  std::shared_ptr<const HeldRows> Hold(
      absl::Span<const BoundarySample> samples) override {
    if (store_ == nullptr) return nullptr;
    absl::flat_hash_set<uint64_t> keys;
    std::vector<RecordPtr> records;
    records.reserve(samples.size());
    for (const BoundarySample& sample : samples) {
      records.push_back(store_->Read(sample.key));
      if (records.back() == nullptr || !keys.insert(sample.key).second) {
        return nullptr;
      }
    }
    return std::make_shared<HeldRows>(
        std::move(records), channel_.num_elements(),
        channel_.record_form().is_float32, channel_.spec.store_codec);
  }

 private:
  bool keeps_records() const {
    return channel_.spec.kind == BoundarySpec::Kind::kDelta;
  }

  void Count(size_t num_samples, size_t body_bytes) {
    counters_.samples += static_cast<int64_t>(num_samples);
    counters_.raw_bytes += channel_.RawBytes(num_samples);
    counters_.body_bytes += static_cast<int64_t>(body_bytes);
  }

  /// Parses into parsed_, and checks everything that does not depend on the
  /// records.
  absl::Status Parse(uint32_t step, absl::Span<const BoundarySample> expected,
                     absl::Span<const uint8_t> body, bool reads_only) {
    DP_RETURN_IF_ERROR(ParseBody(channel_.Context(step), body, &parsed_));
    const size_t num_samples = num_parsed_samples();
    if (num_samples != expected.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("bad body: expected ", expected.size(), " samples, got ",
                       num_samples));
    }
    const bool advances = !reads_only && keeps_records();
    if (advances != (parsed_.first_version != 0)) {
      return absl::InvalidArgumentError(
          advances ? "bad body: it has no versions"
                   : "bad body: it has versions where none are kept");
    }
    if (advances && parsed_.first_version <= store_->usage().last_version) {
      return absl::InvalidArgumentError(absl::StrCat(
          "bad body: its versions begin at ", parsed_.first_version,
          ", expected more than ", store_->usage().last_version,
          ": it was applied before"));
    }
    for (size_t i = 0; i < parsed_.rows.size(); ++i) {
      DP_RETURN_IF_ERROR(
          CheckRow(i, i < num_samples ? &expected[i] : nullptr, reads_only));
    }
    return absl::OkStatus();
  }

  /// The rows but those that evict, which come last.
  size_t num_parsed_samples() const {
    return parsed_.rows.size() - parsed_.num_evictions;
  }

  absl::Status CheckRow(size_t index, const BoundarySample* expected,
                        bool reads_only) const {
    const BodyRow& row = parsed_.rows[index];
    const auto refuse = [index](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat("bad body: row ", index, ": ", why));
    };
    if (expected != nullptr && row.key != expected->key) {
      return refuse(
          absl::StrCat("expected sample ", expected->key, ", got ", row.key));
    }
    if (row.flags != (reads_only ? kRowReadsOnly : 0)) {
      return refuse(reads_only ? "it belongs to training, expected evaluation"
                               : "it belongs to evaluation");
    }
    const bool advances = !reads_only && keeps_records();
    switch (row.mode) {
      case RowMode::kValue:
        if (row.base_version != 0) return refuse("a value has a base");
        return absl::OkStatus();
      case RowMode::kDelta:
        if (!advances) return refuse("a delta where no records are kept");
        if (row.base_version == 0 ||
            row.base_version >= parsed_.first_version + index) {
          return refuse(absl::StrCat("impossible base ", row.base_version));
        }
        return absl::OkStatus();
      case RowMode::kEvict:
        if (!advances) return refuse("an eviction where no records are kept");
        return absl::OkStatus();
      case RowMode::kKeyframe:
        return refuse("a keyframe among values");
    }
    return refuse("unknown mode");
  }

  absl::Status DecodeWithoutState(size_t body_bytes, bool reads_only,
                                  absl::Span<float> values) {
    const Codec& codec =
        reads_only ? *channel_.evaluation_codec : *channel_.spec.codec;
    const size_t num_samples = parsed_.rows.size();
    for (size_t i = 0; i < num_samples; ++i) {
      DP_RETURN_IF_ERROR(
          codec.Decode(parsed_.payloads[i], channel_.Row(values, i)));
    }
    if (reads_only) {
      counters_.evaluation_samples += static_cast<int64_t>(num_samples);
      counters_.evaluation_raw_bytes += channel_.RawBytes(num_samples);
      counters_.evaluation_body_bytes += static_cast<int64_t>(body_bytes);
    } else {
      counters_.value_rows += static_cast<int64_t>(num_samples);
      Count(num_samples, body_bytes);
    }
    return absl::OkStatus();
  }

  /// Leaves in missing_ the keys of rows whose base is not in the store: each
  /// once, in row order.
  void FindMissingKeys() {
    missing_.clear();
    // Rows write their versions whether or not they must be healed first.
    written_.clear();
    for (size_t i = 0; i < parsed_.rows.size(); ++i) {
      const BodyRow& row = parsed_.rows[i];
      if (row.mode == RowMode::kEvict) break;
      if (row.mode == RowMode::kDelta) {
        const auto found = written_.find(row.key);
        uint32_t version = 0;
        if (found != written_.end()) {
          version = found->second;
        } else if (const RecordPtr record = store_->Read(row.key)) {
          version = record->version;
        }
        if (version != row.base_version &&
            std::find(missing_.begin(), missing_.end(), row.key) ==
                missing_.end()) {
          missing_.push_back(row.key);
        }
      }
      written_[row.key] = parsed_.first_version + static_cast<uint32_t>(i);
    }
  }

  /// Decodes all rows, with keyframes_ where they are needed, then stages all
  /// records: an error leaves the state alone.
  absl::Status Apply(uint32_t step, absl::Span<float> values) {
    const size_t num_samples = num_parsed_samples();
    pending_.Begin();
    int64_t num_deltas = 0;
    for (size_t i = 0; i < num_samples; ++i) {
      const uint32_t version = parsed_.first_version + static_cast<uint32_t>(i);
      DP_RETURN_IF_ERROR(ApplyRow(parsed_.rows[i], parsed_.payloads[i], version,
                                  channel_.Row(values, i)));
      if (parsed_.rows[i].mode == RowMode::kDelta) ++num_deltas;
    }
    pending_.StageAll(step);
    for (size_t i = num_samples; i < parsed_.rows.size(); ++i) {
      store_->Stage(step, parsed_.rows[i].key, nullptr);
    }
    counters_.delta_rows += num_deltas;
    counters_.value_rows += static_cast<int64_t>(num_samples) - num_deltas;
    counters_.evictions += static_cast<int64_t>(parsed_.num_evictions);
    return absl::OkStatus();
  }

  absl::Status ApplyRow(const BodyRow& row, absl::Span<const uint8_t> payload,
                        uint32_t version, absl::Span<float> values) {
    DP_ASSIGN_OR_RETURN(const std::shared_ptr<Record> next,
                        store_->NewRecord(version, channel_.record_bytes()));
    if (row.mode == RowMode::kValue) {
      DP_RETURN_IF_ERROR(channel_.spec.first->Decode(payload, values));
      DP_RETURN_IF_ERROR(math_.StoreAndUse(values.data(), next.get()));
    } else if (const RecordPtr base = pending_.Read(row.key);
               base != nullptr && base->version == row.base_version) {
      DP_RETURN_IF_ERROR(channel_.spec.codec->Decode(payload, values));
      DP_RETURN_IF_ERROR(math_.AddAndUse(*base, values.data(), next.get()));
    } else {
      const auto keyframe = keyframes_.find({row.key, version});
      if (keyframe == keyframes_.end()) {
        return absl::FailedPreconditionError(absl::StrCat(
            "decode failed: sample ", row.key, " needs its record of version ",
            row.base_version, " or a keyframe of version ", version));
      }
      std::copy(keyframe->second.begin(), keyframe->second.end(),
                next->values.data());
      DP_RETURN_IF_ERROR(math_.Load(*next, values.data()));
    }
    pending_.Put(row.key, next);
    return absl::OkStatus();
  }

  const BoundaryChannel channel_;
  RecordMath math_;
  std::unique_ptr<StateStore> store_;  // null without delta
  BoundaryCounters counters_;

  // Of one call each, kept for their memory.
  ParsedBody parsed_;
  ParsedBody parsed_keyframes_;
  PendingRecords pending_;
  std::vector<uint64_t> missing_;
  NodeCache nodes_;  // of what follows
  std::pmr::unordered_map<uint64_t, uint32_t> written_{&nodes_};
  /// Payloads of keyframes by key and version.
  std::pmr::map<std::pair<uint64_t, uint32_t>, absl::Span<const uint8_t>>
      keyframes_{&nodes_};
};

}  // namespace

absl::StatusOr<std::unique_ptr<BoundaryDecoder>> BoundaryDecoder::Create(
    const BoundaryOptions& options) {
  DP_ASSIGN_OR_RETURN(BoundaryChannel channel,
                      BoundaryChannel::Create(options));
  // Residuals are the sender's alone.
  std::unique_ptr<StateStore> store;
  if (channel.spec.kind == BoundarySpec::Kind::kDelta) {
    DP_ASSIGN_OR_RETURN(store, channel.MakeStore());
  }
  return std::make_unique<Decoder>(std::move(channel), std::move(store));
}

}  // namespace deltapipe
