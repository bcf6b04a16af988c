// BucketedReduce: the mean of a vector in buckets (sync_buckets.h) through a
// codec that rounds each element by itself, such as cast(bf16). The result is
// that of TwoPhaseAllReduce over the whole vector, to the bit, however it is
// cut.
//
// Buckets follow each other; each pays the way to the other ranks twice. Worth
// it only while values are still being computed.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_BUCKETED_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_BUCKETED_REDUCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/two_phase_all_reduce.h"

namespace deltapipe {

class BucketedReduce {
 public:
  /// Whether elements of what `codec_text`, a canonical text, names are rounded
  /// each by itself.
  static bool IsFor(const std::string& codec_text) {
    return codec_text == "cast(bf16)";
  }

  /// `buckets` and `exchange` are borrowed. INVALID_ARGUMENT for a codec that
  /// it is not for.
  static absl::StatusOr<std::unique_ptr<BucketedReduce>> Create(
      const std::string& codec_text, absl::Span<const SyncBucket> buckets,
      GroupExchange* exchange);

  /// Replaces `values`, the whole vector, by the mean; on an error they hold
  /// anything. `await` returns when the first so many elements of the order are
  /// ready, or an error if they never will be. The transaction has begun.
  absl::Status Run(uint32_t step, absl::Span<float> values,
                   const std::function<absl::Status(int64_t)>& await);

 private:
  explicit BucketedReduce(absl::Span<const SyncBucket> buckets)
      : buckets_(buckets) {}

  const absl::Span<const SyncBucket> buckets_;
  /// By the number of elements of a bucket, of which there are two at most.
  std::map<int64_t, std::unique_ptr<TwoPhaseAllReduce>> reduces_;
  std::vector<float> copy_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_BUCKETED_REDUCE_H_
