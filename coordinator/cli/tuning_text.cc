#include "coordinator/cli/tuning_text.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/tuning/tuning_paths.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {

std::string ChangeLines(const std::string& old_value,
                        const std::string& new_value) {
  const std::vector<std::string> from =
      absl::StrSplit(old_value, '\n', absl::SkipEmpty());
  const std::vector<std::string> to =
      absl::StrSplit(new_value, '\n', absl::SkipEmpty());
  std::string text;
  for (size_t i = 0; i < from.size() && i < to.size(); ++i) {
    const std::pair<std::string, std::string> was =
        absl::StrSplit(from[i], absl::MaxSplits('=', 1));
    const std::pair<std::string, std::string> is =
        absl::StrSplit(to[i], absl::MaxSplits('=', 1));
    absl::StrAppend(&text, is.first, ": ", was.second, " -> ", is.second, "\n");
  }
  return text;
}

std::string TuningText(const v1::Tuning& tuning) {
  std::string text;
  for (const v1::BoundaryTuning& boundary : tuning.boundaries()) {
    const std::string path =
        absl::StrCat("boundaries[", boundary.boundary(), "].");
    absl::StrAppend(&text, path, "activations=", boundary.activations(), "\n",
                    path,
                    "activation_gradients=", boundary.activation_gradients(),
                    "\n", path, "rate_limit=", boundary.rate_limit(), "\n");
  }
  absl::StrAppend(&text, "gradients=", tuning.gradients(),
                  "\nsaved_activations=", tuning.saved_activations(),
                  "\nstraggler_policy=", tuning.straggler_policy(),
                  "\ninject=", tuning.inject(),
                  "\nbudget=", BudgetText(tuning.budget_bytes_per_step()),
                  "\ntuner.mode=", TunerModeWord(tuning.tuner().mode()),
                  "\ntuner.error_budget=", tuning.tuner().error_budget(),
                  "\nrevision ", tuning.revision(), ", from step ",
                  tuning.effective_step() + 1, " on; etag ", tuning.etag(),
                  "\n");
  return text;
}

std::string UpdateText(const v1::Tuning& before, const v1::Tuning& after,
                       bool is_dry_run) {
  const TuningDifference difference = DescribeChange(before, after);
  if (difference.new_value.empty()) {
    return absl::StrCat("nothing changes: revision ", after.revision(),
                        " is that already\n");
  }
  std::string text = ChangeLines(difference.old_value, difference.new_value);
  if (!is_dry_run) {
    absl::StrAppend(&text, "revision ", after.revision(), " holds from step ",
                    after.effective_step() + 1, " on\n");
  }
  return text;
}

}  // namespace deltapipe
