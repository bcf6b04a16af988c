#include "worker/collective/feedback_reduce.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/optim/ranges_at.h"

namespace deltapipe {
namespace {

std::vector<float> Picked(const SyncBucket& bucket,
                          absl::Span<const float> vector) {
  std::vector<float> values;
  CopyOut(bucket, vector, &values);
  return values;
}

}  // namespace

FeedbackReduce::FeedbackReduce(std::shared_ptr<ShardCompressor> compressor,
                               TwoPhaseAllReduce::Options options,
                               std::vector<SyncBucket> buckets,
                               GroupExchange* exchange)
    : buckets_(std::move(buckets)) {
  for (const SyncBucket& bucket : buckets_) {
    options.num_elements = bucket.num_elements;
    parts_.push_back(
        std::make_unique<TwoPhaseAllReduce>(compressor, options, exchange));
    options.first_tensor_id += TwoPhaseAllReduce::kNumTensorIds *
                               static_cast<uint32_t>(exchange->group()->size());
    num_elements_ += bucket.num_elements;
  }
}

absl::Status FeedbackReduce::Commit() {
  for (const auto& part : parts_) DP_RETURN_IF_ERROR(part->CheckCommit());
  for (const auto& part : parts_) part->Commit();
  return absl::OkStatus();
}

std::vector<ElementRange> FeedbackReduce::server_ranges() const {
  std::vector<ElementRange> all;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const ElementRange shard = parts_[i]->own_shard();
    const auto ranges = RangesAt(buckets_[i].ranges, shard.begin, shard.end);
    all.insert(all.end(), ranges.begin(), ranges.end());
  }
  return all;
}

bool FeedbackReduce::has_residuals() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const auto& part) {
    return !part->worker_residual().empty();
  });
}

std::vector<float> FeedbackReduce::WorkerResidual() const {
  if (!has_residuals()) return {};
  std::vector<float> all(static_cast<size_t>(num_elements_));
  for (size_t i = 0; i < parts_.size(); ++i) {
    const std::vector<float>& own = parts_[i]->worker_residual();
    // A bucket that has not run yet owes nothing.
    if (!own.empty()) CopyIn(buckets_[i], own, absl::MakeSpan(all));
  }
  return all;
}

std::vector<float> FeedbackReduce::ServerResidual() const {
  std::vector<float> all;
  if (!has_residuals()) return all;
  for (const auto& part : parts_) {
    const ElementRange shard = part->own_shard();
    const std::vector<float>& own = part->server_residual();
    if (own.empty()) {
      all.resize(all.size() + static_cast<size_t>(shard.end - shard.begin));
    } else {
      all.insert(all.end(), own.begin(), own.end());
    }
  }
  return all;
}

absl::Status FeedbackReduce::PutResiduals(absl::Span<const float> worker,
                                          absl::Span<const float> server) {
  size_t num_owned = 0;
  for (const auto& part : parts_) {
    const ElementRange shard = part->own_shard();
    num_owned += static_cast<size_t>(shard.end - shard.begin);
  }
  if (static_cast<int64_t>(worker.size()) != num_elements_ ||
      server.size() != num_owned) {
    return absl::InvalidArgumentError(
        absl::StrCat("residuals of ", worker.size(), " and ", server.size(),
                     " values, expected ", num_elements_, " and ", num_owned));
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    const ElementRange shard = parts_[i]->own_shard();
    const size_t size = static_cast<size_t>(shard.end - shard.begin);
    DP_RETURN_IF_ERROR(parts_[i]->PutResiduals(Picked(buckets_[i], worker),
                                               server.first(size)));
    server.remove_prefix(size);
  }
  return absl::OkStatus();
}

void FeedbackReduce::SetCompressor(
    std::shared_ptr<ShardCompressor> compressor) {
  for (const auto& part : parts_) part->SetCompressor(compressor);
}

double FeedbackReduce::worker_residual_norm() const {
  double squares = 0;
  for (const auto& part : parts_) {
    squares += part->worker_residual_norm() * part->worker_residual_norm();
  }
  return std::sqrt(squares);
}

double FeedbackReduce::server_residual_norm() const {
  double squares = 0;
  for (const auto& part : parts_) {
    squares += part->server_residual_norm() * part->server_residual_norm();
  }
  return std::sqrt(squares);
}

}  // namespace deltapipe
