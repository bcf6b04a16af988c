// Parameter groups: parameters, named by globs, that learn at another rate or
// have another weight decay than the rest (train.optimizer.groups).
//
//   const std::vector<GroupUse> use = AssignParameterGroups(groups, &layout);
//   DP_RETURN_IF_ERROR(CheckGroupsAreUsed(groups, use, layout));
//   auto optimizer = Optimizer::Create(options, layout);
//
// A layout may hold one stage of a model: what its groups are used for is known
// once the stages have exchanged `use`.
#ifndef DELTAPIPE_WORKER_OPTIM_PARAMETER_GROUPS_H_
#define DELTAPIPE_WORKER_OPTIM_PARAMETER_GROUPS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

struct ParameterGroup {
  std::string match;  // a glob over parameter names (base/glob.h)
  double learning_rate_scale = 1;
  /// Empty: as without groups, matrices decay and vectors do not.
  std::optional<double> weight_decay;
};

/// What became of one group.
struct GroupUse {
  bool matches = false;  // some parameter
  bool counts = false;   // for some parameter that no earlier group matches
};

/// Gives each segment what the first group that matches it says. One GroupUse a
/// group.
std::vector<GroupUse> AssignParameterGroups(
    absl::Span<const ParameterGroup> groups, ParameterLayout* layout);

/// INVALID_ARGUMENT names the first group that counts for no parameter, and
/// parameters that there are, those of `layout`.
absl::Status CheckGroupsAreUsed(absl::Span<const ParameterGroup> groups,
                                absl::Span<const GroupUse> use,
                                const ParameterLayout& layout);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_PARAMETER_GROUPS_H_
