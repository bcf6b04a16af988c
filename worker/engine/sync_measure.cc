#include "worker/engine/sync_measure.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/status_macros.h"
#include "worker/collective/sync_probe.h"

namespace deltapipe {
namespace {

/// For which the link carried `bytes`. Its busy time holds latencies and
/// waiting for answers, too, where it knows no rate.
double WireSeconds(int64_t bytes, double busy_seconds,
                   const ChannelCounters& link) {
  if (link.bytes_per_second <= 0) return busy_seconds;
  const double seconds = static_cast<double>(bytes) / link.bytes_per_second;
  return busy_seconds > 0 ? std::min(seconds, busy_seconds) : seconds;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SyncMeasure>> SyncMeasure::Create(
    const SyncMeasureOptions& options, RankGroup* scalars,
    const RankGroup* gradients, uint32_t step, uint32_t phase,
    Deadline deadline) {
  const int own_node = options.nodes[static_cast<size_t>(gradients->rank())];
  std::vector<const FrameChannel*> channels;
  for (int rank = 0; rank < gradients->size(); ++rank) {
    if (options.nodes[static_cast<size_t>(rank)] == own_node) continue;
    channels.push_back(gradients->channel(rank));
  }
  std::unique_ptr<SyncMeasure> measure(new SyncMeasure(std::move(channels)));
  const int num_nodes = static_cast<int>(
      std::set<int>(options.nodes.begin(), options.nodes.end()).size());
  // Each of a node's ranks carries a slice of the vector to other nodes.
  const int64_t num_elements =
      options.num_elements * num_nodes / gradients->size();
  v1::SyncReport& costs = measure->costs_;
  costs.set_ranks(num_nodes);
  costs.set_elements(num_elements);
  costs.set_buckets(options.num_buckets);
  DP_ASSIGN_OR_RETURN(
      const SyncCost plan,
      ProbeSyncCost(options.plan_codec, num_elements, num_nodes));
  costs.set_plan_bits(plan.bits_per_element);
  costs.set_plan_kernel_seconds(plan.kernel_seconds);
  DP_ASSIGN_OR_RETURN(const SyncCost bf16,
                      ProbeSyncCost("cast(bf16)", num_elements, num_nodes));
  costs.set_bf16_kernel_seconds(bf16.kernel_seconds);
  DP_ASSIGN_OR_RETURN(const double latency,
                      MeasureLatency(scalars, step, phase, deadline));
  costs.set_latency_seconds(latency);
  return measure;
}

void SyncMeasure::Note(bool is_compressed, double early_seconds) {
  int64_t bytes = 0;
  double seconds = 0;
  for (size_t i = 0; i < channels_.size(); ++i) {
    const ChannelCounters now = channels_[i]->channel_counters();
    const int64_t sent = now.bytes_sent - last_[i].bytes_sent;
    bytes += sent;
    seconds = std::max(
        seconds,
        WireSeconds(sent, now.busy_seconds - last_[i].busy_seconds, now));
    last_[i] = {now.bytes_sent, now.busy_seconds};
  }
  if (!is_compressed) return;
  report_.set_transactions(report_.transactions() + 1);
  report_.set_sent_bytes(report_.sent_bytes() + bytes);
  report_.set_wire_seconds(report_.wire_seconds() + seconds);
  report_.set_early_seconds(report_.early_seconds() + early_seconds);
}

v1::SyncReport SyncMeasure::Take() {
  v1::SyncReport taken = costs_;
  taken.MergeFrom(report_);
  report_.Clear();
  return taken;
}

}  // namespace deltapipe
