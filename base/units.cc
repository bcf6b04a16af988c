#include "base/units.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr char kBandwidthForms[] =
    "expected a number and bit/s or B/s with a prefix k, M, G or T, such as "
    "100Mbit/s, 1.5Gbit/s or 12MB/s, or 'unlimited'";
constexpr char kBytesForms[] =
    "expected a number and B with a prefix k, M, G, T, Ki, Mi, Gi or Ti, such "
    "as 600kB, 64MiB or 12B, or 'all'";
constexpr char kDurationForms[] =
    "expected a number and ns, us, ms, s, min or h, such as 10ms, 1.5s or 2min";

absl::Status Refusal(absl::string_view what, absl::string_view text,
                     absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(what, " '", text, "': ", why));
}

struct Quantity {
  double value;
  absl::string_view number;  // the text of value
  absl::string_view unit;
};

/// Splits "1.5 Gbit/s" in number and unit. False unless it starts with a plain
/// decimal number; signs, NaN and infinities are none.
bool SplitQuantity(absl::string_view text, Quantity* quantity) {
  size_t end = 0;
  const auto skip_digits = [&] {
    const size_t begin = end;
    while (end < text.size() && absl::ascii_isdigit(text[end])) ++end;
    return end > begin;
  };
  if (!skip_digits()) return false;
  if (end < text.size() && text[end] == '.') {
    ++end;
    if (!skip_digits()) return false;
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    ++end;
    if (end < text.size() && (text[end] == '-' || text[end] == '+')) ++end;
    if (!skip_digits()) return false;
  }
  quantity->number = text.substr(0, end);
  quantity->unit = text.substr(end);
  absl::ConsumePrefix(&quantity->unit, " ");
  return absl::SimpleAtod(quantity->number, &quantity->value) &&
         std::isfinite(quantity->value);
}

struct Prefix {
  absl::string_view text;
  int64_t factor;
};

constexpr std::array<Prefix, 9> kPrefixes = {{
    {"", 1},
    {"k", 1000},
    {"M", 1000000},
    {"G", 1000000000},
    {"T", 1000000000000},
    {"Ki", int64_t{1} << 10},
    {"Mi", int64_t{1} << 20},
    {"Gi", int64_t{1} << 30},
    {"Ti", int64_t{1} << 40},
}};

/// The factor of `prefix`, or 0.
int64_t FactorOf(absl::string_view prefix) {
  for (const Prefix& known : kPrefixes) {
    if (known.text == prefix) return known.factor;
  }
  return 0;
}

/// Three significant digits, without an exponent and without trailing zeros.
/// `value` is below 1000 after rounding.
std::string ThreeDigits(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", value);
  return text;
}

/// Scales to a decimal prefix; rounding never leaves "1e+03".
std::string FormatScaled(double value, absl::string_view unit) {
  constexpr std::array<absl::string_view, 7> kNames = {"",  "k", "M", "G",
                                                       "T", "P", "E"};
  const absl::string_view sign = value < 0 ? "-" : "";
  double magnitude = std::fabs(value);
  size_t index = 0;
  while (magnitude >= 999.5 && index + 1 < kNames.size()) {
    magnitude /= 1000;
    ++index;
  }
  return absl::StrCat(sign, ThreeDigits(magnitude), " ", kNames[index], unit);
}

/// Whether `unit` is a rate in bps or b/s, in any spelling: it is read both as
/// bits and as bytes per second. `prefix` receives the prefix letter.
bool IsAmbiguousRate(absl::string_view unit, std::string* prefix) {
  const std::string lower = absl::AsciiStrToLower(unit);
  for (const absl::string_view ending : {"bps", "b/s"}) {
    if (!absl::EndsWith(lower, ending)) continue;
    *prefix = lower.substr(0, lower.size() - ending.size());
    const bool is_known = *prefix == "" || *prefix == "k" || *prefix == "m" ||
                          *prefix == "g" || *prefix == "t";
    if (*prefix != "k") *prefix = absl::AsciiStrToUpper(*prefix);
    return is_known;
  }
  return false;
}

}  // namespace

absl::StatusOr<double> ParseBandwidth(absl::string_view text) {
  constexpr char kWhat[] = "bandwidth";
  if (text == "unlimited") return 0.0;
  Quantity quantity;
  if (!SplitQuantity(text, &quantity)) {
    return Refusal(kWhat, text, kBandwidthForms);
  }
  absl::string_view prefix = quantity.unit;
  double bits_per_unit = 0;
  if (absl::ConsumeSuffix(&prefix, "bit/s")) {
    bits_per_unit = 1;
  } else if (absl::ConsumeSuffix(&prefix, "B/s")) {
    bits_per_unit = 8;
  }
  bits_per_unit *= static_cast<double>(FactorOf(prefix));
  if (bits_per_unit == 0) {
    std::string letter;
    if (IsAmbiguousRate(quantity.unit, &letter)) {
      return Refusal(
          kWhat, text,
          absl::StrCat("'", quantity.unit, "' is read in two ways: write ",
                       quantity.number, letter, "bit/s for bits per second or ",
                       quantity.number, letter, "B/s for bytes per second"));
    }
    return Refusal(kWhat, text, kBandwidthForms);
  }
  const double bits_per_second = quantity.value * bits_per_unit;
  if (!(bits_per_second > 0) || !std::isfinite(bits_per_second)) {
    return Refusal(kWhat, text,
                   "expected a positive rate; 'unlimited' shapes nothing");
  }
  return bits_per_second;
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  constexpr char kWhat[] = "size";
  if (text == "all") return std::numeric_limits<int64_t>::max();
  if (text == "0") return 0;
  Quantity quantity;
  if (!SplitQuantity(text, &quantity)) return Refusal(kWhat, text, kBytesForms);
  absl::string_view prefix = quantity.unit;
  if (quantity.unit == "KB") {
    return Refusal(kWhat, text,
                   absl::StrCat("'KB' is read in two ways: write ",
                                quantity.number, "kB for 1,000 bytes or ",
                                quantity.number, "KiB for 1,024"));
  }
  const int64_t factor =
      absl::ConsumeSuffix(&prefix, "B") ? FactorOf(prefix) : 0;
  if (factor == 0) return Refusal(kWhat, text, kBytesForms);
  int64_t count;
  if (absl::SimpleAtoi(quantity.number, &count)) {
    int64_t bytes;
    if (__builtin_mul_overflow(count, factor, &bytes)) {
      return Refusal(kWhat, text, "expected less than 2^63 bytes");
    }
    return bytes;
  }
  const double bytes = quantity.value * static_cast<double>(factor);
  if (bytes >= 0x1.0p63) {
    return Refusal(kWhat, text, "expected less than 2^63 bytes");
  }
  // A decimal fraction of a prefix, such as 0.3kB, is a whole number of bytes
  // up to the rounding of the product.
  const double whole = std::nearbyint(bytes);
  if (std::fabs(bytes - whole) > 1e-9 * std::fmax(1.0, whole)) {
    return Refusal(kWhat, text, "expected a whole number of bytes");
  }
  return static_cast<int64_t>(whole);
}

absl::StatusOr<std::chrono::nanoseconds> ParseDuration(absl::string_view text) {
  constexpr char kWhat[] = "duration";
  if (text == "0") return std::chrono::nanoseconds(0);
  Quantity quantity;
  if (!SplitQuantity(text, &quantity)) {
    return Refusal(kWhat, text, kDurationForms);
  }
  struct Unit {
    absl::string_view text;
    double nanos;
  };
  constexpr std::array<Unit, 6> kUnits = {{{"ns", 1},
                                           {"us", 1e3},
                                           {"ms", 1e6},
                                           {"s", 1e9},
                                           {"min", 60e9},
                                           {"h", 3600e9}}};
  for (const Unit& unit : kUnits) {
    if (unit.text != quantity.unit) continue;
    const double nanos = quantity.value * unit.nanos;
    if (nanos >= 0x1.0p63) {
      return Refusal(kWhat, text, "expected less than 292 years");
    }
    return std::chrono::nanoseconds(std::llround(nanos));
  }
  if (quantity.unit == "m") {
    return Refusal(kWhat, text,
                   absl::StrCat("'m' is read in two ways: write ",
                                quantity.number, "min for minutes or ",
                                quantity.number, "ms for milliseconds"));
  }
  return Refusal(kWhat, text, kDurationForms);
}

int64_t StepChoice::At(int64_t total) const {
  if (is_auto) return std::numeric_limits<int64_t>::max();
  if (!is_share) return steps;
  return std::max<int64_t>(1, std::llround(share * static_cast<double>(total)));
}

absl::StatusOr<StepChoice> ParseStepChoice(absl::string_view text) {
  const auto refusal = [&] {
    return Refusal("steps", text,
                   "expected a number of steps such as 200, a share of the "
                   "run's steps such as 20% (more than 0, less than 100), or "
                   "'auto'");
  };
  StepChoice choice;
  if (text == "auto") {
    choice.is_auto = true;
    return choice;
  }
  Quantity quantity;
  if (!SplitQuantity(text, &quantity)) return refusal();
  if (quantity.unit == "%") {
    choice.is_share = true;
    choice.share = quantity.value / 100;
    if (choice.share <= 0 || choice.share >= 1) return refusal();
    return choice;
  }
  if (!quantity.unit.empty() || quantity.value != std::floor(quantity.value) ||
      quantity.value > 1e15) {
    return refusal();
  }
  choice.steps = static_cast<int64_t>(quantity.value);
  return choice;
}

std::string FormatBytes(double bytes) { return FormatScaled(bytes, "B"); }

std::string FormatBandwidth(double bits_per_second) {
  return bits_per_second == 0 ? "unlimited"
                              : FormatScaled(bits_per_second, "bit/s");
}

std::string FormatDuration(std::chrono::nanoseconds duration) {
  const double nanos = static_cast<double>(duration.count());
  if (nanos < 0) {
    return absl::StrCat("-", FormatDuration(std::chrono::nanoseconds(
                                 std::llround(std::fmin(-nanos, 0x1.0p62)))));
  }
  if (nanos < 999.5) return absl::StrCat(ThreeDigits(nanos), " ns");
  if (nanos < 999.5e3) return absl::StrCat(ThreeDigits(nanos / 1e3), " us");
  if (nanos < 999.5e6) return absl::StrCat(ThreeDigits(nanos / 1e6), " ms");
  if (nanos < 59.95e9) return absl::StrCat(ThreeDigits(nanos / 1e9), " s");
  const int64_t seconds = std::llround(nanos / 1e9);
  const int64_t minutes = seconds / 60;
  if (minutes < 60) {
    return seconds % 60 == 0
               ? absl::StrCat(minutes, " min")
               : absl::StrCat(minutes, " min ", seconds % 60, " s");
  }
  return minutes % 60 == 0
             ? absl::StrCat(minutes / 60, " h")
             : absl::StrCat(minutes / 60, " h ", minutes % 60, " min");
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const size_t first = digits[0] == '-' ? 1 : 0;
  for (size_t end = digits.size(); end > first + 3;) {
    end -= 3;
    digits.insert(end, 1, ',');
  }
  return digits;
}

std::string Plural(int64_t count, absl::string_view noun) {
  return absl::StrCat(FormatCount(count), " ", noun, count == 1 ? "" : "s");
}

}  // namespace deltapipe
