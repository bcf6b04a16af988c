// Quantities with their units spelled out: "100Mbit/s", "600kB", "10ms".
//
// Decimal prefixes are powers of 1000 (k M G T), binary ones of 1024 (Ki Mi Gi
// Ti). A bare "mbps" is refused, because it is read both as megabits and as
// megabytes per second; the error names both spellings. Thread-safe.
#ifndef DELTAPIPE_BASE_UNITS_H_
#define DELTAPIPE_BASE_UNITS_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// Bits per second from "100Mbit/s", "1.5Gbit/s", "12MB/s", "unlimited" (0).
/// INVALID_ARGUMENT with the accepted forms otherwise.
absl::StatusOr<double> ParseBandwidth(absl::string_view text);

/// Bytes from "600kB", "64MiB", "12B", "all" (INT64_MAX). A bare number is
/// refused unless it is 0.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

/// A duration from "10ms", "1.5s", "250us", "2min", "1h"; "0" is accepted.
absl::StatusOr<std::chrono::nanoseconds> ParseDuration(absl::string_view text);

/// A point of a run: after so many steps, after a share of its steps, or when
/// the run itself finds it.
struct StepChoice {
  bool is_auto = false;
  bool is_share = false;
  int64_t steps = 0;
  double share = 0;

  /// Of a run of `total` steps; INT64_MAX for auto.
  int64_t At(int64_t total) const;
};

/// From "200", "20%" (more than 0 and less than 100), "auto".
absl::StatusOr<StepChoice> ParseStepChoice(absl::string_view text);

/// "1.23 MB", "600 kB", "17 B": three significant digits.
std::string FormatBytes(double bytes);
/// "100 Mbit/s"; "unlimited" for 0.
std::string FormatBandwidth(double bits_per_second);
/// "250 us", "10 ms", "1.5 s", "3 min 20 s".
std::string FormatDuration(std::chrono::nanoseconds duration);
/// "1,234,567".
std::string FormatCount(int64_t count);
/// "1 worker", "1,024 workers".
std::string Plural(int64_t count, absl::string_view noun);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_UNITS_H_
