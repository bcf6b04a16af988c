// Globs over names, such as those of parameters: train.optimizer.groups.
#ifndef DELTAPIPE_BASE_GLOB_H_
#define DELTAPIPE_BASE_GLOB_H_

#include "absl/strings/string_view.h"

namespace deltapipe {

/// Whether `glob` matches the whole of `name`. '*' stands for any characters,
/// dots and none at all included; every other character for itself.
bool MatchesGlob(absl::string_view glob, absl::string_view name);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_GLOB_H_
