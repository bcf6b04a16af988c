#include "coordinator/tuning/sync_meter.h"

#include <algorithm>
#include <vector>

namespace deltapipe {
namespace {

constexpr int64_t kTransactions = 10;

}  // namespace

void SyncMeter::Add(int rank, const v1::StepReport& report) {
  if (!report.has_sync()) return;
  const v1::SyncReport& sync = report.sync();
  Window& window = windows_[rank];
  window.step_seconds += report.step_seconds();
  const v1::SyncReport before = window.sync;
  window.sync = sync;
  window.sync.set_transactions(before.transactions() + sync.transactions());
  window.sync.set_sent_bytes(before.sent_bytes() + sync.sent_bytes());
  window.sync.set_wire_seconds(before.wire_seconds() + sync.wire_seconds());
  window.sync.set_early_seconds(before.early_seconds() + sync.early_seconds());
}

std::optional<SyncForecast> SyncMeter::Take(int num_stages, int num_replicas) {
  if (static_cast<int>(windows_.size()) < num_stages * num_replicas) {
    return std::nullopt;
  }
  for (const auto& [rank, window] : windows_) {
    if (window.sync.transactions() < kTransactions) return std::nullopt;
  }
  std::optional<SyncForecast> slowest;
  double step_seconds = 0;
  for (int stage = 0; stage < num_stages; ++stage) {
    SyncShape shape;
    std::vector<SyncObservation> observed;
    for (int replica = 0; replica < num_replicas; ++replica) {
      const auto& [window, seconds] = windows_[stage * num_replicas + replica];
      shape.num_elements = window.elements();
      shape.num_ranks = window.ranks();
      shape.compressed_bits = window.plan_bits();
      const double transactions = static_cast<double>(window.transactions());
      SyncObservation seen;
      seen.sent_bytes = static_cast<double>(window.sent_bytes()) / transactions;
      seen.wire_seconds = window.wire_seconds() / transactions;
      seen.latency_seconds = window.latency_seconds();
      seen.compressed_kernel_seconds = window.plan_kernel_seconds();
      seen.bf16_kernel_seconds = window.bf16_kernel_seconds();
      seen.early_seconds = window.early_seconds() / transactions;
      seen.num_buckets = std::max(window.buckets(), 1);
      step_seconds = std::max(step_seconds, seconds / transactions);
      observed.push_back(seen);
    }
    const auto forecast = ForecastSync(shape, observed);
    if (!forecast.has_value()) {
      slowest.reset();
      break;
    }
    if (!slowest.has_value()) slowest = forecast;
    SyncForecast both =
        forecast->compressed_seconds > slowest->compressed_seconds ? *forecast
                                                                   : *slowest;
    for (double SyncForecast::*seconds :
         {&SyncForecast::bf16_seconds, &SyncForecast::fp32_seconds,
          &SyncForecast::compressed_exposed_seconds,
          &SyncForecast::bf16_exposed_seconds}) {
      both.*seconds = std::max((*slowest).*seconds, (*forecast).*seconds);
    }
    slowest = both;
  }
  if (slowest.has_value()) slowest->step_seconds = step_seconds;
  windows_.clear();
  return slowest;
}

}  // namespace deltapipe
