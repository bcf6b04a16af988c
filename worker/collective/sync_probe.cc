#include "worker/collective/sync_probe.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <vector>

#include "base/philox.h"
#include "base/status_macros.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/shards.h"

namespace deltapipe {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 18;
constexpr int kTries = 5;
constexpr int kExchanges = 8;

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

/// Small whole numbers: all that a kernel's time could depend on is their
/// spread.
std::vector<float> SomeValues(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state >> 8) % 1000 - 500);
  }
  return values;
}

/// One rank's part of a transaction, but for its messages; the bytes of its
/// last one.
absl::StatusOr<int64_t> RunOnce(ShardCompressor* compressor,
                                const Shards& shards, absl::Span<float> values,
                                absl::Span<float> residual,
                                absl::Span<uint8_t> message) {
  compressor->AddResidual(values, residual, shards.num_elements);
  int64_t size = 0;
  for (int shard = 0; shard < shards.num_ranks; ++shard) {
    DP_ASSIGN_OR_RETURN(size, compressor->Encode(shards.Of(values, shard),
                                                 RandomKey(), message));
  }
  // Messages of the last shard stand for those of all ranks for this one's.
  const int mine = shards.num_ranks - 1;
  const absl::Span<float> mean = shards.Of(residual, mine);
  const auto received = message.first(static_cast<size_t>(size));
  for (int rank = 0; rank < shards.num_ranks; ++rank) {
    DP_RETURN_IF_ERROR(
        compressor->AccumulateMean(received, shards.num_ranks, mean));
  }
  compressor->AddResidual(mean, shards.Of(values, mine), shards.size(mine));
  DP_ASSIGN_OR_RETURN(size, compressor->Encode(mean, RandomKey(), message));
  for (int shard = 0; shard < shards.num_ranks; ++shard) {
    const absl::Span<float> out = shards.Of(values, shard);
    DP_RETURN_IF_ERROR(
        compressor->Decode(message.first(static_cast<size_t>(size)),
                           out.first(static_cast<size_t>(shards.size(mine)))));
  }
  return size;
}

}  // namespace

absl::StatusOr<SyncCost> ProbeSyncCost(const std::string& codec,
                                       int64_t num_elements, int num_ranks) {
  DP_ASSIGN_OR_RETURN(const auto compressor,
                      ShardCompressor::Create(codec, /*has_feedback=*/true));
  SyncCost cost;
  if (num_elements == 0 || num_ranks < 2) return cost;
  // Equal shards, so that one's message stands for another's.
  const int64_t per_rank =
      std::max<int64_t>(1, std::min(num_elements, kMostElements) / num_ranks);
  const Shards shards{8 * num_ranks * ((per_rank + 7) / 8), num_ranks};
  const std::vector<float> some = SomeValues(shards.num_elements);
  std::vector<uint8_t> message(
      static_cast<size_t>(compressor->MaxMessageBytes(shards.size(0))));
  double least = std::numeric_limits<double>::infinity();
  int64_t bytes = 0;
  for (int i = 0; i < kTries; ++i) {
    std::vector<float> values = some;
    std::vector<float> residual = some;
    const auto begin = std::chrono::steady_clock::now();
    DP_ASSIGN_OR_RETURN(
        bytes, RunOnce(compressor.get(), shards, absl::MakeSpan(values),
                       absl::MakeSpan(residual), absl::MakeSpan(message)));
    least = std::min(least, SecondsSince(begin));
  }
  const double elements = static_cast<double>(num_elements);
  cost.kernel_seconds =
      least * elements / static_cast<double>(shards.num_elements);
  cost.bits_per_element =
      8 * static_cast<double>(bytes) / static_cast<double>(shards.size(0));
  return cost;
}

absl::StatusOr<double> MeasureLatency(RankGroup* group, uint32_t step,
                                      uint32_t phase, Deadline deadline) {
  double least = std::numeric_limits<double>::infinity();
  // The first brings the ranks together.
  for (int i = 0; i <= kExchanges; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(
        group->AllGather(step, phase, {static_cast<double>(i)}, deadline)
            .status());
    if (i > 0) least = std::min(least, SecondsSince(begin));
  }
  return least;
}

}  // namespace deltapipe
