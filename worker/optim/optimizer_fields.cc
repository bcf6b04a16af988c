#include "worker/optim/optimizer_fields.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/codec_spec.h"
#include "worker/optim/make_flat_optimizer.h"

namespace deltapipe {
namespace {

constexpr absl::string_view kGroups = "groups[";

absl::Status FieldError(absl::string_view name, absl::string_view expected,
                        absl::string_view got) {
  return absl::InvalidArgumentError(absl::StrCat(
      "field ", name, ": expected ", expected, ", got \"", got, "\""));
}

absl::Status SetNumber(absl::string_view name, absl::string_view text,
                       double min, double max, double* number) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !(value >= min && value <= max)) {
    return FieldError(name, absl::StrCat("a number from ", min, " to ", max),
                      text);
  }
  *number = value;
  return absl::OkStatus();
}

absl::Status SetCount(absl::string_view name, absl::string_view text,
                      int64_t min, int64_t max, int64_t* number) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < min || value > max) {
    return FieldError(
        name, absl::StrCat("a whole number from ", min, " to ", max), text);
  }
  *number = value;
  return absl::OkStatus();
}

struct Field {
  absl::string_view name;
  std::function<absl::Status(absl::string_view text, OptimizerSettings*)> set;
};

Field Number(absl::string_view name, double OptimizerOptions::*member,
             double min, double max) {
  return {name, [=](absl::string_view text, OptimizerSettings* settings) {
            return SetNumber(name, text, min, max,
                             &(settings->options.*member));
          }};
}

Field Count(absl::string_view name, int64_t OptimizerOptions::*member) {
  return {name, [=](absl::string_view text, OptimizerSettings* settings) {
            return SetCount(name, text, 1, 1000000000,
                            &(settings->options.*member));
          }};
}

/// `name` is "groups[0].match", ...; the ranges are those of job.proto.
absl::Status SetGroupField(absl::string_view name, absl::string_view text,
                           std::vector<ParameterGroup>* groups) {
  const size_t close = name.find("].");
  size_t index = 0;
  if (close == absl::string_view::npos ||
      !absl::SimpleAtoi(name.substr(kGroups.size(), close - kGroups.size()),
                        &index) ||
      index > groups->size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown field \"", name,
                     "\": expected groups[0].match and the like, "
                     "up to groups[",
                     groups->size(), "]"));
  }
  const absl::string_view field = name.substr(close + 2);
  ParameterGroup group;
  if (index < groups->size()) group = (*groups)[index];
  if (field == "match") {
    group.match = std::string(text);
  } else if (field == "learning_rate_scale") {
    DP_RETURN_IF_ERROR(
        SetNumber(name, text, 0, 1000, &group.learning_rate_scale));
  } else if (field == "weight_decay") {
    DP_RETURN_IF_ERROR(
        SetNumber(name, text, 0, 10, &group.weight_decay.emplace()));
  } else {
    const absl::string_view fields[] = {"match", "learning_rate_scale",
                                        "weight_decay"};
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown field \"", name, "\"", NearestNameHint(field, fields),
        "; expected one of ", absl::StrJoin(fields, ", "), " of a group"));
  }
  groups->resize(std::max(groups->size(), index + 1));
  (*groups)[index] = std::move(group);
  return absl::OkStatus();
}

absl::Status SetKind(absl::string_view text, OptimizerSettings* settings) {
  const auto kinds = OptimizerKinds();
  if (std::find(kinds.begin(), kinds.end(), text) == kinds.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown optimizer \"", text, "\"", NearestNameHint(text, kinds),
        "; expected one of ", absl::StrJoin(kinds, ", ")));
  }
  settings->options.kind = std::string(text);
  return absl::OkStatus();
}

absl::Status SetSchedule(absl::string_view text, OptimizerSettings* settings) {
  const auto decay = ParseLearningRateDecay(text);
  if (!decay.ok()) {
    return FieldError("lr_schedule", "constant, linear or cosine", text);
  }
  settings->learning_rate.decay = *decay;
  return absl::OkStatus();
}

// As in job.proto, where it has the field.
const std::vector<Field>& Fields() {
  using Options = OptimizerOptions;
  constexpr double kBelowOne = 0.999999;
  static const auto* const fields = new std::vector<Field>{
      {"kind", SetKind},
      {"learning_rate",
       [](absl::string_view text, OptimizerSettings* settings) {
         return SetNumber("learning_rate", text, 0, 1000,
                          &settings->learning_rate.rate);
       }},
      {"lr_warmup_steps",
       [](absl::string_view text, OptimizerSettings* settings) {
         return SetCount("lr_warmup_steps", text, 0, 1000000000,
                         &settings->learning_rate.warmup_steps);
       }},
      {"lr_schedule", SetSchedule},
      {"lr_final",
       [](absl::string_view text, OptimizerSettings* settings) {
         return SetNumber("lr_final", text, 0, 1, &settings->lr_final);
       }},
      {"compress_after_step",
       [](absl::string_view text, OptimizerSettings* settings) {
         const auto choice = ParseStepChoice(text);
         if (choice.ok()) settings->compress_after_step = std::string(text);
         return Annotate(choice.status(), "field compress_after_step");
       }},
      Number("weight_decay", &Options::weight_decay, 0, 10),
      Number("beta1", &Options::beta1, 0, kBelowOne),
      Number("beta2", &Options::beta2, 0, kBelowOne),
      Number("epsilon", &Options::epsilon, 0, 1),
      Number("momentum", &Options::momentum, 0, kBelowOne),
      Number("look_ahead", &Options::look_ahead, 0, 100),
      Number("max_coefficient", &Options::max_coefficient, 0, 1e9),
      Number("min_coefficient", &Options::min_coefficient, 0, 1e9),
      Number("coefficient_beta", &Options::coefficient_beta, 0, kBelowOne),
      Number("factor_max", &Options::factor_max, 1, 1e9),
      Number("factor_min", &Options::factor_min, 0, 1),
      Number("factor_threshold", &Options::factor_threshold, 0, kBelowOne),
      Count("variance_update_scaler", &Options::variance_update_scaler),
      Count("local_step_scaler", &Options::local_step_scaler),
      Count("local_step_clipper", &Options::local_step_clipper),
  };
  return *fields;
}

}  // namespace

OptimizerSettings::OptimizerSettings() {
  options.weight_decay = 0.01;
  learning_rate.rate = 3e-3;
}

absl::StatusOr<OptimizerOptions> OptimizerSettings::OptionsOf(
    int64_t total_steps) const {
  OptimizerOptions resolved = options;
  resolved.num_steps = total_steps;
  DP_ASSIGN_OR_RETURN(const StepChoice choice,
                      ParseStepChoice(compress_after_step));
  resolved.compress_after_step =
      choice.is_auto ? kCompressByDecision : choice.At(total_steps);
  if (IsCompressingKind(resolved.kind) &&
      resolved.compress_after_step > total_steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("field compress_after_step: ", compress_after_step,
                     " lies beyond the run of ", total_steps, " steps"));
  }
  return resolved;
}

LearningRateOptions OptimizerSettings::RateOf() const {
  LearningRateOptions resolved = learning_rate;
  resolved.final_rate = resolved.rate * lr_final;
  return resolved;
}

absl::Status SetOptimizerField(absl::string_view name, absl::string_view text,
                               OptimizerSettings* settings) {
  if (absl::StartsWith(name, kGroups)) {
    return SetGroupField(name, text, &settings->groups);
  }
  std::vector<absl::string_view> names;
  for (const Field& field : Fields()) {
    if (field.name == name) return field.set(text, settings);
    names.push_back(field.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown field \"", name, "\"", NearestNameHint(name, names),
                   "; expected one of ", absl::StrJoin(names, ", ")));
}

}  // namespace deltapipe
