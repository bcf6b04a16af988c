#include "coordinator/schedule/saved_budget.h"

#include <algorithm>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

constexpr double kBytesPerMiB = 1 << 20;

/// The policy that decides how much is kept: in lean(policy) the inner one.
const CodecSpec& InnerPolicy(const CodecSpec& policy) {
  if (policy.name != "lean") return policy;
  for (const CodecArgument& argument : policy.arguments) {
    const bool is_first = argument.column == policy.arguments[0].column;
    if (argument.name == "policy" || (argument.name.empty() && is_first)) {
      return argument.value;
    }
  }
  return policy;
}

/// The spec's policy, or the inner one, if it has that name.
std::optional<CodecSpec> PolicyNamed(const v1::JobSpec& spec,
                                     absl::string_view name) {
  const absl::StatusOr<CodecSpec> parsed =
      ParseCodecSpec(spec.compression().saved_activations());
  if (!parsed.ok() || InnerPolicy(*parsed).name != name) return std::nullopt;
  return InnerPolicy(*parsed);
}

/// The parameter `name` of the policy, which is the one at `place`; `otherwise`
/// if it has no such number.
double NumberOf(const CodecSpec& policy, absl::string_view name, size_t place,
                double otherwise) {
  for (size_t i = 0; i < policy.arguments.size(); ++i) {
    const CodecArgument& argument = policy.arguments[i];
    const bool is_it =
        argument.name == name || (argument.name.empty() && i == place);
    double number = 0;
    if (is_it && absl::SimpleAtod(argument.value.name, &number)) return number;
  }
  return otherwise;
}

}  // namespace

SavedBudget SavedBudgetOf(const v1::JobSpec& spec) {
  constexpr double kMost = 1e12;  // in MiB
  SavedBudget budget;
  const std::optional<CodecSpec> policy = PolicyNamed(spec, "auto");
  if (!policy.has_value()) return budget;
  const auto bytes = [](double mib) {
    return mib >= 0 && mib < kMost ? static_cast<int64_t>(mib * kBytesPerMiB)
                                   : INT64_MAX;
  };
  budget.bytes = bytes(NumberOf(*policy, "budget", 0, kMost));
  budget.slowdown = NumberOf(*policy, "slowdown", 1, 0);
  budget.host_bytes = bytes(NumberOf(*policy, "offload", 2, 0));
  return budget;
}

int RecomputedGroupOf(const v1::JobSpec& spec) {
  const std::optional<CodecSpec> policy = PolicyNamed(spec, "recompute");
  if (!policy.has_value()) return 0;
  return static_cast<int>(
      std::clamp(NumberOf(*policy, "every", 0, 1), 1.0, 1e6));
}

}  // namespace deltapipe
