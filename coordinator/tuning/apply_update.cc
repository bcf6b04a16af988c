#include <cmath>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/spec/job_spec.h"
#include "coordinator/tuning/codec_bits.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

/// Below this a frame of some kilobytes takes minutes.
constexpr double kLeastRate = 1000;

constexpr absl::string_view kPaths[] = {
    "boundaries",
    "boundaries.*.activations",
    "boundaries.*.activation_gradients",
    "boundaries.*.rate_limit",
    "gradients",
    "saved_activations",
    "straggler_policy",
    "inject",
    "budget_bytes_per_step",
    "tuner",
    "tuner.mode",
    "tuner.error_budget",
};
constexpr absl::string_view kOutputOnly[] = {"job_id", "etag", "revision",
                                             "effective_step"};

/// Which fields of a request count, and what it means that one is not set.
class Mask {
 public:
  Mask(const v1::UpdateTuningRequest& request,
       std::vector<FieldViolation>* violations)
      : takes_what_is_set_(request.update_mask().paths().empty()) {
    for (const std::string& path : request.update_mask().paths()) {
      Add(path, violations);
    }
  }

  /// Everything is replaced.
  bool is_star() const { return is_star_; }
  /// Whether a field that is not set goes back to what the job started with.
  bool resets() const { return !takes_what_is_set_; }
  bool Has(const std::string& path) const {
    if (takes_what_is_set_ || is_star_ || paths_.count(path) > 0) return true;
    const size_t dot = path.find('.');
    return dot != std::string::npos && paths_.count(path.substr(0, dot)) > 0;
  }

 private:
  void Add(const std::string& path, std::vector<FieldViolation>* violations) {
    if (path == "*") {
      is_star_ = true;
      return;
    }
    for (const absl::string_view output_only : kOutputOnly) {
      if (path == output_only) return;
    }
    for (const absl::string_view known : kPaths) {
      if (path == known) {
        paths_.insert(path);
        return;
      }
    }
    constexpr size_t kShown = 60;
    violations->push_back(
        {"update_mask",
         absl::StrCat("unknown path '", path.substr(0, kShown), "'",
                      NearestNameHint(path.substr(0, kShown), kPaths),
                      "; known: *, ", absl::StrJoin(kPaths, ", "))});
  }

  const bool takes_what_is_set_;
  bool is_star_ = false;
  std::set<std::string> paths_;
};

/// Checks values as the spec's reader would.
class ValueCheck {
 public:
  explicit ValueCheck(const v1::JobSpec& spec) : spec_(spec) {}

  /// Why `value` cannot stand in the spec's `field`, which `set` writes; "" if
  /// it can.
  template <typename Set>
  std::string Problem(const std::string& field, const std::string& value,
                      Set set) {
    const auto [known, is_new] = known_.try_emplace({field, value});
    if (!is_new) return known->second;
    v1::JobSpec trial = spec_;
    set(&trial);
    for (const SpecViolation& violation : ValidateJobSpec(trial)) {
      if (violation.field == field) known->second = violation.message;
    }
    return known->second;
  }

  std::string Activations(const std::string& value) {
    return Problem("compression.activations", value, [&](v1::JobSpec* spec) {
      spec->mutable_compression()->set_activations(value);
    });
  }
  std::string ActivationGradients(const std::string& value) {
    return Problem(
        "compression.activation_gradients", value, [&](v1::JobSpec* spec) {
          spec->mutable_compression()->set_activation_gradients(value);
        });
  }
  std::string Gradients(const std::string& value) {
    return Problem("compression.gradients", value, [&](v1::JobSpec* spec) {
      spec->mutable_compression()->set_gradients(value);
    });
  }
  std::string SavedActivations(const std::string& value) {
    return Problem("compression.saved_activations", value,
                   [&](v1::JobSpec* spec) {
                     spec->mutable_compression()->set_saved_activations(value);
                   });
  }
  std::string StragglerPolicy(const std::string& value) {
    return Problem("stragglers.policy", value, [&](v1::JobSpec* spec) {
      spec->mutable_stragglers()->set_policy(value);
    });
  }
  std::string Inject(const std::string& value) {
    return Problem("stragglers.inject", value, [&](v1::JobSpec* spec) {
      spec->mutable_stragglers()->set_inject(value);
    });
  }
  static std::string RateLimit(const std::string& value) {
    const auto rate = ParseBandwidth(value);
    if (!rate.ok()) return std::string(rate.status().message());
    if (*rate == 0 || *rate >= kLeastRate) return "";
    return absl::StrCat("expected at least ", FormatBandwidth(kLeastRate),
                        ", or 'unlimited', got ", value);
  }

 private:
  const v1::JobSpec& spec_;
  std::map<std::pair<std::string, std::string>, std::string> known_;
};

bool IsSameRate(const std::string& a, const std::string& b) {
  const auto first = ParseBandwidth(a);
  const auto second = ParseBandwidth(b);
  return first.ok() && second.ok() && *first == *second;
}

/// One update as it is applied.
class Update {
 public:
  Update(const v1::Tuning& current, const v1::UpdateTuningRequest& request,
         const v1::JobSpec& spec, const v1::Plan& plan)
      : input_(request.tuning()),
        start_(InitialTuning(current.job_id(), spec, plan)),
        next_(current),
        check_(spec),
        spec_(spec),
        plan_(plan),
        mask_(request, &violations_) {}

  absl::StatusOr<v1::Tuning> Apply() {
    SetBoundaries();
    SetText("gradients", input_.gradients(), start_.gradients(),
            next_.mutable_gradients(),
            [&](const std::string& v) { return check_.Gradients(v); });
    CanonicalizeGradients();
    SetText("saved_activations", input_.saved_activations(),
            start_.saved_activations(), next_.mutable_saved_activations(),
            [&](const std::string& v) { return check_.SavedActivations(v); });
    SetText("straggler_policy", input_.straggler_policy(),
            start_.straggler_policy(), next_.mutable_straggler_policy(),
            [&](const std::string& v) { return check_.StragglerPolicy(v); });
    SetText("inject", input_.inject(), start_.inject(), next_.mutable_inject(),
            [&](const std::string& v) { return check_.Inject(v); });
    SetBudget();
    SetTuner();
    DP_RETURN_IF_ERROR(FieldViolationsError(violations_, "INVALID_TUNING"));
    return next_;
  }

 private:
  void Refuse(const std::string& path, const std::string& problem) {
    violations_.push_back({path, problem});
  }

  /// Writes the knob if the mask has it. Returns whether it did.
  template <typename Check>
  bool SetText(const std::string& path, const std::string& mask_path,
               const std::string& value, const std::string& start,
               std::string* knob, Check check) {
    if (!mask_.Has(mask_path)) return false;
    if (value.empty() && !mask_.resets()) return false;
    if (value.empty() || value == "auto") {
      *knob = start;
      return true;
    }
    const std::string problem = check(value);
    if (!problem.empty()) {
      Refuse(path, problem);
      return false;
    }
    *knob = value;
    return true;
  }
  template <typename Check>
  bool SetText(const std::string& path, const std::string& value,
               const std::string& start, std::string* knob, Check check) {
    return SetText(path, path, value, start, knob, check);
  }

  void SetBoundaries() {
    std::set<int> named;
    for (int i = 0; i < input_.boundaries_size(); ++i) {
      const v1::BoundaryTuning& boundary = input_.boundaries(i);
      const int b = boundary.boundary();
      const std::string path = absl::StrCat("boundaries[", b, "]");
      if (b < 0 || b >= next_.boundaries_size()) {
        Refuse(path, next_.boundaries_size() == 0
                         ? std::string("the job has one stage and so no "
                                       "boundaries")
                         : absl::StrCat("expected a boundary from 0 to ",
                                        next_.boundaries_size() - 1));
      } else if (!named.insert(b).second) {
        Refuse(path, "expected once, got twice");
      } else {
        SetBoundary(boundary, path, b);
      }
    }
    if (!mask_.is_star()) return;
    for (int b = 0; b < next_.boundaries_size(); ++b) {
      if (named.count(b) == 0) {
        *next_.mutable_boundaries(b) = start_.boundaries(b);
      }
    }
  }

  void SetBoundary(const v1::BoundaryTuning& input, const std::string& path,
                   int b) {
    v1::BoundaryTuning* knobs = next_.mutable_boundaries(b);
    const v1::BoundaryTuning& start = start_.boundaries(b);
    if (SetText(path + ".activations", "boundaries.*.activations",
                input.activations(), start.activations(),
                knobs->mutable_activations(),
                [&](const std::string& v) { return check_.Activations(v); })) {
      Canonicalize(b, false, knobs->mutable_activations());
    }
    if (SetText(
            path + ".activation_gradients", "boundaries.*.activation_gradients",
            input.activation_gradients(), start.activation_gradients(),
            knobs->mutable_activation_gradients(), [&](const std::string& v) {
              return check_.ActivationGradients(v);
            })) {
      Canonicalize(b, true, knobs->mutable_activation_gradients());
    }
    const std::string former = knobs->rate_limit();
    if (SetText(path + ".rate_limit", "boundaries.*.rate_limit",
                input.rate_limit(), start.rate_limit(),
                knobs->mutable_rate_limit(), ValueCheck::RateLimit) &&
        IsSameRate(former, knobs->rate_limit())) {
      knobs->set_rate_limit(former);
    }
  }

  void Canonicalize(int boundary, bool is_gradient, std::string* codec) const {
    // It has been checked, or is the plan's own.
    const auto text = CanonicalBoundaryCodec(
        BindToBoundary(*codec, spec_, plan_, boundary), is_gradient);
    if (text.ok()) *codec = *text;
  }

  void CanonicalizeGradients() {
    // "identity" is no codec, and stays.
    const auto codec = MakeCodec(next_.gradients());
    if (codec.ok()) next_.set_gradients((*codec)->text());
  }

  void SetBudget() {
    const std::string path = "budget_bytes_per_step";
    const int64_t bytes = input_.budget_bytes_per_step();
    if (!mask_.Has(path) || (bytes == 0 && !mask_.resets())) return;
    if (bytes < 0) {
      Refuse(path, absl::StrCat("expected 0 (no budget) or more, got ", bytes));
      return;
    }
    next_.set_budget_bytes_per_step(bytes);
  }

  void SetTuner() {
    const v1::Tuner& tuner = input_.tuner();
    const bool has_mode = tuner.mode() != v1::Tuner::MODE_UNSPECIFIED;
    if (mask_.Has("tuner.mode") && (has_mode || mask_.resets())) {
      if (!v1::Tuner::Mode_IsValid(tuner.mode())) {
        Refuse("tuner.mode",
               absl::StrCat("expected OFF, PROPOSE or APPLY, got ",
                            static_cast<int>(tuner.mode())));
      }
      next_.mutable_tuner()->set_mode(has_mode ? tuner.mode()
                                               : start_.tuner().mode());
    }
    const double budget = tuner.error_budget();
    if (!mask_.Has("tuner.error_budget") || (budget == 0 && !mask_.resets())) {
      return;
    }
    if (!std::isfinite(budget) || budget < 0 || budget > 1) {
      Refuse("tuner.error_budget",
             absl::StrCat("expected a relative error above 0, at most 1, got ",
                          budget));
      return;
    }
    next_.mutable_tuner()->set_error_budget(
        budget == 0 ? start_.tuner().error_budget() : budget);
  }

  const v1::Tuning& input_;
  const v1::Tuning start_;
  v1::Tuning next_;
  std::vector<FieldViolation> violations_;
  ValueCheck check_;
  const v1::JobSpec& spec_;
  const v1::Plan& plan_;
  const Mask mask_;
};

}  // namespace

absl::StatusOr<v1::Tuning> ApplyUpdate(const v1::Tuning& current,
                                       const v1::UpdateTuningRequest& request,
                                       const v1::JobSpec& spec,
                                       const v1::Plan& plan) {
  DP_RETURN_IF_ERROR(CheckEtag(current, request.tuning().etag()));
  DP_ASSIGN_OR_RETURN(v1::Tuning next,
                      Update(current, request, spec, plan).Apply());
  if (DescribeChange(current, next).new_value.empty()) return current;
  MakeNextRevision(current, &next);
  return next;
}

}  // namespace deltapipe
