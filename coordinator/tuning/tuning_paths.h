// What people write to change a job's knobs, "PATH=VALUE ...", as a request.
//
//   activations=int(4)                        all boundaries
//   boundaries[1].activation_gradients=int(8) one; [0-2] and [*] are several
//   rate_limit=100Mbit/s   gradients=sign   saved_activations=none
//   straggler_policy=none  budget=12MB/step  budget=off
//   inject=slow:rank=3,x=1.5
//   tuner.mode=apply       tuner.error_budget=0.1
//
// The spellings of a job spec do too: compression.activations=int(4),
// stragglers.policy=none. Codecs, rates and policies are checked by the
// coordinator. Used by the command line; pure, thread-safe.
#ifndef DELTAPIPE_COORDINATOR_TUNING_TUNING_PATHS_H_
#define DELTAPIPE_COORDINATOR_TUNING_TUNING_PATHS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// A request that makes the changes to `current`, in their order, with a mask
/// and the etag of `current`. INVALID_ARGUMENT has every mistake, one a line,
/// with its column from 1:
///   'boundries[1].activations=int(4)': column 1: unknown path ...
absl::StatusOr<v1::UpdateTuningRequest> ParseTuningEdits(
    const std::vector<std::string>& edits, const v1::Tuning& current);

/// Bytes per step from "12MB/step", "600kB", "off" (0). INVALID_ARGUMENT with
/// the accepted forms.
absl::StatusOr<int64_t> ParseBudget(absl::string_view text);

/// "12 MB/step" or "off".
std::string BudgetText(int64_t bytes_per_step);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_TUNING_PATHS_H_
