// What is said about a job's knobs and their changes.
#ifndef DELTAPIPE_COORDINATOR_CLI_TUNING_TEXT_H_
#define DELTAPIPE_COORDINATOR_CLI_TUNING_TEXT_H_

#include <string>

#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// "boundaries[0].activations: int(4) -> int(2)" a line, from the old and new
/// values of a TuningChange.
std::string ChangeLines(const std::string& old_value,
                        const std::string& new_value);

/// All knobs, one a line, and the revision.
std::string TuningText(const v1::Tuning& tuning);

/// What an update has done: its changes and the step they hold from, or that
/// there are none. `is_dry_run`: would do.
std::string UpdateText(const v1::Tuning& before, const v1::Tuning& after,
                       bool is_dry_run);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_TUNING_TEXT_H_
