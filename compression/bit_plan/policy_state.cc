#include "compression/bit_plan/policy_state.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "compression/bit_plan/bit_ladder.h"

namespace deltapipe {
namespace {

constexpr absl::string_view kFirstLine = "deltapipe saved policy 1";

absl::Status BadLine(size_t index, absl::string_view line,
                     absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "state of a policy for saved activations: line ", index + 1,
      ": expected ", expected, ", got '", absl::CHexEscape(line), "'"));
}

// False if `rest` is no tensor.
bool ReadPlanned(absl::string_view rest, bool is_measured, PolicyState* state) {
  const std::vector<absl::string_view> fields = absl::StrSplit(rest, '\t');
  std::string name;
  PlannedTensor tensor;
  tensor.is_measured = is_measured;
  if (fields.size() != 3 || !absl::CUnescape(fields[0], &name) ||
      !absl::CUnescape(fields[1], &tensor.op) ||
      !absl::SimpleAtod(fields[2], &tensor.value) ||
      !std::isfinite(tensor.value)) {
    return false;
  }
  return state->planned.emplace(std::move(name), std::move(tensor)).second;
}

// A tensor that was read before.
bool ReadOffloaded(absl::string_view rest, PolicyState* state) {
  std::string name;
  if (!absl::CUnescape(rest, &name)) return false;
  const auto found = state->planned.find(name);
  if (found == state->planned.end() || found->second.is_offloaded) return false;
  found->second.is_offloaded = true;
  return true;
}

// An operator and a number from 1 to `most`.
bool ReadCount(absl::string_view rest, int most,
               std::map<std::string, int>* counts) {
  const std::vector<absl::string_view> fields = absl::StrSplit(rest, '\t');
  std::string op;
  int count = 0;
  if (fields.size() != 2 || !absl::CUnescape(fields[0], &op) ||
      !absl::SimpleAtoi(fields[1], &count) || count < 1 || count > most) {
    return false;
  }
  return counts->emplace(std::move(op), count).second;
}

}  // namespace

std::string PolicyStateText(absl::string_view policy,
                            const PolicyState& state) {
  std::string text = absl::StrCat(kFirstLine, "\npolicy=", policy, "\n");
  for (const auto& [op, times] : state.raised) {
    absl::StrAppend(&text, "raised=", absl::CEscape(op), "\t", times, "\n");
  }
  for (const auto& [op, bits] : state.least_bits) {
    absl::StrAppend(&text, "least=", absl::CEscape(op), "\t", bits, "\n");
  }
  for (const auto& [name, tensor] : state.planned) {
    absl::StrAppend(&text, tensor.is_measured ? "planned=" : "unmeasured=",
                    absl::CEscape(name), "\t", absl::CEscape(tensor.op), "\t",
                    absl::StrFormat("%.17g", tensor.value), "\n");
  }
  for (const auto& [name, tensor] : state.planned) {
    if (!tensor.is_offloaded) continue;
    absl::StrAppend(&text, "offloaded=", absl::CEscape(name), "\n");
  }
  return text;
}

absl::string_view PolicyOfState(absl::string_view state) {
  if (!absl::ConsumePrefix(&state, kFirstLine) ||
      !absl::ConsumePrefix(&state, "\npolicy=")) {
    return "";
  }
  return state.substr(0, state.find('\n'));
}

absl::StatusOr<PolicyState> ParsePolicyState(absl::string_view policy,
                                             absl::string_view text) {
  absl::ConsumeSuffix(&text, "\n");
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines[0] != kFirstLine) {
    return BadLine(0, lines[0], absl::StrCat("'", kFirstLine, "'"));
  }
  const std::string of_policy = absl::StrCat("policy=", policy);
  if (lines.size() < 2 || lines[1] != of_policy) {
    return BadLine(1, lines.size() < 2 ? "" : lines[1],
                   absl::StrCat("'", of_policy, "'"));
  }
  PolicyState state;
  for (size_t i = 2; i < lines.size(); ++i) {
    absl::string_view rest = lines[i];
    bool is_read = false;
    if (absl::ConsumePrefix(&rest, "raised=")) {
      is_read = ReadCount(rest, 100, &state.raised);
    } else if (absl::ConsumePrefix(&rest, "least=")) {
      is_read = ReadCount(rest, kExactBits, &state.least_bits);
    } else if (absl::ConsumePrefix(&rest, "planned=")) {
      is_read = ReadPlanned(rest, true, &state);
    } else if (absl::ConsumePrefix(&rest, "unmeasured=")) {
      is_read = ReadPlanned(rest, false, &state);
    } else if (absl::ConsumePrefix(&rest, "offloaded=")) {
      is_read = ReadOffloaded(rest, &state);
    }
    if (!is_read) {
      return BadLine(i, lines[i],
                     "an operator and how often it was raised or its least "
                     "bits, or a tensor, "
                     "its operator and a finite number, each once");
    }
  }
  return state;
}

}  // namespace deltapipe
