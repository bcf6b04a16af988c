#include "worker/collective/bucketed_reduce.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/shard_compressor.h"

namespace deltapipe {

absl::StatusOr<std::unique_ptr<BucketedReduce>> BucketedReduce::Create(
    const std::string& codec_text, absl::Span<const SyncBucket> buckets,
    GroupExchange* exchange) {
  if (!IsFor(codec_text)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "buckets: expected a codec of each element by itself, got ",
        codec_text));
  }
  std::unique_ptr<BucketedReduce> reduce(new BucketedReduce(buckets));
  for (const SyncBucket& bucket : buckets) {
    std::unique_ptr<TwoPhaseAllReduce>& of_size =
        reduce->reduces_[bucket.num_elements];
    if (of_size != nullptr) continue;
    DP_ASSIGN_OR_RETURN(
        std::unique_ptr<ShardCompressor> compressor,
        ShardCompressor::Create(codec_text, /*has_feedback=*/false));
    TwoPhaseAllReduce::Options options;
    options.has_feedback = false;
    options.num_elements = bucket.num_elements;
    of_size = std::make_unique<TwoPhaseAllReduce>(std::move(compressor),
                                                  options, exchange);
  }
  return reduce;
}

absl::Status BucketedReduce::Run(
    uint32_t step, absl::Span<float> values,
    const std::function<absl::Status(int64_t)>& await) {
  for (const SyncBucket& bucket : buckets_) {
    DP_RETURN_IF_ERROR(await(bucket.ready_at));
    const absl::Span<float> gathered = Gathered(bucket, values, &copy_);
    DP_RETURN_IF_ERROR(
        reduces_.at(bucket.num_elements)
            ->Run(step, gathered, {}, /*drops_residuals=*/false));
    Scatter(bucket, gathered, values);
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
