#include "worker/optim/parameter_groups.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/glob.h"

namespace deltapipe {
namespace {

/// Of the parameters that an error names.
constexpr size_t kMaxNames = 40;

std::string NamesOf(const ParameterLayout& layout) {
  std::vector<absl::string_view> names;
  for (const ParameterSegment& segment : layout.segments) {
    names.push_back(segment.name);
  }
  const size_t num_left_out = names.size() - std::min(kMaxNames, names.size());
  names.resize(names.size() - num_left_out);
  std::string text = absl::StrJoin(names, ", ");
  if (num_left_out > 0) {
    absl::StrAppend(&text, " and ", num_left_out, " more");
  }
  return text;
}

}  // namespace

std::vector<GroupUse> AssignParameterGroups(
    absl::Span<const ParameterGroup> groups, ParameterLayout* layout) {
  std::vector<GroupUse> use(groups.size());
  for (ParameterSegment& segment : layout->segments) {
    bool is_assigned = false;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!MatchesGlob(groups[i].match, segment.name)) continue;
      use[i].matches = true;
      if (is_assigned) continue;
      is_assigned = true;
      use[i].counts = true;
      segment.learning_rate_scale = groups[i].learning_rate_scale;
      segment.weight_decay = groups[i].weight_decay;
    }
  }
  return use;
}

absl::Status CheckGroupsAreUsed(absl::Span<const ParameterGroup> groups,
                                absl::Span<const GroupUse> use,
                                const ParameterLayout& layout) {
  for (size_t i = 0; i < groups.size(); ++i) {
    if (use[i].counts) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "train.optimizer.groups[", i, "]: '", groups[i].match, "' ",
        use[i].matches
            ? "matches nothing that an earlier group does not match: put it "
              "before that one"
            : absl::StrCat("matches no parameter of the model, which has "
                           "parameters such as ",
                           NamesOf(layout))));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
