#include "coordinator/tuning/compression_verdict.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/units.h"

namespace deltapipe {
namespace {

/// Doubling goes no further.
constexpr int64_t kMostChecks = int64_t{1} << 40;

bool SaysSomething(const SyncObservation& observation) {
  for (const double value :
       {observation.sent_bytes, observation.wire_seconds,
        observation.latency_seconds, observation.compressed_kernel_seconds,
        observation.bf16_kernel_seconds}) {
    if (!std::isfinite(value) || value < 0) return false;
  }
  return observation.sent_bytes > 0 && observation.wire_seconds > 0;
}

std::string Text(double seconds) {
  return FormatDuration(std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(seconds)));
}

}  // namespace

std::optional<SyncForecast> ForecastSync(
    const SyncShape& shape, absl::Span<const SyncObservation> by_rank) {
  if (shape.num_ranks < 2 || shape.num_elements < 1 || by_rank.empty()) {
    return std::nullopt;
  }
  const double n = shape.num_ranks;
  const double elements =
      2 * (n - 1) / n * static_cast<double>(shape.num_elements);
  SyncForecast forecast;
  for (const SyncObservation& rank : by_rank) {
    if (!SaysSomething(rank)) return std::nullopt;
    const double rate = rank.sent_bytes / rank.wire_seconds;
    const auto wire = [&](double bits) { return elements * bits / 8 / rate; };
    const double messages = 2 * rank.latency_seconds;
    const double compressed =
        messages + wire(shape.compressed_bits) + rank.compressed_kernel_seconds;
    if (compressed >= forecast.compressed_seconds) {
      forecast.compressed_seconds = compressed;
      forecast.bytes_per_second = rate;
      forecast.latency_seconds = rank.latency_seconds;
      forecast.compressed_kernel_seconds = rank.compressed_kernel_seconds;
    }
    forecast.bf16_seconds = std::max(
        forecast.bf16_seconds, messages + wire(16) + rank.bf16_kernel_seconds);
    forecast.fp32_seconds =
        std::max(forecast.fp32_seconds, (n - 1) * messages + wire(32));
  }
  return forecast;
}

absl::StatusOr<CompressionVerdict> CompressionVerdict::Create(
    const CompressionVerdictOptions& options) {
  if (!(options.margin >= 0 && options.margin <= 10) ||
      options.num_checks < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "compression verdict: expected a margin from 0 to 10 and 1 check or "
        "more, got ",
        options.margin, " and ", options.num_checks));
  }
  return CompressionVerdict(options);
}

std::string CompressionVerdict::Update(
    const std::optional<SyncForecast>& forecast) {
  if (!forecast.has_value()) return "";
  const double present =
      compresses_ ? forecast->compressed_seconds : forecast->bf16_seconds;
  const double other =
      compresses_ ? forecast->bf16_seconds : forecast->compressed_seconds;
  num_in_a_row_ = other * (1 + margin_) < present ? num_in_a_row_ + 1 : 0;
  if (num_in_a_row_ < num_needed_) return "";
  num_in_a_row_ = 0;
  num_needed_ = std::min(2 * num_needed_, kMostChecks);
  compresses_ = !compresses_;
  return absl::StrCat(
      compresses_ ? "compression helps again: " : "compression does not help: ",
      ForecastText(*forecast));
}

std::string ForecastText(const SyncForecast& forecast) {
  return absl::StrCat(
      "gradients take ", Text(forecast.compressed_seconds), " a step, ",
      Text(forecast.bf16_seconds), " in bf16 and ", Text(forecast.fp32_seconds),
      " in fp32, at ", FormatBandwidth(8 * forecast.bytes_per_second), " with ",
      Text(forecast.latency_seconds), " a message and ",
      Text(forecast.compressed_kernel_seconds), " of encoding and decoding");
}

}  // namespace deltapipe
