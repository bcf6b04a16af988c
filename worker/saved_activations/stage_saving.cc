#include "worker/saved_activations/stage_saving.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/gradient_variance.h"
#include "compression/bit_plan/policy_state.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/device_policy.h"
#include "worker/saved_activations/host_packer.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {
namespace {

SavedTreatment KeepIt(const SavedTensor&) {
  return {nullptr, false, "kept as it is for a probe"};
}

/// An operator's result in the place of its input is as exact as the result,
/// and has the result's errors where that is packed: what the policy takes so
/// stays so in probes of other tensors.
SavedTreatment KeepItOrItsOutput(const SavedTensor& tensor,
                                 const SavedPolicy& policy) {
  if (tensor.substitute == SavedSubstitute::kOutput) {
    SavedTreatment treatment = policy.Treat(tensor);
    if (treatment.takes_substitute) return treatment;
  }
  return KeepIt(tensor);
}

std::shared_ptr<const Codec> UnbiasedCodec(int bits) {
  return MakeCodec(GroupCodecText(bits)).value();
}

double SquaredDistance(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).square().sum().item<double>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StageSaving>> StageSaving::Create(
    const std::string& policy, const StageSavingOptions& options) {
  std::unique_ptr<StageSaving> saving(new StageSaving(options));
  DP_RETURN_IF_ERROR(saving->SetPolicy(policy));
  return {std::move(saving)};
}

absl::Status StageSaving::CheckPolicy(const std::string& text) const {
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<SavedPolicy> policy,
                      MakeSavedPolicy(text));
  if (policy->text() == "none") return absl::OkStatus();
  if (options_.device == "cpu") return CheckHostPolicy(*policy);
  SavedTensor example;
  example.name = "example";
  example.shape = {1, 1024};
  example.num_elements = 1024;
  DP_RETURN_IF_ERROR(CheckDevicePolicy(*policy, example, options_.device));
  return MakePacker().status();
}

absl::StatusOr<std::unique_ptr<TensorPacker>> StageSaving::MakePacker() const {
  if (options_.make_packer != nullptr) return options_.make_packer();
  if (options_.device == "cpu") {
    return std::unique_ptr<TensorPacker>(new HostPacker());
  }
  DP_ASSIGN_OR_RETURN(PackDevice device,
                      MakeCudaPackDevice(at::Device(options_.device)));
  return std::unique_ptr<TensorPacker>(new DevicePacker(std::move(device)));
}

absl::Status StageSaving::SetPolicy(const std::string& text) {
  DP_RETURN_IF_ERROR(CheckPolicy(text));
  DP_ASSIGN_OR_RETURN(std::unique_ptr<SavedPolicy> policy,
                      MakeSavedPolicy(text));
  text_ = policy->text();
  if (text_ == "none") {
    // Graphs in flight hold what they need of the stash.
    stash_ = nullptr;
    return absl::OkStatus();
  }
  measurements_.clear();
  must_plan_ = false;
  if (stash_ != nullptr) {
    stash_->SetPolicy(std::move(policy));
    return absl::OkStatus();
  }
  DP_ASSIGN_OR_RETURN(std::unique_ptr<TensorPacker> packer, MakePacker());
  stash_ = std::make_unique<ActivationStash>(std::move(policy), options_.seed,
                                             std::move(packer));
  stash_->SetWeights(weights_);
  return absl::OkStatus();
}

void StageSaving::SetWeights(const std::vector<at::Tensor>& weights,
                             std::vector<PartRange> ranges) {
  weights_ = weights;
  ranges_ = std::move(ranges);
  if (stash_ != nullptr) stash_->SetWeights(weights_);
}

int StageSaving::recompute_every() const {
  return stash_ == nullptr ? 0 : stash_->policy()->recompute_every();
}

std::vector<std::string> StageSaving::RecomputedLayers() const {
  return stash_ == nullptr ? std::vector<std::string>()
                           : stash_->policy()->RecomputedLayers();
}

absl::Status StageSaving::BeginForward(int64_t step) {
  probes_now_ = false;
  if (stash_ == nullptr) return absl::OkStatus();
  DP_RETURN_IF_ERROR(CheckHookEngine());
  if (step == step_) return absl::OkStatus();
  step_ = step;
  const SavedMeasures measures = stash_->policy()->measures();
  const auto is_due = [&](int64_t every) {
    return every > 0 && step % every == 0;
  };
  probes_now_ = is_due(measures.every_steps) || is_due(options_.probe_every);
  return absl::OkStatus();
}

void StageSaving::Probe(const RunPass& run) {
  // What the passes save is no part of the step, but for the room it takes.
  counted_.Add(stash_->TakeBytes());
  RunPasses(run);
  const SavedBytes passes = stash_->TakeBytes();
  counted_.live_peak = std::max(counted_.live_peak, passes.live_peak);
  counted_.scratch_peak = std::max(counted_.scratch_peak, passes.scratch_peak);
  counted_.offloaded_peak =
      std::max(counted_.offloaded_peak, passes.offloaded_peak);
}

void StageSaving::RunPasses(const RunPass& run) {
  const SavedMeasures measures = stash_->policy()->measures();
  GradientMeter meter;
  std::vector<LayerInput> inputs;
  const at::Tensor exact = run({KeepIt, &meter, 0, &inputs});
  measurements_ = meter.Take();
  NoteRoom(inputs);
  for (SavedMeasurement& measurement : measurements_) {
    // Packers of devices keep codes of zeros, too.
    if (options_.device != "cpu") measurement.nonzero_share = 1;
    double sum = 0;
    int64_t count = 0;
    for (const PartRange& range : ranges_) {
      if (range.part != measurement.tensor.layer) continue;
      sum += exact.narrow(0, range.offset, range.num_elements)
                 .abs()
                 .sum()
                 .item<double>();
      count += range.num_elements;
    }
    if (count > 0) {
      measurement.parameter_gradient_mean_abs =
          sum / static_cast<double>(count);
    }
  }
  if (measures.every_steps > 0 && step_ % measures.every_steps == 0) {
    switch (measures.sensitivities) {
      case SavedMeasures::Sensitivities::kNone:
        break;
      case SavedMeasures::Sensitivities::kByOperator:
        MeasureOperators(run, exact);
        break;
      case SavedMeasures::Sensitivities::kByTensor:
        MeasureTensors(run, exact);
        break;
    }
    must_plan_ = true;
  }
  if (options_.probe_every > 0 && step_ % options_.probe_every == 0) {
    ProbeOperators(run, exact);
  }
}

void StageSaving::NoteRoom(const std::vector<LayerInput>& inputs) {
  room_.layers.clear();
  room_.exempt_bytes = 0;
  room_.head_bytes = 0;
  for (const LayerInput& input : inputs) {
    SavedRoom::Layer layer;
    layer.name = input.layer;
    layer.input_bytes = input.bytes;
    // Kept by then, and so no part of what comes beside it.
    layer.recomputed_bytes = input.is_saved ? -input.bytes : 0;
    room_.layers.push_back(std::move(layer));
  }
  for (const SavedTensorReport& report : stash_->LastForward()) {
    const bool is_weight =
        report.tensor_class == TensorClassName(TensorClass::kWeight);
    const bool is_packed =
        report.tensor_class == TensorClassName(TensorClass::kActivation) ||
        report.tensor_class == TensorClassName(TensorClass::kRelu);
    const int64_t exempt = is_packed ? 0 : report.stored_bytes;
    room_.exempt_bytes += exempt;
    if (report.layer == "head" || report.layer == "loss") {
      room_.head_bytes += exempt;
    }
    for (SavedRoom::Layer& layer : room_.layers) {
      if (layer.name != report.layer) continue;
      layer.exempt_bytes += exempt;
      // Masks and integers are not narrowed then.
      layer.recomputed_bytes +=
          is_weight ? 0 : std::max(report.raw_bytes, report.stored_bytes);
    }
  }
}

void StageSaving::ProbeOperators(const RunPass& run, const at::Tensor& exact) {
  const double norm = exact.square().sum().item<double>();
  if (!std::isfinite(norm) || norm == 0) return;
  std::set<std::string> ops;
  SavedPolicy* const policy = stash_->policy();
  for (const SavedMeasurement& measurement : measurements_) {
    if (policy->Treat(measurement.tensor).codec != nullptr) {
      ops.insert(measurement.tensor.op);
    }
  }
  findings_.errors.clear();
  for (const std::string& op : ops) {
    const at::Tensor gradient =
        run({[&](const SavedTensor& tensor) {
               return tensor.op == op ? policy->Treat(tensor)
                                      : KeepItOrItsOutput(tensor, *policy);
             },
             nullptr, 0});
    const double error = std::sqrt(SquaredDistance(gradient, exact) / norm);
    findings_.errors.push_back({op, error});
    if (!(error <= options_.error_limit)) {
      Raise(op, absl::StrFormat("moves the gradient by %.3g of its norm, more "
                                "than compression.saved_error_limit = %g",
                                error, options_.error_limit));
    }
  }
}

void StageSaving::MeasureOperators(const RunPass& run,
                                   const at::Tensor& exact) {
  // Formulas know what an error does where the tensor is read, and not what
  // becomes of it further up; so they only share out what was measured.
  constexpr double kSquaredSteps = 9;  // (2^2 - 1)^2
  const auto two_bits = UnbiasedCodec(2);
  // The operators that compute and read a tensor.
  const auto ends = [](const SavedMeasurement& measurement) {
    return absl::StrCat(measurement.tensor.op, " ", measurement.reader);
  };
  std::map<std::string, std::set<std::string>> names;
  std::map<std::string, double> sums;
  for (const SavedMeasurement& measurement : measurements_) {
    const double variance = GradientVariance(measurement);
    names[ends(measurement)].insert(measurement.tensor.name);
    sums[ends(measurement)] += std::isfinite(variance) ? variance : 0;
  }
  // What the tensors of one group do to the gradient, or their derivatives.
  const auto at_one_bit = [&](const std::set<std::string>& group,
                              bool takes_substitute) {
    const at::Tensor gradient = run(
        {[&](const SavedTensor& tensor) {
           if (group.count(tensor.name) > 0) {
             return SavedTreatment{two_bits, false, "probed", takes_substitute};
           }
           return KeepItOrItsOutput(tensor, *stash_->policy());
         },
         nullptr, 1});
    return kSquaredSteps * SquaredDistance(gradient, exact);
  };
  for (const auto& group : names) {
    const double squares = at_one_bit(group.second, false);
    std::set<std::string> with_derivative;
    double derivative_sum = 0;
    for (const SavedMeasurement& measurement : measurements_) {
      if (ends(measurement) == group.first &&
          measurement.tensor.substitute == SavedSubstitute::kDerivative &&
          stash_->policy()->measures().derivatives) {
        with_derivative.insert(measurement.tensor.name);
        derivative_sum += GradientVariance(measurement);
      }
    }
    const double derivative_squares =
        with_derivative.empty() ? 0 : at_one_bit(with_derivative, true);
    const double sum = sums[group.first];
    for (SavedMeasurement& measurement : measurements_) {
      if (ends(measurement) != group.first || sum <= 0) continue;
      const double variance = GradientVariance(measurement);
      measurement.sensitivity = 2 * squares * variance / sum;
      if (with_derivative.count(measurement.tensor.name) > 0) {
        measurement.derivative_sensitivity =
            2 * derivative_squares * variance / derivative_sum;
      }
    }
  }
}

void StageSaving::MeasureTensors(const RunPass& run, const at::Tensor& exact) {
  // GACT, arXiv 2206.11357, section 4: the gradient with one tensor at 1 bit
  // under two keys, and at 8 bits.
  const auto one_bit = UnbiasedCodec(1);
  const auto eight_bits = UnbiasedCodec(8);
  for (SavedMeasurement& measurement : measurements_) {
    const auto alone = [&](const std::shared_ptr<const Codec>& codec,
                           uint64_t key_salt) {
      return run({[&](const SavedTensor& tensor) {
                    return tensor.name == measurement.tensor.name
                               ? SavedTreatment{codec, false, "probed"}
                               : KeepIt(tensor);
                  },
                  nullptr, key_salt});
    };
    const at::Tensor first = alone(one_bit, 1);
    const at::Tensor second = alone(one_bit, 2);
    const at::Tensor fine = alone(eight_bits, 3);
    measurement.sensitivity = std::max({SquaredDistance(first, second),
                                        2 * SquaredDistance(first, fine),
                                        2 * SquaredDistance(second, fine)});
  }
}

void StageSaving::Raise(const std::string& op, const std::string& why) {
  const std::string change = stash_->policy()->Raise(op);
  if (change.empty()) return;
  findings_.changes.push_back(
      absl::StrCat("step ", step_ + 1, ": ", op, " ", why, ": ", change));
}

absl::Status StageSaving::EndStep() {
  if (stash_ == nullptr) return absl::OkStatus();
  DP_RETURN_IF_ERROR(stash_->ReadDevice());
  if (!must_plan_) return absl::OkStatus();
  must_plan_ = false;
  stash_->policy()->SetRoom(room_);
  const absl::Status status = stash_->policy()->Plan(step_ + 1, measurements_);
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat("compression.saved_activations: ", text_,
                   ": no plan after step ", step_ + 1, ": ", status.message()));
}

void StageSaving::NoteNotFinite(int64_t step) {
  if (stash_ == nullptr) return;
  step_ = std::max(step_, step);
  std::set<std::string> ops;
  for (const SavedTensorReport& report : stash_->LastForward()) {
    ops.insert(report.op);
  }
  for (const std::string& op : ops) {
    Raise(op, "is in a step whose loss or gradient was not finite");
  }
}

SavedBytes StageSaving::TakeBytes() {
  SavedBytes bytes = std::exchange(counted_, SavedBytes());
  if (stash_ != nullptr) bytes.Add(stash_->TakeBytes());
  return bytes;
}

int64_t StageSaving::live_bytes() const {
  return stash_ == nullptr ? 0 : stash_->live_bytes();
}

std::vector<SavedTensorReport> StageSaving::LastForward() const {
  return stash_ == nullptr ? std::vector<SavedTensorReport>()
                           : stash_->LastForward();
}

SavedFindings StageSaving::TakeFindings() {
  return std::exchange(findings_, SavedFindings());
}

// "SIZE\n" and the policy's state, then for each memory "COUNT NAME\n" and its
// floats as they lie in memory.
std::string StageSaving::Save() const {
  if (stash_ == nullptr) return "";
  const std::string policy = stash_->policy()->Save();
  std::string state = absl::StrCat(policy.size(), "\n", policy);
  for (const auto& [name, memory] : stash_->memories()) {
    absl::StrAppend(&state, memory.size(), " ", name, "\n");
    state.append(reinterpret_cast<const char*>(memory.data()),
                 memory.size() * sizeof(float));
  }
  return state;
}

absl::Status StageSaving::Restore(absl::string_view state) {
  if (stash_ == nullptr || state.empty()) return absl::OkStatus();
  const auto is_cut = [] {
    return absl::DataLossError(
        "the checkpoint's state of saved activations is cut short");
  };
  // Takes a line and the bytes that it counts.
  const auto take = [&](std::string* name, size_t unit,
                        absl::string_view* bytes) {
    const size_t end = state.find('\n');
    if (end == absl::string_view::npos) return false;
    const absl::string_view line = state.substr(0, end);
    state.remove_prefix(end + 1);
    const size_t space = line.find(' ');
    uint64_t count = 0;
    if (!absl::SimpleAtoi(line.substr(0, space), &count) ||
        count > state.size() / unit) {
      return false;
    }
    *name = space == absl::string_view::npos
                ? ""
                : std::string(line.substr(space + 1));
    *bytes = state.substr(0, count * unit);
    state.remove_prefix(count * unit);
    return true;
  };
  std::string name;
  absl::string_view bytes;
  if (!take(&name, 1, &bytes)) return is_cut();
  const absl::string_view former = PolicyOfState(bytes);
  if (!former.empty() && former != text_) {
    const auto undecided = MakeSavedPolicy(former);
    if (!state.empty() || !undecided.ok() || (*undecided)->Save() != bytes) {
      findings_.changes.push_back(
          absl::StrCat("what ", former, " had measured and decided in the ",
                       "checkpoint is left out, the policy is ", text_));
    }
    return absl::OkStatus();
  }
  DP_RETURN_IF_ERROR(stash_->policy()->Restore(bytes));
  ActivationStash::Memories memories;
  while (!state.empty()) {
    if (!take(&name, sizeof(float), &bytes)) return is_cut();
    std::vector<float>& memory = memories[name];
    memory.resize(bytes.size() / sizeof(float));
    std::memcpy(memory.data(), bytes.data(), bytes.size());
  }
  stash_->SetMemories(std::move(memories));
  return absl::OkStatus();
}

}  // namespace deltapipe
