#include "coordinator/spec/unused_groups.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/glob.h"
#include "coordinator/spec/model_shape.h"

namespace deltapipe {
namespace {

/// Of one layer, and of what stands around all of them.
std::string ExampleNames(const std::vector<ModelParameter>& parameters) {
  std::vector<std::string> names;
  for (const ModelParameter& parameter : parameters) {
    if (parameter.layer <= 0) names.push_back(parameter.name);
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

std::map<int, std::string> UnusedGroups(const v1::JobSpec& spec) {
  const v1::ModelSpec& model = spec.model();
  const auto& groups = spec.train().optimizer().groups();
  std::map<int, std::string> unused;
  if (groups.empty()) return unused;
  if (model.kind() == "synthetic" &&
      model.synthetic().parameters_per_stage() == 0) {
    for (int i = 0; i < groups.size(); ++i) {
      unused[i] =
          absl::StrCat("'", groups[i].match(),
                       "' matches no parameter of the model, which has none "
                       "(model.synthetic.parameters_per_stage: 0)");
    }
    return unused;
  }
  const ModelShape shape = ModelShapeOf(model);
  const std::vector<ModelParameter> parameters =
      ModelParametersOf(shape, 0, shape.layers);
  if (parameters.empty()) return unused;
  std::vector<bool> matches(groups.size()), counts(groups.size());
  for (const ModelParameter& parameter : parameters) {
    bool is_taken = false;
    for (int i = 0; i < groups.size(); ++i) {
      if (!MatchesGlob(groups[i].match(), parameter.name)) continue;
      matches[i] = true;
      if (!is_taken) counts[i] = true;
      is_taken = true;
    }
  }
  for (int i = 0; i < groups.size(); ++i) {
    if (counts[i]) continue;
    unused[i] = absl::StrCat(
        "'", groups[i].match(), "' ",
        matches[i] ? "matches nothing that an earlier group does not match: "
                     "put it before that one"
                   : absl::StrCat("matches no parameter of the model, which "
                                  "has parameters such as ",
                                  ExampleNames(parameters)));
  }
  return unused;
}

}  // namespace deltapipe
