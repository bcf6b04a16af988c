#include "worker/collective/two_phase_all_reduce.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {
namespace {

constexpr uint32_t kToServers = 1;
constexpr uint32_t kToWorkers = 2;
// RandomKey::direction: gradients.
constexpr uint32_t kGradientDirection = 2;
// Of a shard's message inside a packed result.
constexpr size_t kSizeBytes = 4;

/// The end of a shard's message.
absl::StatusOr<ByteSpan> WakeBitsOf(ByteSpan message,
                                    const ExcludedPart& part) {
  const size_t size = static_cast<size_t>(part.num_wake_bytes());
  if (message.size() >= size) return message.last(size);
  return absl::InvalidArgumentError(
      absl::StrCat("message of ", message.size(), " bytes, expected ", size,
                   " or more for ", part.size(), " excluded ranges"));
}

void ZeroOut(const ExcludedPart& part, absl::Span<float> values) {
  for (size_t i = 0; i < part.size(); ++i) {
    const ElementRange range = part.range(i);
    std::fill(values.begin() + range.begin, values.begin() + range.end, 0.0f);
  }
}

}  // namespace

TwoPhaseAllReduce::TwoPhaseAllReduce(
    std::shared_ptr<ShardCompressor> compressor, const Options& options,
    GroupExchange* exchange)
    : compressor_(std::move(compressor)),
      options_(options),
      shards_{options.num_elements, exchange->group()->size()},
      rank_(exchange->group()->rank()),
      exchange_(exchange),
      messages_(static_cast<size_t>(exchange->group()->size())),
      results_(static_cast<size_t>(exchange->group()->size())) {}

void TwoPhaseAllReduce::Allocate() {
  worker_.pending.resize(static_cast<size_t>(shards_.num_elements));
  server_.pending.resize(static_cast<size_t>(shards_.size(rank_)));
  if (options_.has_feedback) {
    worker_.committed.resize(worker_.pending.size());
    server_.committed.resize(server_.pending.size());
  }
}

void TwoPhaseAllReduce::Residual::Commit() {
  std::swap(committed, pending);
  norm = pending_norm;
}

absl::Status TwoPhaseAllReduce::PutResiduals(absl::Span<const float> worker,
                                             absl::Span<const float> server) {
  Allocate();
  if (worker.size() != worker_.committed.size() ||
      server.size() != server_.committed.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("residuals of ", worker.size(), " and ", server.size(),
                     " values, expected ", worker_.committed.size(), " and ",
                     server_.committed.size(), " on rank ", rank_, " of ",
                     shards_.num_ranks));
  }
  std::copy(worker.begin(), worker.end(), worker_.committed.begin());
  std::copy(server.begin(), server.end(), server_.committed.begin());
  worker_.norm = std::sqrt(SumOfSquares(worker_.committed));
  server_.norm = std::sqrt(SumOfSquares(server_.committed));
  return absl::OkStatus();
}

absl::StatusOr<ByteSpan> TwoPhaseAllReduce::Encode(
    uint32_t step, uint32_t tensor_id, absl::Span<float> shard,
    const ExcludedPart& part, absl::Span<const uint8_t> flags,
    std::vector<uint8_t>* message) {
  RandomKey key;
  key.seed = options_.seed;
  key.tensor_id = options_.first_tensor_id + tensor_id;
  key.step = step;
  key.slot = options_.slot;
  key.direction = kGradientDirection;
  const int64_t most =
      compressor_->MaxMessageBytes(static_cast<int64_t>(shard.size()));
  const int64_t num_wake_bytes = part.num_wake_bytes();
  message->resize(static_cast<size_t>(most + num_wake_bytes));
  DP_ASSIGN_OR_RETURN(const int64_t size,
                      compressor_->Encode(shard, key,
                                          absl::MakeSpan(*message).first(
                                              static_cast<size_t>(most))));
  message->resize(static_cast<size_t>(size + num_wake_bytes));
  WriteWakeBits(part, flags,
                absl::MakeSpan(*message).subspan(static_cast<size_t>(size)));
  return ByteSpan(*message);
}

void TwoPhaseAllReduce::SetAside(absl::Span<float> x) {
  aside_.clear();
  own_flags_.assign(excluded_.size(), 0);
  for (size_t i = 0; i < excluded_.size(); ++i) {
    const absl::Span<float> values =
        x.subspan(static_cast<size_t>(excluded_[i].begin),
                  static_cast<size_t>(excluded_[i].end - excluded_[i].begin));
    const bool is_zero = std::all_of(values.begin(), values.end(),
                                     [](float value) { return value == 0; });
    if (is_zero) continue;
    own_flags_[i] = 1;
    // Such a value must reach the scale, and with it all ranks.
    const bool is_finite =
        std::all_of(values.begin(), values.end(),
                    [](float value) { return std::isfinite(value); });
    if (!is_finite) continue;
    aside_.push_back({i, {values.begin(), values.end()}});
    std::fill(values.begin(), values.end(), 0.0f);
  }
}

absl::Status TwoPhaseAllReduce::SendToServers(uint32_t step,
                                              absl::Span<const float> values) {
  const int num_ranks = shards_.num_ranks;
  const absl::Span<float> x = absl::MakeSpan(worker_.pending);
  std::copy(values.begin(), values.end(), x.begin());
  SetAside(x);
  const ExcludedPart whole = PartOf(excluded_, 0, shards_.num_elements);
  compressor_->AddResidual(x,
                           drops_residuals_ ? absl::Span<const float>()
                                            : absl::MakeSpan(worker_.committed),
                           shards_.num_elements - whole.num_elements());

  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < num_ranks; ++offset) {
    const int peer = (rank_ + offset) % num_ranks;
    if (shards_.size(peer) == 0) continue;
    outgoing.push_back({peer, shards_.size(peer), [=, this_step = step] {
                          return Encode(this_step, static_cast<uint32_t>(peer),
                                        shards_.Of(x, peer), ShardPart(peer),
                                        own_flags_,
                                        &messages_[static_cast<size_t>(peer)]);
                        }});
  }
  const absl::Span<float> mean = absl::MakeSpan(server_.pending);
  const ExcludedPart part = ShardPart(rank_);
  std::fill(mean.begin(), mean.end(), 0.0f);
  server_flags_ = own_flags_;
  ByteSpan own;
  if (!mean.empty()) {
    DP_ASSIGN_OR_RETURN(
        own, Encode(step, static_cast<uint32_t>(rank_), shards_.Of(x, rank_),
                    part, own_flags_, &messages_[static_cast<size_t>(rank_)]));
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (rank != rank_) sources.push_back(rank);
    }
  }
  const auto accumulate = [&](ByteSpan message) -> absl::Status {
    DP_ASSIGN_OR_RETURN(const ByteSpan bits, WakeBitsOf(message, part));
    AddWakeBits(part, bits, absl::MakeSpan(server_flags_));
    message.remove_suffix(bits.size());
    return compressor_->AccumulateMean(message, num_ranks, mean);
  };
  if (rank_ == 0 && !mean.empty()) DP_RETURN_IF_ERROR(accumulate(own));
  // Ranks are added in their order, this one in its place.
  DP_RETURN_IF_ERROR(exchange_->Exchange(
      kToServers, outgoing, sources,
      compressor_->MaxMessageBytes(shards_.size(rank_)) + part.num_wake_bytes(),
      [&](int peer, ByteSpan message) {
        DP_RETURN_IF_ERROR(accumulate(message));
        return peer + 1 == rank_ ? accumulate(own) : absl::OkStatus();
      }));
  ZeroOut(whole, x);
  for (const Aside& aside : aside_) {
    std::copy(aside.values.begin(), aside.values.end(),
              x.begin() + excluded_[aside.range].begin);
  }
  return absl::OkStatus();
}

absl::Status TwoPhaseAllReduce::SendToWorkers(uint32_t step,
                                              absl::Span<float> values) {
  const int num_ranks = shards_.num_ranks;
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  const absl::Span<float> mean = absl::MakeSpan(server_.pending);
  const ExcludedPart part = ShardPart(rank_);
  woken_.assign(excluded_.size(), 0);
  const auto take = [&](int rank, ByteSpan message) {
    if (options_.keeps_messages) {
      results_[static_cast<size_t>(rank)].assign(message.begin(),
                                                 message.end());
    }
    return DecodeShard(message, ShardPart(rank), shards_.Of(values, rank),
                       absl::MakeSpan(woken_));
  };
  if (!mean.empty()) {
    ZeroOut(part, mean);
    compressor_->AddResidual(mean,
                             drops_residuals_
                                 ? absl::Span<const float>()
                                 : absl::MakeSpan(server_.committed),
                             shards_.size(rank_) - part.num_elements());
    DP_ASSIGN_OR_RETURN(
        const ByteSpan message,
        Encode(step, static_cast<uint32_t>(num_ranks + rank_), mean, part,
               server_flags_, &messages_[static_cast<size_t>(rank_)]));
    ZeroOut(part, mean);
    for (int offset = 1; offset < num_ranks; ++offset) {
      outgoing.push_back({(rank_ + offset) % num_ranks, shards_.size(rank_),
                          [message] { return message; }});
    }
    DP_RETURN_IF_ERROR(take(rank_, message));
  }
  int64_t most_bytes = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (rank == rank_ || shards_.size(rank) == 0) continue;
    sources.push_back(rank);
    most_bytes =
        std::max(most_bytes, compressor_->MaxMessageBytes(shards_.size(rank)) +
                                 ShardPart(rank).num_wake_bytes());
  }
  return exchange_->Exchange(kToWorkers, outgoing, sources, most_bytes, take);
}

absl::Status TwoPhaseAllReduce::DecodeShard(ByteSpan message,
                                            const ExcludedPart& part,
                                            absl::Span<float> values,
                                            absl::Span<uint8_t> flags) {
  DP_ASSIGN_OR_RETURN(const ByteSpan bits, WakeBitsOf(message, part));
  AddWakeBits(part, bits, flags);
  message.remove_suffix(bits.size());
  DP_RETURN_IF_ERROR(compressor_->Decode(message, values));
  ZeroOut(part, values);
  return absl::OkStatus();
}

void TwoPhaseAllReduce::WriteResult(std::vector<uint8_t>* packed) const {
  packed->clear();
  for (int rank = 0; rank < shards_.num_ranks; ++rank) {
    if (shards_.size(rank) == 0) continue;
    const std::vector<uint8_t>& message = results_[static_cast<size_t>(rank)];
    const uint32_t size = static_cast<uint32_t>(message.size());
    const auto* bytes = reinterpret_cast<const uint8_t*>(&size);
    packed->insert(packed->end(), bytes, bytes + kSizeBytes);
    packed->insert(packed->end(), message.begin(), message.end());
  }
}

int64_t TwoPhaseAllReduce::MaxResultBytes(int64_t num_elements,
                                          size_t num_excluded) const {
  const Shards shards{num_elements, shards_.num_ranks};
  int64_t bytes = 0;
  for (int rank = 0; rank < shards.num_ranks; ++rank) {
    if (shards.size(rank) == 0) continue;
    bytes += kSizeBytes + compressor_->MaxMessageBytes(shards.size(rank)) +
             static_cast<int64_t>(num_excluded / 8 + 1);
  }
  return bytes;
}

absl::Status TwoPhaseAllReduce::ReadResult(ByteSpan packed,
                                           const ExcludedPart& part,
                                           absl::Span<float> values,
                                           absl::Span<uint8_t> flags) {
  const Shards shards{static_cast<int64_t>(values.size()), shards_.num_ranks};
  for (int rank = 0; rank < shards.num_ranks; ++rank) {
    if (shards.size(rank) == 0) continue;
    uint32_t size = 0;
    if (packed.size() >= kSizeBytes) {
      std::memcpy(&size, packed.data(), kSizeBytes);
      packed.remove_prefix(kSizeBytes);
    }
    if (size == 0 || size > packed.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("packed shard ", rank, " of ", shards.num_ranks, ": ",
                       size, " bytes, of which there are ", packed.size()));
    }
    const ExcludedPart shard_part =
        PartOf(part.ranges, part.begin + shards.offset(rank),
               part.begin + shards.offset(rank + 1));
    DP_RETURN_IF_ERROR(DecodeShard(packed.first(size), shard_part,
                                   shards.Of(values, rank), flags));
    packed.remove_prefix(size);
  }
  if (packed.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "packed shards end with ", packed.size(), " bytes too many"));
}

absl::Status TwoPhaseAllReduce::Run(uint32_t step, absl::Span<float> values,
                                    absl::Span<const ElementRange> excluded,
                                    bool drops_residuals) {
  if (!options_.has_feedback) {
    shards_.num_elements = static_cast<int64_t>(values.size());
  }
  if (worker_.pending.size() != values.size()) Allocate();
  excluded_ = excluded;
  drops_residuals_ = drops_residuals;
  DP_RETURN_IF_ERROR(SendToServers(step, values));
  DP_RETURN_IF_ERROR(SendToWorkers(step, values));
  if (options_.has_feedback) {
    worker_.pending_norm = std::sqrt(SumOfSquares(worker_.pending));
    server_.pending_norm = std::sqrt(SumOfSquares(server_.pending));
  }
  return absl::OkStatus();
}

absl::Status TwoPhaseAllReduce::CheckCommit() const {
  if (!std::isfinite(worker_.pending_norm) ||
      !std::isfinite(server_.pending_norm)) {
    return absl::FailedPreconditionError(
        "commit refused: the synchronised values are not finite, and neither "
        "would the residuals be; abort such a step");
  }
  return absl::OkStatus();
}

void TwoPhaseAllReduce::Commit() {
  if (!options_.has_feedback) return;
  worker_.Commit();
  server_.Commit();
}

}  // namespace deltapipe
