#include "coordinator/spec/carried_state.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/delay_stability.h"
#include "base/image_model.h"
#include "base/layer_partition.h"
#include "base/model_parameters.h"
#include "base/optimizer_kind.h"
#include "compression/delta/boundary_spec.h"
#include "coordinator/spec/model_shape.h"
#include "coordinator/spec/synchronisation.h"

namespace deltapipe {
namespace {

bool HaveSameParameters(const v1::JobSpec& a, const v1::JobSpec& b) {
  const ModelShape shape_a = ModelShapeOf(a.model());
  const ModelShape shape_b = ModelShapeOf(b.model());
  const auto of_a = ModelParametersOf(shape_a, 0, shape_a.layers);
  const auto of_b = ModelParametersOf(shape_b, 0, shape_b.layers);
  if (of_a.size() != of_b.size()) return false;
  for (size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i].name != of_b[i].name || of_a[i].shape != of_b[i].shape) {
      return false;
    }
  }
  return true;
}

/// Steps of SGD use two momenta in turn, as the workers decide it.
bool HasShiftedMomentum(const v1::JobSpec& spec) {
  const v1::OptimizerSpec& optimizer = spec.train().optimizer();
  if (optimizer.kind() != "sgd" || spec.parallel().schedule() != "2bw" ||
      optimizer.momentum_delay() == "standard") {
    return false;
  }
  const double look_ahead = optimizer.has_look_ahead()
                                ? optimizer.look_ahead()
                                : DefaultLookAhead(optimizer.kind(), 1);
  return look_ahead == 0;
}

bool CompressesByDecision(const v1::JobSpec& spec) {
  const v1::OptimizerSpec& optimizer = spec.train().optimizer();
  return IsCompressingKind(optimizer.kind()) &&
         optimizer.compress_after_step() == "auto" &&
         !IsPlainGradientCodec(spec.compression().gradients());
}

/// Whether a codec keeps a tensor per sample. `auto` is unknown.
bool KeepsRecords(const std::string& codec, bool is_gradient) {
  const auto boundary = ParseBoundarySpec(codec, is_gradient ? 1 : 0);
  return boundary.ok() && boundary->kind != BoundarySpec::Kind::kStateless;
}

/// A codec of `former`'s boundaries whose records are in its checkpoints; "":
/// there are none.
std::string CodecWithRecords(const v1::JobSpec& former,
                             const v1::Tuning& tuning) {
  if (former.checkpoint().records() == "forget" ||
      former.parallel().stages() < 2) {
    return "";
  }
  std::vector<std::pair<std::string, bool>> codecs;
  for (const v1::BoundaryTuning& boundary : tuning.boundaries()) {
    codecs.emplace_back(boundary.activations(), false);
    codecs.emplace_back(boundary.activation_gradients(), true);
  }
  if (codecs.empty()) {
    codecs = {{former.compression().activations(), false},
              {former.compression().activation_gradients(), true}};
  }
  for (const auto& [codec, is_gradient] : codecs) {
    if (KeepsRecords(codec, is_gradient)) return codec;
  }
  return "";
}

/// Compares two specs field by field.
class Comparison {
 public:
  Comparison(const v1::JobSpec& former, const v1::JobSpec& spec,
             const v1::Tuning& tuning, const std::string& checkpoint)
      : former_(former),
        spec_(spec),
        tuning_(tuning),
        checkpoint_(checkpoint) {}

  std::vector<SpecViolation> Find() {
    CheckModel();
    CheckBoundaries();
    CheckOptimizer();
    return std::move(violations_);
  }

 private:
  void Add(const std::string& field, const std::string& former,
           const std::string& now, const std::string& why) {
    violations_.push_back(
        {"", field,
         absl::StrCat("expected ", former, ", as in checkpoint ", checkpoint_,
                      ", got ", now, ": ", why, "; take ", former,
                      ", or leave out --resume to begin anew")});
  }

  void CheckModel() {
    const v1::ModelSpec& then = former_.model();
    const v1::ModelSpec& now = spec_.model();
    const char* const why =
        "weights and the optimizer's state have another shape";
    if (then.kind() != now.kind()) {
      return Add("model.kind", then.kind(), now.kind(), why);
    }
    if (now.kind() == "synthetic") return CheckSynthetic(why);
    // A field counts if it alone makes other parameters.
    const auto check = [&](const char* field, const std::string& was,
                           const std::string& is,
                           const std::function<void(v1::ModelSpec*)>& change) {
      if (was == is) return;
      v1::JobSpec changed = former_;
      change(changed.mutable_model());
      if (!HaveSameParameters(former_, changed)) Add(field, was, is, why);
    };
    check("model.layers", absl::StrCat(then.layers()),
          absl::StrCat(now.layers()),
          [&](v1::ModelSpec* model) { model->set_layers(now.layers()); });
    check("model.width", absl::StrCat(then.width()), absl::StrCat(now.width()),
          [&](v1::ModelSpec* model) { model->set_width(now.width()); });
    check("model.context", absl::StrCat(then.context()),
          absl::StrCat(now.context()),
          [&](v1::ModelSpec* model) { model->set_context(now.context()); });
    check("model.tied", then.tied(), now.tied(),
          [&](v1::ModelSpec* model) { model->set_tied(now.tied()); });
    check("model.norm", then.norm(), now.norm(),
          [&](v1::ModelSpec* model) { model->set_norm(now.norm()); });
  }

  void CheckSynthetic(const char* why) {
    const int64_t then = former_.model().synthetic().parameters_per_stage();
    const int64_t now = spec_.model().synthetic().parameters_per_stage();
    if (then != now) {
      Add("model.synthetic.parameters_per_stage", absl::StrCat(then),
          absl::StrCat(now), why);
    }
    if (now > 0 && former_.model().layers() != spec_.model().layers()) {
      Add("model.layers", absl::StrCat(former_.model().layers()),
          absl::StrCat(spec_.model().layers()), why);
    }
  }

  /// The tensors that cross boundaries: context x width, but of images, whose
  /// follow from the parameters. Records begin anew where the number of
  /// replicas is another one.
  void CheckBoundaries() {
    const v1::ModelSpec& then = former_.model();
    const v1::ModelSpec& now = spec_.model();
    const std::string codec = CodecWithRecords(former_, tuning_);
    if (codec.empty() || then.kind() != now.kind() ||
        IsImageModel(now.kind()) ||
        former_.parallel().replicas() != spec_.parallel().replicas()) {
      return;
    }
    const std::string why =
        absl::StrCat("what ", codec,
                     " keeps of each sample at a boundary has another shape");
    const auto check = [&](const char* field, int64_t was, int64_t is) {
      const bool is_told = std::any_of(
          violations_.begin(), violations_.end(),
          [&](const SpecViolation& told) { return told.field == field; });
      if (was == is || is_told) return;
      Add(field, absl::StrCat(was), absl::StrCat(is), why);
    };
    check("model.context", then.context(), now.context());
    check("model.width", then.width(), now.width());
  }

  void CheckOptimizer() {
    const v1::OptimizerSpec& then = former_.train().optimizer();
    const v1::OptimizerSpec& now = spec_.train().optimizer();
    if (!HaveSameState(then.kind(), now.kind())) {
      return Add("train.optimizer.kind", then.kind(), now.kind(),
                 "its state has another form");
    }
    if (HasShiftedMomentum(former_) != HasShiftedMomentum(spec_)) {
      const char* const why =
          "steps of sgd use two momenta in turn with 2bw and shifted, else one";
      if (former_.parallel().schedule() != spec_.parallel().schedule()) {
        Add("parallel.schedule", former_.parallel().schedule(),
            spec_.parallel().schedule(), why);
      } else if (then.momentum_delay() != now.momentum_delay()) {
        Add("train.optimizer.momentum_delay", then.momentum_delay(),
            now.momentum_delay(), why);
      } else {
        Add("train.optimizer.look_ahead", absl::StrCat(then.look_ahead()),
            absl::StrCat(now.look_ahead()), why);
      }
    }
    if (CompressesByDecision(spec_) && !CompressesByDecision(former_)) {
      if (IsPlainGradientCodec(former_.compression().gradients())) {
        Add("compression.gradients", former_.compression().gradients(),
            spec_.compression().gradients(),
            "there is no evidence that compression could begin by");
      } else {
        Add("train.optimizer.compress_after_step", then.compress_after_step(),
            now.compress_after_step(),
            "there is no evidence that compression could begin by");
      }
    }
  }

  const v1::JobSpec& former_;
  const v1::JobSpec& spec_;
  const v1::Tuning& tuning_;
  const std::string checkpoint_;
  std::vector<SpecViolation> violations_;
};

}  // namespace

bool TakesCutOf(const v1::JobSpec& former, const v1::JobSpec& spec) {
  if (former.parallel().stages() != spec.parallel().stages()) return false;
  const auto then = ParseLayerPartition(former.parallel().partition());
  const auto now = ParseLayerPartition(spec.parallel().partition());
  const bool are_given = then.ok() && now.ok() &&
                         then->kind == LayerPartition::Kind::kGiven &&
                         now->kind == LayerPartition::Kind::kGiven;
  return !are_given || former.model().layers() != spec.model().layers() ||
         then->layers == now->layers;
}

std::vector<SpecViolation> FindUncarried(const v1::JobSpec& former,
                                         const v1::JobSpec& spec,
                                         const v1::Tuning& tuning,
                                         const std::string& checkpoint) {
  return Comparison(former, spec, tuning, checkpoint).Find();
}

void KeepCut(const std::vector<FormerCheckpoint>& checkpoints,
             v1::JobSpec* spec) {
  v1::ParallelSpec* const parallel = spec->mutable_parallel();
  if (parallel->partition() != "auto" || checkpoints.empty()) return;
  const std::optional<v1::JobSpec>& former = checkpoints.front().spec;
  if (!former.has_value() || !TakesCutOf(*former, *spec) ||
      former->model().layers() != spec->model().layers()) {
    return;
  }
  const auto cut = ParseLayerPartition(former->parallel().partition());
  if (!cut.ok() || cut->kind != LayerPartition::Kind::kGiven) return;
  parallel->set_partition(former->parallel().partition());
}

std::vector<SpecViolation> FindUncarried(
    const std::vector<FormerCheckpoint>& checkpoints, const v1::JobSpec& spec) {
  for (const FormerCheckpoint& found : checkpoints) {
    if (!found.spec.has_value()) return {};
    if (!TakesCutOf(*found.spec, spec)) continue;
    return FindUncarried(*found.spec, spec, found.tuning, found.name);
  }
  return {};
}

}  // namespace deltapipe
