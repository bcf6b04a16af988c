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
  v1::SyncReport& window = windows_[rank];
  const int64_t transactions = window.transactions() + sync.transactions();
  const int64_t sent_bytes = window.sent_bytes() + sync.sent_bytes();
  const double wire_seconds = window.wire_seconds() + sync.wire_seconds();
  window = sync;
  window.set_transactions(transactions);
  window.set_sent_bytes(sent_bytes);
  window.set_wire_seconds(wire_seconds);
}

std::optional<SyncForecast> SyncMeter::Take(int num_stages, int num_replicas) {
  if (static_cast<int>(windows_.size()) < num_stages * num_replicas) {
    return std::nullopt;
  }
  for (const auto& [rank, window] : windows_) {
    if (window.transactions() < kTransactions) return std::nullopt;
  }
  std::optional<SyncForecast> slowest;
  for (int stage = 0; stage < num_stages; ++stage) {
    SyncShape shape;
    std::vector<SyncObservation> observed;
    for (int replica = 0; replica < num_replicas; ++replica) {
      const v1::SyncReport& window = windows_[stage * num_replicas + replica];
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
      observed.push_back(seen);
    }
    const auto forecast = ForecastSync(shape, observed);
    if (!forecast.has_value()) {
      slowest.reset();
      break;
    }
    if (!slowest.has_value()) slowest = forecast;
    const double bf16 = std::max(slowest->bf16_seconds, forecast->bf16_seconds);
    const double fp32 = std::max(slowest->fp32_seconds, forecast->fp32_seconds);
    if (forecast->compressed_seconds > slowest->compressed_seconds) {
      slowest = forecast;
    }
    slowest->bf16_seconds = bf16;
    slowest->fp32_seconds = fp32;
  }
  windows_.clear();
  return slowest;
}

}  // namespace deltapipe
