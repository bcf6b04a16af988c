#include "worker/stage/explain_saved.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "nlohmann/json.hpp"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrJoin(shape, "x");
}

struct ClassSum {
  int64_t tensors = 0;
  int64_t raw = 0;
  int64_t stored = 0;
};

std::map<std::string, ClassSum> SumsByClass(
    const std::vector<SavedTensorReport>& tensors) {
  std::map<std::string, ClassSum> sums;
  for (const SavedTensorReport& tensor : tensors) {
    ClassSum& sum = sums[tensor.tensor_class];
    ++sum.tensors;
    sum.raw += tensor.raw_bytes;
    sum.stored += tensor.stored_bytes;
  }
  return sums;
}

double Ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0
                    : static_cast<double>(part) / static_cast<double>(whole);
}

/// "gelu/0": with the layer, a tensor's name as errors have it; a long one is
/// cut, as "scaled_dot_product_f~/0".
std::string NumberedOperator(const SavedTensorReport& tensor) {
  constexpr size_t kLongest = 23;
  const size_t slash = tensor.name.rfind('/');
  const std::string number =
      slash == std::string::npos ? "" : tensor.name.substr(slash);
  if (tensor.op.size() + number.size() <= kLongest) return tensor.op + number;
  return absl::StrCat(tensor.op.substr(0, kLongest - number.size() - 1), "~",
                      number);
}

/// That each element takes, wherever it is, scales and masks included.
double BitsOf(const SavedTensorReport& tensor) {
  double elements = 1;
  for (const int64_t extent : tensor.shape) {
    elements *= static_cast<double>(extent);
  }
  return 8.0 * static_cast<double>(tensor.stored_bytes + tensor.host_bytes) /
         elements;
}

/// Of its operator, as probed; nothing of what no probe packs.
std::optional<double> ErrorOf(const SavedExplanation& explanation,
                              const SavedTensorReport& tensor) {
  const bool is_packed =
      tensor.stored_bytes + tensor.host_bytes < tensor.raw_bytes &&
      (tensor.tensor_class == "activation" || tensor.tensor_class == "relu");
  if (!is_packed) return std::nullopt;
  for (const SavedFindings::Error& error : explanation.errors) {
    if (error.op == tensor.op) return error.relative_error;
  }
  return std::nullopt;
}

/// Of a cut into even stages, the one that begins with the layer.
int StageThatBeginsWith(const v1::JobSpec& spec, int first_layer) {
  const int num_stages = std::max(spec.parallel().stages(), 1);
  int stage = 0;
  while (stage + 1 < num_stages &&
         spec.model().layers() * (stage + 1) / num_stages <= first_layer) {
    ++stage;
  }
  return stage;
}

}  // namespace

absl::StatusOr<SavedExplanation> ExplainSaved(v1::JobSpec spec, int first_layer,
                                              int end_layer,
                                              const std::string& device) {
  const int num_layers = spec.model().layers();
  // The layers around it are not of interest.
  v1::JobSpec plain = spec;
  plain.mutable_compression()->set_saved_activations("none");
  spec.mutable_compression()->set_saved_probe_every(2);
  std::unique_ptr<Stage> before;
  std::unique_ptr<Stage> after;
  if (first_layer > 0) {
    DP_ASSIGN_OR_RETURN(before, MakeTorchStage(plain, 0, first_layer, device));
  }
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                      MakeTorchStage(spec, first_layer, end_layer, device));
  if (end_layer < num_layers) {
    DP_ASSIGN_OR_RETURN(after,
                        MakeTorchStage(plain, end_layer, num_layers, device));
  }
  SavedActivations* const saved = stage->saved_activations();
  if (saved == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "a ", spec.model().kind(), " model saves nothing for backward passes"));
  }

  const SampleInput sample(spec.model(), spec.train().microbatch());
  StageInput input = sample.input();
  StageOutput output;
  if (before != nullptr) {
    DP_RETURN_IF_ERROR(before->Forward(input, &output));
    input.activation = std::move(output.activation);
  }
  SavedExplanation explanation;
  // Policies that plan do so after the first step. The second one is as planned
  // and without a probe, whose passes keep everything as it is; the third one's
  // errors are those of the plan.
  for (int64_t step = 0; step < 3; ++step) {
    input.step = step;
    input.stage = StageThatBeginsWith(spec, first_layer);
    saved->TakeBytes();
    DP_RETURN_IF_ERROR(stage->Forward(input, &output));
    if (step == 1) explanation.tensors = saved->LastForward();
    TensorRef gradient;
    if (after != nullptr) {
      StageInput next = sample.input();
      next.activation = std::move(output.activation);
      DP_RETURN_IF_ERROR(after->Forward(next, &output));
      DP_ASSIGN_OR_RETURN(gradient, after->Backward(0, TensorRef()));
    }
    DP_RETURN_IF_ERROR(stage->Backward(0, gradient).status());
    if (step == 1) explanation.bytes = saved->TakeBytes();
    DP_RETURN_IF_ERROR(stage->WeightsChanged());
  }
  explanation.first_layer = first_layer;
  explanation.end_layer = end_layer;
  explanation.policy = spec.compression().saved_activations();
  explanation.errors = saved->TakeFindings().errors;
  return explanation;
}

namespace {

/// Columns are as wide as they need.
std::string TensorTable(const SavedExplanation& explanation,
                        const std::vector<const SavedTensorReport*>& largest) {
  constexpr size_t kWidth = 100;
  size_t layer_width = 5;
  size_t operator_width = 8;
  size_t shape_width = 5;
  for (const SavedTensorReport* tensor : largest) {
    layer_width = std::max(layer_width, tensor->layer.size());
    operator_width = std::max(operator_width, NumberedOperator(*tensor).size());
    shape_width = std::max(shape_width, ShapeText(tensor->shape).size());
  }
  const auto row = [&](const std::string& layer, const std::string& op,
                       const std::string& shape, const std::string& its_class,
                       const std::string& bits, const std::string& raw,
                       const std::string& kept, const std::string& error,
                       const std::string& shared) {
    return absl::StrFormat("%-*s %-*s %-*s %-10s %5s %8s %8s %7s %6s",
                           static_cast<int>(layer_width), layer,
                           static_cast<int>(operator_width), op,
                           static_cast<int>(shape_width), shape, its_class,
                           bits, raw, kept, error, shared);
  };
  std::string text = absl::StrCat(row("LAYER", "OPERATOR", "SHAPE", "CLASS",
                                      "BITS", "RAW", "KEPT", "ERROR", "SHARED"),
                                  " HOW\n");
  for (const SavedTensorReport* tensor : largest) {
    const double bits = BitsOf(*tensor);
    const std::optional<double> error = ErrorOf(explanation, *tensor);
    const std::string line = row(
        tensor->layer, NumberedOperator(*tensor), ShapeText(tensor->shape),
        tensor->tensor_class, bits > 0 ? absl::StrFormat("%.2f", bits) : "-",
        FormatBytes(tensor->raw_bytes), FormatBytes(tensor->stored_bytes),
        error.has_value() ? absl::StrFormat("%.2g", *error) : "-",
        absl::StrCat(tensor->num_aliases));
    // A long reason has a line of its own.
    const bool fits = line.size() + 1 + tensor->reason.size() <= kWidth;
    absl::StrAppend(&text, line, fits ? " " : "\n    ", tensor->reason, "\n");
  }
  return text;
}

}  // namespace

std::string ExplanationText(const SavedExplanation& explanation, int num_rows) {
  std::vector<const SavedTensorReport*> largest;
  for (const SavedTensorReport& tensor : explanation.tensors) {
    largest.push_back(&tensor);
  }
  std::stable_sort(
      largest.begin(), largest.end(),
      [](const auto* a, const auto* b) { return a->raw_bytes > b->raw_bytes; });
  largest.resize(
      std::min(largest.size(), static_cast<size_t>(std::max(num_rows, 0))));
  std::string text = absl::StrFormat(
      "Layers %d to %d, %s, one micro-batch: %d tensors saved, %d of them "
      "shared; the %d largest:\n\n",
      explanation.first_layer, explanation.end_layer - 1, explanation.policy,
      explanation.bytes.num_tensors, explanation.bytes.num_shared,
      largest.size());
  absl::StrAppend(&text, TensorTable(explanation, largest));
  absl::StrAppendFormat(&text, "\n%-10s %8s %10s %10s %7s\n", "CLASS",
                        "TENSORS", "RAW", "KEPT", "RATIO");
  ClassSum all;
  const auto add_row = [&](const std::string& name, const ClassSum& sum) {
    absl::StrAppendFormat(&text, "%-10s %8d %10s %10s %7.3f\n", name,
                          sum.tensors, FormatBytes(sum.raw),
                          FormatBytes(sum.stored), Ratio(sum.stored, sum.raw));
  };
  for (const auto& [name, sum] : SumsByClass(explanation.tensors)) {
    add_row(name, sum);
    all.tensors += sum.tensors;
    all.raw += sum.raw;
    all.stored += sum.stored;
  }
  add_row("all", all);
  absl::StrAppendFormat(&text,
                        "beside them %s to keep track, and %s of scratch "
                        "memory at most\n",
                        FormatBytes(explanation.bytes.metadata),
                        FormatBytes(explanation.bytes.scratch_peak));
  absl::StrAppendFormat(&text, "at most %s at a time",
                        FormatBytes(explanation.bytes.live_peak));
  if (explanation.bytes.recomputed_peak > 0) {
    absl::StrAppendFormat(&text,
                          ", with %s of layers while they are computed again",
                          FormatBytes(explanation.bytes.recomputed_peak));
  }
  if (explanation.bytes.offloaded_peak > 0) {
    absl::StrAppendFormat(&text, ", and %s in host memory",
                          FormatBytes(explanation.bytes.offloaded_peak));
  }
  absl::StrAppend(&text, "\n");
  if (explanation.errors.empty()) return text;
  absl::StrAppend(&text,
                  "\nHow far the stage's gradient moves if the tensors of one "
                  "operator are packed:\n");
  for (const SavedFindings::Error& error : explanation.errors) {
    absl::StrAppendFormat(&text, "  %-20s %.3g\n", error.op,
                          error.relative_error);
  }
  return text;
}

std::string ExplanationJson(const SavedExplanation& explanation) {
  std::string lines;
  for (const SavedTensorReport& tensor : explanation.tensors) {
    Json object;
    object["schema"] = "deltapipe.lab.SavedTensor";
    object["tensor"] = tensor.name;
    object["layer"] = tensor.layer;
    object["operator"] = tensor.op;
    object["shape"] = tensor.shape;
    object["dtype"] = tensor.dtype;
    object["class"] = tensor.tensor_class;
    object["shared"] = tensor.num_aliases;
    object["raw_bytes"] = tensor.raw_bytes;
    object["kept_bytes"] = tensor.stored_bytes;
    object["host_bytes"] = tensor.host_bytes;
    object["bits"] = BitsOf(tensor);
    const std::optional<double> error = ErrorOf(explanation, tensor);
    object["error"] = error.has_value() ? Json(*error) : Json(nullptr);
    object["how"] = tensor.reason;
    absl::StrAppend(&lines, object.dump(), "\n");
  }
  Json sums;
  sums["schema"] = "deltapipe.lab.SavedSums";
  sums["policy"] = explanation.policy;
  sums["first_layer"] = explanation.first_layer;
  sums["end_layer"] = explanation.end_layer;
  sums["tensors"] = explanation.bytes.num_tensors;
  sums["shared"] = explanation.bytes.num_shared;
  sums["raw_bytes"] = explanation.bytes.raw;
  sums["unique_bytes"] = explanation.bytes.unique;
  sums["packed_bytes"] = explanation.bytes.packed;
  sums["passed_bytes"] = explanation.bytes.passed;
  sums["offloaded_bytes"] = explanation.bytes.offloaded;
  sums["metadata_bytes"] = explanation.bytes.metadata;
  sums["peak_bytes"] = explanation.bytes.live_peak;
  sums["offloaded_peak_bytes"] = explanation.bytes.offloaded_peak;
  sums["recomputed_peak_bytes"] = explanation.bytes.recomputed_peak;
  sums["scratch_peak_bytes"] = explanation.bytes.scratch_peak;
  sums["errors"] = Json::object();
  for (const SavedFindings::Error& error : explanation.errors) {
    sums["errors"][error.op] = error.relative_error;
  }
  absl::StrAppend(&lines, sums.dump(), "\n");
  return lines;
}

}  // namespace deltapipe
