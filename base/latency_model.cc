#include "base/latency_model.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace deltapipe {
namespace {

constexpr int kLargestZ = 999;
// Tells these random numbers from those of codecs, dropout and data.
constexpr uint32_t kLatencyTensorId = 0x7374726Cu;

absl::Status BadTerm(absl::string_view term, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("injected latency '", term, "': ", why,
                   "; expected terms such as lognormal:1.0, "
                   "slow:rank=3,x=1.5 or input:rank=0,by=20ms, joined by "
                   "';'"));
}

bool ParseFinite(absl::string_view text, double* value) {
  return absl::SimpleAtod(text, value) && std::isfinite(*value);
}

/// rank=R and a second argument, once each, in any order.
absl::Status ReadArguments(absl::string_view term, absl::string_view arguments,
                           absl::string_view second, int* rank,
                           absl::string_view* value) {
  bool has_rank = false, has_value = false;
  for (const absl::string_view argument : absl::StrSplit(arguments, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(argument, absl::MaxSplits('=', 1));
    if (parts.first == "rank" && !has_rank) {
      has_rank = absl::SimpleAtoi(parts.second, rank) && *rank >= 0;
      if (!has_rank) return BadTerm(term, "rank is not a replica's number");
    } else if (parts.first == second && !has_value) {
      has_value = true;
      *value = parts.second;
    } else {
      return BadTerm(
          term, absl::StrCat("unknown or repeated argument '", argument, "'"));
    }
  }
  if (has_rank && has_value) return absl::OkStatus();
  return BadTerm(term, absl::StrCat("it needs rank and ", second));
}

class LognormalTable {
 public:
  LognormalTable() {
    double total = 0, weighted = 0;
    for (int z = 1; z <= kLargestZ; ++z) {
      const double distance = std::log(static_cast<double>(z)) - 4;
      total += std::exp(-distance * distance / 2) / z;
      weighted += std::exp(-distance * distance / 2);
      cumulative_[z - 1] = total;
    }
    for (double& share : cumulative_) share /= total;
    mean_ = weighted / total;
  }

  double Inverse(double uniform) const {
    const auto found =
        std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, uniform);
    return static_cast<double>(found - cumulative_.begin() + 1) / mean_;
  }

 private:
  std::array<double, kLargestZ> cumulative_;  // of 1, 2, ...
  double mean_ = 1;
};

}  // namespace

double DiscreteLognormal(double uniform) {
  static const LognormalTable* const table = new LognormalTable;
  return table->Inverse(uniform);
}

absl::StatusOr<LatencyModel> LatencyModel::Parse(absl::string_view text,
                                                 uint64_t seed) {
  LatencyModel model;
  model.seed_ = seed;
  text = absl::StripAsciiWhitespace(text);
  if (text.empty() || text == "none") return model;
  for (const absl::string_view term : absl::StrSplit(text, ';')) {
    DP_RETURN_IF_ERROR(model.AddTerm(absl::StripAsciiWhitespace(term)));
  }
  return model;
}

absl::Status LatencyModel::AddTerm(absl::string_view term) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(term, absl::MaxSplits(':', 1));
  if (parts.first == "slow") return AddSlow(term, parts.second);
  if (parts.first == "input") return AddInput(term, parts.second);
  if (parts.first != "lognormal") {
    return BadTerm(term, absl::StrCat("unknown kind '", parts.first, "'"));
  }
  double factor = 0;
  if (!ParseFinite(parts.second, &factor) || factor < 0) {
    return BadTerm(term, "its factor is not a number >= 0");
  }
  lognormal_.push_back(factor);
  return absl::OkStatus();
}

absl::Status LatencyModel::AddSlow(absl::string_view term,
                                   absl::string_view arguments) {
  Slow slow;
  absl::string_view times;
  DP_RETURN_IF_ERROR(ReadArguments(term, arguments, "x", &slow.rank, &times));
  if (!ParseFinite(times, &slow.times) || slow.times < 1) {
    return BadTerm(term, "x is not a number >= 1");
  }
  slow_.push_back(slow);
  return absl::OkStatus();
}

absl::Status LatencyModel::AddInput(absl::string_view term,
                                    absl::string_view arguments) {
  Input input;
  absl::string_view time;
  DP_RETURN_IF_ERROR(ReadArguments(term, arguments, "by", &input.rank, &time));
  const auto by = ParseDuration(time);
  if (!by.ok()) {
    return BadTerm(term, absl::StrCat("by: ", by.status().message()));
  }
  input.seconds = std::chrono::duration<double>(*by).count();
  input_.push_back(input);
  return absl::OkStatus();
}

absl::Status LatencyModel::CheckReplicas(int num_replicas) const {
  const auto check = [num_replicas](int rank) {
    if (rank < num_replicas) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("injected latency names replica ", rank, " of ",
                     num_replicas, "; replicas count from 0"));
  };
  for (const Slow& slow : slow_) DP_RETURN_IF_ERROR(check(slow.rank));
  for (const Input& input : input_) DP_RETURN_IF_ERROR(check(input.rank));
  return absl::OkStatus();
}

double LatencyModel::InputSeconds(int replica) const {
  double seconds = 0;
  for (const Input& input : input_) {
    if (input.rank == replica) seconds += input.seconds;
  }
  return seconds;
}

double LatencyModel::ExtraSeconds(int replica, int64_t step, int microbatch,
                                  double base_seconds, int part) const {
  double extra = 0;
  for (const Slow& slow : slow_) {
    if (slow.rank == replica) extra += (slow.times - 1) * base_seconds;
  }
  for (size_t term = 0; term < lognormal_.size(); ++term) {
    RandomKey key;
    key.seed = seed_;
    key.tensor_id = kLatencyTensorId + static_cast<uint32_t>(term);
    key.step = static_cast<uint32_t>(step);
    key.slot = static_cast<uint32_t>(replica);
    key.direction = static_cast<uint32_t>(part);
    const PhiloxBlock words = Philox4x32(
        key.PhiloxCounter(static_cast<uint32_t>(microbatch)), key.PhiloxKey());
    // 53 random bits.
    const uint64_t bits = (uint64_t{words[0]} << 21) | (words[1] >> 11);
    extra += 0.5 * lognormal_[term] * base_seconds *
             DiscreteLognormal(static_cast<double>(bits) * 0x1.0p-53);
  }
  return extra;
}

}  // namespace deltapipe
