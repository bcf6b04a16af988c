#include "worker/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "worker/optim/flat_optimizer.h"
#include "worker/optim/make_flat_optimizer.h"

namespace deltapipe {
namespace {

/// Collects what is wrong with the options, all of it.
class OptionErrors {
 public:
  void Require(bool holds, const char* name, const char* expected,
               double value) {
    if (holds) return;
    errors_.push_back(
        absl::StrCat(name, ": expected ", expected, ", got ", value));
  }
  void Add(std::string error) { errors_.push_back(std::move(error)); }
  absl::Status status() const {
    if (errors_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("optimizer: ", absl::StrJoin(errors_, "; ")));
  }

 private:
  std::vector<std::string> errors_;
};

bool IsDecay(double value) { return value >= 0 && value < 1; }

void CheckLamb(const OptimizerOptions& options, OptionErrors* errors) {
  errors->Require(options.min_coefficient > 0, "min_coefficient",
                  "a number > 0", options.min_coefficient);
  errors->Require(options.max_coefficient >= options.min_coefficient &&
                      std::isfinite(options.max_coefficient),
                  "max_coefficient", "a number >= min_coefficient",
                  options.max_coefficient);
}

void CheckOneBitLamb(const OptimizerOptions& options, OptionErrors* errors) {
  errors->Require(IsDecay(options.coefficient_beta), "coefficient_beta",
                  "0 <= coefficient_beta < 1", options.coefficient_beta);
  errors->Require(options.factor_min > 0 && options.factor_min <= 1,
                  "factor_min", "0 < factor_min <= 1", options.factor_min);
  errors->Require(options.factor_max >= 1 && std::isfinite(options.factor_max),
                  "factor_max", "a number >= 1", options.factor_max);
  errors->Require(options.factor_threshold > 0 && options.factor_threshold < 1,
                  "factor_threshold", "0 < factor_threshold < 1",
                  options.factor_threshold);
}

void CheckZeroOneAdam(const OptimizerOptions& options, OptionErrors* errors) {
  const auto require = [errors](const char* name, int64_t value, int64_t max,
                                const char* expected) {
    errors->Require(value >= 1 && value <= max, name, expected,
                    static_cast<double>(value));
  };
  require("variance_update_scaler", options.variance_update_scaler, 1000000000,
          "1 to 1000000000");
  require("local_step_scaler", options.local_step_scaler, 1000000000,
          "1 to 1000000000");
  require("local_step_clipper", options.local_step_clipper, 1000000,
          "1 to 1000000");
}

absl::Status CheckOptions(const OptimizerOptions& options) {
  OptionErrors errors;
  const std::string& kind = options.kind;
  const auto kinds = OptimizerKinds();
  if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
    errors.Add(absl::StrCat("kind: expected ", absl::StrJoin(kinds, ", "),
                            ", got \"", kind, "\""));
  }
  errors.Require(
      options.weight_decay >= 0 && std::isfinite(options.weight_decay),
      "weight_decay", "a number >= 0", options.weight_decay);
  if (kind == "sgd") {
    errors.Require(IsDecay(options.momentum), "momentum", "0 <= momentum < 1",
                   options.momentum);
    errors.Require(options.momentum_shift == 0 || options.momentum_shift == 1,
                   "momentum_shift", "0 or 1", options.momentum_shift);
  } else {
    errors.Require(IsDecay(options.beta1), "beta1", "0 <= beta1 < 1",
                   options.beta1);
    errors.Require(IsDecay(options.beta2), "beta2", "0 <= beta2 < 1",
                   options.beta2);
    errors.Require(options.epsilon > 0 && std::isfinite(options.epsilon),
                   "epsilon", "a number > 0", options.epsilon);
  }
  if (kind == "lamb" || kind == "onebit_lamb") CheckLamb(options, &errors);
  if (kind == "onebit_lamb") CheckOneBitLamb(options, &errors);
  if (kind == "zero_one_adam") CheckZeroOneAdam(options, &errors);
  if (IsCompressingKind(kind)) {
    errors.Require(options.compress_after_step >= 1 ||
                       options.compress_after_step == kCompressByDecision,
                   "compress_after_step",
                   "at least 1 (the variance must be learned first)",
                   static_cast<double>(options.compress_after_step));
  }
  return errors.status();
}

absl::Status CheckLayout(const ParameterLayout& layout) {
  int64_t offset = 0;
  for (size_t i = 0; i < layout.segments.size(); ++i) {
    const ParameterSegment& segment = layout.segments[i];
    if (segment.offset != offset || segment.num_elements < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter layout: segment \"", segment.name,
                       "\": expected offset ", offset, ", got ", segment.offset,
                       " with ", segment.num_elements, " elements"));
    }
    if (i > 0 && !(layout.segments[i - 1].name < segment.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter layout: segment \"", segment.name,
                       "\" must not come after \"", layout.segments[i - 1].name,
                       "\": segments are sorted by name"));
    }
    if (!(segment.learning_rate_scale >= 0 &&
          std::isfinite(segment.learning_rate_scale)) ||
        !(segment.weight_decay.value_or(0) >= 0 &&
          std::isfinite(segment.weight_decay.value_or(0)))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter layout: segment \"", segment.name,
          "\": expected a learning_rate_scale and a weight_decay of 0 or more, "
          "got ",
          segment.learning_rate_scale, " and ",
          segment.weight_decay.value_or(0)));
    }
    offset += segment.num_elements;
  }
  if (offset != layout.num_elements) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter layout: segments have ", offset,
                     " elements, num_elements says ", layout.num_elements));
  }
  return absl::OkStatus();
}

/// Checks sizes and the order of calls.
class CheckedOptimizer : public Optimizer {
 public:
  CheckedOptimizer(std::unique_ptr<FlatOptimizer<float>> flat, std::string kind)
      : flat_(std::move(flat)), kind_(std::move(kind)) {}

  SyncRequest Prepare(int64_t step, double learning_rate,
                      absl::Span<const float> weights,
                      absl::Span<float> gradient) override {
    const SyncRequest request =
        PrepareEarly(step, learning_rate, weights, gradient);
    TakeGradient({0, flat_->layout().num_elements});
    return request;
  }

  SyncRequest PrepareEarly(int64_t step, double learning_rate,
                           absl::Span<const float> weights,
                           absl::Span<float> gradient) override {
    const size_t expected = static_cast<size_t>(flat_->layout().num_elements);
    if (gradient.size() != expected || weights.size() != expected) {
      prepared_ = absl::InvalidArgumentError(
          absl::StrCat(kind_, ": step ", step, ": gradient has ",
                       gradient.size(), " elements, the weights have ",
                       weights.size(), ", expected ", expected));
      return {};
    }
    if (!std::isfinite(learning_rate)) {
      prepared_ = absl::InvalidArgumentError(absl::StrCat(
          kind_, ": step ", step, ": expected a finite learning rate, got ",
          learning_rate));
      return {};
    }
    prepared_ = absl::OkStatus();
    prepared_rate_ = learning_rate;
    const auto request =
        flat_->PrepareEarly(step, learning_rate, weights, gradient);
    num_excluded_ = request.excluded.size();
    return {request.values, request.format, request.resets_residuals,
            request.excluded};
  }

  void TakeGradient(const ElementRange& range) override {
    if (prepared_.ok()) flat_->TakeGradient(range);
  }

  bool Synchronizes(int64_t step) const override {
    return flat_->Synchronizes(step);
  }

  void Wake(absl::Span<const uint8_t> is_woken) override {
    if (!prepared_.ok()) return;
    if (is_woken.size() != num_excluded_) {
      flat_->Skip();
      prepared_ = absl::InvalidArgumentError(
          absl::StrCat(kind_, ": Wake got ", is_woken.size(),
                       " flags, expected one for each of the ", num_excluded_,
                       " excluded rows"));
      return;
    }
    flat_->Wake(is_woken);
  }

  double MeanGradientSquaredNorm() override {
    return prepared_.ok() ? flat_->MeanGradientSquaredNorm() : 0.0;
  }

  absl::Status Apply(int64_t step, double learning_rate, double clip_factor,
                     absl::Span<float> weights) override {
    DP_RETURN_IF_ERROR(prepared_);
    if (static_cast<int64_t>(weights.size()) != flat_->layout().num_elements) {
      return absl::InvalidArgumentError(
          absl::StrCat(kind_, ": step ", step, ": ", weights.size(),
                       " weights, expected ", flat_->layout().num_elements));
    }
    if (learning_rate != prepared_rate_ || !std::isfinite(clip_factor) ||
        clip_factor < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          kind_, ": step ", step, ": expected the learning rate of Prepare, ",
          prepared_rate_, ", and a finite clip factor, got ", learning_rate,
          " and ", clip_factor));
    }
    flat_->Apply(step, learning_rate, clip_factor, weights);
    EndStep();
    return flat_->apply_status();
  }

  void Skip() override {
    if (prepared_.ok()) flat_->Skip();
    EndStep();
  }

  bool AreReplicasEqual() const override { return flat_->AreReplicasEqual(); }

  void SetCompressing(bool on) override {
    if (prepared_.ok()) {
      decision_ = on;
    } else {
      flat_->SetCompressing(on);
    }
  }

  CompressionEvidence Evidence() const override { return flat_->Evidence(); }

  std::map<std::string, std::vector<float>> ExportState() const override {
    return flat_->ExportState();
  }

  absl::Status ImportState(
      const std::map<std::string, std::vector<float>>& state) override {
    if (prepared_.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(kind_,
                       ": state can be imported between steps only; a step is "
                       "prepared"));
    }
    return flat_->ImportState(state);
  }

 private:
  static absl::Status NotPrepared() {
    return absl::FailedPreconditionError(
        "optimizer: Apply needs a Prepare before it");
  }

  void EndStep() {
    prepared_ = NotPrepared();
    if (decision_.has_value()) flat_->SetCompressing(*decision_);
    decision_.reset();
  }

  const std::unique_ptr<FlatOptimizer<float>> flat_;
  const std::string kind_;
  absl::Status prepared_ = NotPrepared();
  double prepared_rate_ = 0;
  size_t num_excluded_ = 0;
  std::optional<bool> decision_;  // that came during a step
};

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> Optimizer::Create(
    const OptimizerOptions& options, const ParameterLayout& layout,
    const SharedNorms& shared) {
  DP_RETURN_IF_ERROR(CheckOptions(options));
  DP_RETURN_IF_ERROR(CheckLayout(layout));
  if (shared.cut.count > 0 &&
      (shared.cut.of_segments.size() != layout.segments.size() ||
       !shared.sum)) {
    return absl::InvalidArgumentError(
        absl::StrCat("optimizer: cut tensors are told of ",
                     shared.cut.of_segments.size(), " segments, expected ",
                     layout.segments.size(), " and a sum over the ranks"));
  }
  return std::unique_ptr<Optimizer>(std::make_unique<CheckedOptimizer>(
      MakeFlatOptimizer<float>(options, layout, shared), options.kind));
}

}  // namespace deltapipe
