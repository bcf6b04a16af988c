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
/// A share of a step that is not worth one bit's rounding.
constexpr double kNoGain = 0.01;

bool SaysSomething(const SyncObservation& observation) {
  for (const double value :
       {observation.sent_bytes, observation.wire_seconds,
        observation.latency_seconds, observation.compressed_kernel_seconds,
        observation.bf16_kernel_seconds, observation.early_seconds}) {
    if (!std::isfinite(value) || value < 0) return false;
  }
  return observation.sent_bytes > 0 && observation.wire_seconds > 0 &&
         observation.num_buckets > 0;
}

/// The step waits for what the backward pass does not hide of a transaction.
/// Its last bucket begins when that ends.
double Exposed(double seconds, const SyncObservation& rank) {
  return std::max(seconds - rank.early_seconds, seconds / rank.num_buckets);
}

/// How much longer a step is in bf16, as a share of the step, which takes
/// `step_seconds` in the one form of the two; of what synchronising takes
/// alone where the step is not known.
double LongerInBf16(const SyncForecast& forecast, bool compresses) {
  const double gain =
      forecast.bf16_exposed_seconds - forecast.compressed_exposed_seconds;
  double compressed = forecast.compressed_exposed_seconds;
  if (forecast.step_seconds > 0) {
    // Forecasts may be longer than the step that was measured.
    compressed = std::max(forecast.step_seconds - (compresses ? 0 : gain),
                          forecast.compressed_exposed_seconds);
  }
  return gain / std::max(compressed, 1e-9);
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
      forecast.early_seconds = rank.early_seconds;
      forecast.bytes_per_second = rate;
      forecast.latency_seconds = rank.latency_seconds;
      forecast.compressed_kernel_seconds = rank.compressed_kernel_seconds;
    }
    const double bf16 = messages + wire(16) + rank.bf16_kernel_seconds;
    forecast.bf16_seconds = std::max(forecast.bf16_seconds, bf16);
    forecast.compressed_exposed_seconds = std::max(
        forecast.compressed_exposed_seconds, Exposed(compressed, rank));
    forecast.bf16_exposed_seconds =
        std::max(forecast.bf16_exposed_seconds, Exposed(bf16, rank));
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

bool CompressionVerdict::Helps(const SyncForecast& forecast) {
  return LongerInBf16(forecast, /*compresses=*/true) > kNoGain;
}

std::string CompressionVerdict::Update(
    const std::optional<SyncForecast>& forecast) {
  if (!forecast.has_value()) return "";
  const double longer = LongerInBf16(*forecast, compresses_);
  const bool must_change = compresses_ ? longer <= kNoGain : longer > margin_;
  num_in_a_row_ = must_change ? num_in_a_row_ + 1 : 0;
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
      " in fp32, ",
      forecast.early_seconds > 0
          ? absl::StrCat("of which the backward pass hides up to ",
                         Text(forecast.early_seconds), ", ")
          : "",
      "at ", FormatBandwidth(8 * forecast.bytes_per_second), " with ",
      Text(forecast.latency_seconds), " a message and ",
      Text(forecast.compressed_kernel_seconds), " of encoding and decoding");
}

}  // namespace deltapipe
