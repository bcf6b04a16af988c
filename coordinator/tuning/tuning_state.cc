#include "coordinator/tuning/tuning_state.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "base/checksum.h"
#include "base/image_model.h"
#include "base/mixed_sizes.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/tuning/codec_bits.h"

namespace deltapipe {
namespace {

/// Every knob and its value, in the order of the proto.
std::vector<std::pair<std::string, std::string>> Knobs(
    const v1::Tuning& tuning) {
  std::vector<std::pair<std::string, std::string>> knobs;
  for (const v1::BoundaryTuning& boundary : tuning.boundaries()) {
    const std::string path =
        absl::StrCat("boundaries[", boundary.boundary(), "].");
    knobs.emplace_back(path + "activations", boundary.activations());
    knobs.emplace_back(path + "activation_gradients",
                       boundary.activation_gradients());
    knobs.emplace_back(path + "rate_limit", boundary.rate_limit());
  }
  knobs.emplace_back("gradients", tuning.gradients());
  knobs.emplace_back("saved_activations", tuning.saved_activations());
  knobs.emplace_back("straggler_policy", tuning.straggler_policy());
  knobs.emplace_back("inject", tuning.inject());
  knobs.emplace_back("budget_bytes_per_step",
                     absl::StrCat(tuning.budget_bytes_per_step()));
  knobs.emplace_back("tuner.mode", TunerModeWord(tuning.tuner().mode()));
  knobs.emplace_back("tuner.error_budget",
                     absl::StrCat(tuning.tuner().error_budget()));
  return knobs;
}

void AppendLine(const std::string& path, const std::string& value,
                std::string* lines) {
  absl::StrAppend(lines, lines->empty() ? "" : "\n", path, "=", value);
}

}  // namespace

std::string TunerModeWord(v1::Tuner::Mode mode) {
  switch (mode) {
    case v1::Tuner::PROPOSE:
      return "propose";
    case v1::Tuner::APPLY:
      return "apply";
    default:
      return "off";
  }
}

std::string TuningEtag(const v1::Tuning& tuning) {
  std::string text = tuning.job_id();
  for (const auto& [path, value] : Knobs(tuning)) {
    AppendLine(path, value, &text);
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return absl::StrFormat("%d-%016x", tuning.revision(),
                         Checksum(absl::MakeConstSpan(bytes, text.size())));
}

void MakeNextRevision(const v1::Tuning& current, v1::Tuning* next) {
  next->set_revision(current.revision() + 1);
  next->set_effective_step(0);
  next->set_etag(TuningEtag(*next));
}

std::string BindToBoundary(const std::string& codec, const v1::JobSpec& spec,
                           const v1::Plan& plan, int boundary) {
  // Workers bind it to each of the shapes.
  if (!MixedSizes(spec.data().sizes()).empty()) return codec;
  const v1::ModelSpec& model = spec.model();
  const int end_layer = boundary < plan.stages_size()
                            ? plan.stages(boundary).end_layer()
                            : boundary + 1;
  const BoundaryShape shape = BoundaryShapeOf(
      model.kind(), end_layer, model.layers(), model.width(), model.context());
  return BindTensorShape(codec, {shape.rows, shape.columns}).value_or(codec);
}

v1::Tuning InitialTuning(const std::string& job_id, const v1::JobSpec& spec,
                         const v1::Plan& plan) {
  v1::Tuning tuning;
  tuning.set_job_id(job_id);
  tuning.set_revision(1);
  // As every later revision spells them, so that equal ones are equal texts.
  const auto canonical = [&](const std::string& codec, bool is_gradient,
                             int boundary) {
    const std::string bound = BindToBoundary(codec, spec, plan, boundary);
    return CanonicalBoundaryCodec(bound, is_gradient).value_or(bound);
  };
  for (int b = 0; b + 1 < plan.num_stages(); ++b) {
    v1::BoundaryTuning* boundary = tuning.add_boundaries();
    boundary->set_boundary(b);
    boundary->set_activations(canonical(plan.activation_codec(), false, b));
    boundary->set_activation_gradients(
        canonical(plan.activation_gradient_codec(), true, b));
    boundary->set_rate_limit("unlimited");
  }
  const auto codec = MakeCodec(plan.gradient_codec());
  tuning.set_gradients(codec.ok() ? (*codec)->text() : plan.gradient_codec());
  tuning.set_saved_activations(spec.compression().saved_activations());
  tuning.set_straggler_policy(spec.stragglers().policy());
  tuning.set_inject(
      spec.stragglers().inject().empty() ? "none" : spec.stragglers().inject());
  tuning.mutable_tuner()->set_mode(v1::Tuner::OFF);
  tuning.mutable_tuner()->set_error_budget(kDefaultErrorBudget);
  tuning.set_etag(TuningEtag(tuning));
  return tuning;
}

absl::Status CheckEtag(const v1::Tuning& current, const std::string& etag) {
  if (etag.empty() || etag == current.etag()) return absl::OkStatus();
  constexpr size_t kShown = 60;
  const std::string shown = etag.substr(0, kShown);
  return WithReason(
      absl::AbortedError(absl::StrCat(
          "the tuning of job '", current.job_id(),
          "' has changed: its etag is ", current.etag(), ", expected ", shown,
          " as given: read it again, and repeat the change if it is still "
          "wanted")),
      {"ETAG_MISMATCH",
       {{"job", current.job_id()},
        {"etag", current.etag()},
        {"given", shown}}});
}

TuningDifference DescribeChange(const v1::Tuning& from, const v1::Tuning& to) {
  TuningDifference difference;
  const auto old_knobs = Knobs(from);
  const auto new_knobs = Knobs(to);
  for (size_t i = 0; i < old_knobs.size() && i < new_knobs.size(); ++i) {
    if (old_knobs[i] == new_knobs[i]) continue;
    AppendLine(old_knobs[i].first, old_knobs[i].second, &difference.old_value);
    AppendLine(new_knobs[i].first, new_knobs[i].second, &difference.new_value);
  }
  return difference;
}

}  // namespace deltapipe
