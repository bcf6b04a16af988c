// The optimizer's fields by their names in a job spec (train.optimizer), for
// tools that take them as text.
//
//   OptimizerSettings settings;
//   DP_RETURN_IF_ERROR(SetOptimizerField("kind", "onebit_lamb", &settings));
//   DP_RETURN_IF_ERROR(
//       SetOptimizerField("compress_after_step", "16", &settings));
//   DP_ASSIGN_OR_RETURN(const OptimizerOptions options,
//                       settings.OptionsOf(total_steps));
#ifndef DELTAPIPE_WORKER_OPTIM_OPTIMIZER_FIELDS_H_
#define DELTAPIPE_WORKER_OPTIM_OPTIMIZER_FIELDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/optim/learning_rate.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_groups.h"

namespace deltapipe {

/// As a job spec's train.optimizer, with the defaults of
/// proto/deltapipe/v1/job.proto.
struct OptimizerSettings {
  OptimizerSettings();

  /// But for compress_after_step.
  OptimizerOptions options;
  /// But for final_rate.
  LearningRateOptions learning_rate;
  /// The last rate as a share of learning_rate.
  double lr_final = 0.1;
  /// A number of steps, a share of them, or "auto".
  std::string compress_after_step = "20%";
  std::vector<ParameterGroup> groups;

  /// Of a run of `total_steps`. INVALID_ARGUMENT for a compress_after_step that
  /// is no such text or, if the kind compresses, lies beyond the run.
  absl::StatusOr<OptimizerOptions> OptionsOf(int64_t total_steps) const;
  LearningRateOptions RateOf() const;
};

/// Sets one field; "groups[0].match" and the like are of a group, the first
/// number beyond the last adds one. INVALID_ARGUMENT, with the nearest name for
/// an unknown one, or with what was expected for a bad text. What a number may
/// be in relation to others, Optimizer::Create checks.
absl::Status SetOptimizerField(absl::string_view name, absl::string_view text,
                               OptimizerSettings* settings);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_OPTIMIZER_FIELDS_H_
