// ArmFigures: what one arm of `deltapipe compare` measured, from the steps it
// made.
//
// Pure; used by one thread.
#ifndef DELTAPIPE_COORDINATOR_CLI_ARM_FIGURES_H_
#define DELTAPIPE_COORDINATOR_CLI_ARM_FIGURES_H_

#include <string>
#include <vector>

#include "coordinator/cli/json_line.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

struct ArmFigures {
  std::string arm;
  /// Steps that the figures are of.
  int64_t steps = 0;
  double seconds_per_step = 0;  // median
  double tokens_per_second = 0;
  double activation_bytes_per_step = 0;
  double gradient_bytes_per_step = 0;
  double loss = 0;  // mean of the last 20
};

/// The figures of `steps`, in order, of a job with `tokens_per_step`. The first
/// two steps of the job, which fill caches, count for nothing but the loss.
ArmFigures MeasureArm(const std::string& arm,
                      const std::vector<v1::StepSummary>& steps,
                      double tokens_per_step);

/// The steps whose gradients travelled compressed, or those before. Of the
/// compressed ones the later half, where deltas have something to refer to.
std::vector<v1::StepSummary> StepsOfPhase(
    const std::vector<v1::StepSummary>& steps, bool compressed);

/// A table with a row per arm; the speed-up is over the first.
std::string ArmTable(const std::vector<ArmFigures>& arms);
Json ArmJson(const ArmFigures& figures);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_ARM_FIGURES_H_
