#include "worker/collective/two_phase_all_reduce.h"

#include <algorithm>
#include <cmath>
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

}  // namespace

TwoPhaseAllReduce::TwoPhaseAllReduce(
    std::unique_ptr<ShardCompressor> compressor, bool has_feedback,
    int64_t num_elements, uint64_t seed, GroupExchange* exchange)
    : compressor_(std::move(compressor)),
      has_feedback_(has_feedback),
      seed_(seed),
      shards_{num_elements, exchange->group()->size()},
      rank_(exchange->group()->rank()),
      exchange_(exchange),
      messages_(static_cast<size_t>(exchange->group()->size())) {}

void TwoPhaseAllReduce::Allocate() {
  worker_.pending.resize(static_cast<size_t>(shards_.num_elements));
  server_.pending.resize(static_cast<size_t>(shards_.size(rank_)));
  if (has_feedback_) {
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
    std::vector<uint8_t>* message) {
  RandomKey key;
  key.seed = seed_;
  key.tensor_id = tensor_id;
  key.step = step;
  key.slot = static_cast<uint32_t>(rank_);
  key.direction = kGradientDirection;
  message->resize(static_cast<size_t>(
      compressor_->MaxMessageBytes(static_cast<int64_t>(shard.size()))));
  DP_ASSIGN_OR_RETURN(
      const int64_t size,
      compressor_->Encode(shard, key, absl::MakeSpan(*message)));
  return ByteSpan(message->data(), static_cast<size_t>(size));
}

absl::Status TwoPhaseAllReduce::SendToServers(uint32_t step,
                                              absl::Span<const float> values) {
  const int num_ranks = shards_.num_ranks;
  const absl::Span<float> x = absl::MakeSpan(worker_.pending);
  std::copy(values.begin(), values.end(), x.begin());
  compressor_->AddResidual(x, worker_.committed);

  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < num_ranks; ++offset) {
    const int peer = (rank_ + offset) % num_ranks;
    if (shards_.size(peer) == 0) continue;
    outgoing.push_back({peer, shards_.size(peer), [=, this_step = step] {
                          return Encode(this_step, static_cast<uint32_t>(peer),
                                        shards_.Of(x, peer),
                                        &messages_[static_cast<size_t>(peer)]);
                        }});
  }
  const absl::Span<float> mean = absl::MakeSpan(server_.pending);
  std::fill(mean.begin(), mean.end(), 0.0f);
  ByteSpan own;
  if (!mean.empty()) {
    DP_ASSIGN_OR_RETURN(
        own, Encode(step, static_cast<uint32_t>(rank_), shards_.Of(x, rank_),
                    &messages_[static_cast<size_t>(rank_)]));
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (rank != rank_) sources.push_back(rank);
    }
    if (rank_ == 0) {
      DP_RETURN_IF_ERROR(compressor_->AccumulateMean(own, num_ranks, mean));
    }
  }
  // Ranks are added in their order, this one in its place.
  return exchange_->Exchange(
      kToServers, outgoing, sources,
      compressor_->MaxMessageBytes(shards_.size(rank_)),
      [&](int peer, ByteSpan message) {
        DP_RETURN_IF_ERROR(
            compressor_->AccumulateMean(message, num_ranks, mean));
        if (peer + 1 != rank_) return absl::OkStatus();
        return compressor_->AccumulateMean(own, num_ranks, mean);
      });
}

absl::Status TwoPhaseAllReduce::SendToWorkers(uint32_t step,
                                              absl::Span<float> values) {
  const int num_ranks = shards_.num_ranks;
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  const absl::Span<float> mean = absl::MakeSpan(server_.pending);
  if (!mean.empty()) {
    compressor_->AddResidual(mean, server_.committed);
    DP_ASSIGN_OR_RETURN(const ByteSpan message,
                        Encode(step, static_cast<uint32_t>(num_ranks + rank_),
                               mean, &messages_[static_cast<size_t>(rank_)]));
    for (int offset = 1; offset < num_ranks; ++offset) {
      outgoing.push_back({(rank_ + offset) % num_ranks, shards_.size(rank_),
                          [message] { return message; }});
    }
    DP_RETURN_IF_ERROR(compressor_->Decode(message, shards_.Of(values, rank_)));
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (rank != rank_ && shards_.size(rank) > 0) sources.push_back(rank);
  }
  return exchange_->Exchange(kToWorkers, outgoing, sources,
                             compressor_->MaxMessageBytes(shards_.stride()),
                             [&](int peer, ByteSpan message) {
                               return compressor_->Decode(
                                   message, shards_.Of(values, peer));
                             });
}

absl::Status TwoPhaseAllReduce::Run(uint32_t step, absl::Span<float> values) {
  if (worker_.pending.empty()) Allocate();
  DP_RETURN_IF_ERROR(SendToServers(step, values));
  DP_RETURN_IF_ERROR(SendToWorkers(step, values));
  if (has_feedback_) {
    worker_.pending_norm = std::sqrt(SumOfSquares(worker_.pending));
    server_.pending_norm = std::sqrt(SumOfSquares(server_.pending));
  }
  return absl::OkStatus();
}

absl::Status TwoPhaseAllReduce::Commit() {
  if (!has_feedback_) return absl::OkStatus();
  if (!std::isfinite(worker_.pending_norm) ||
      !std::isfinite(server_.pending_norm)) {
    return absl::FailedPreconditionError(
        "commit refused: the synchronised values are not finite, and neither "
        "would the residuals be; abort such a step");
  }
  worker_.Commit();
  server_.Commit();
  return absl::OkStatus();
}

}  // namespace deltapipe
