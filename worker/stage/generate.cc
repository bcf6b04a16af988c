#include "worker/stage/generate.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "base/image_model.h"
#include "base/philox.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

constexpr size_t kVocabulary = 256;

absl::StatusOr<std::unique_ptr<PartialModel>> LoadModel(const std::string& path,
                                                        v1::JobSpec* spec) {
  DP_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path));
  const auto found = file.metadata().find("spec");
  if (found == file.metadata().end() ||
      !google::protobuf::util::JsonStringToMessage(found->second, spec).ok() ||
      spec->model().layers() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " was not written by deltapipe: its metadata holds no job spec"));
  }
  if (IsImageModel(spec->model().kind())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds a model of images (", spec->model().kind(),
                     "), which writes no text: expected gpt or mlp"));
  }
  std::unique_ptr<PartialModel> model =
      MakeModel(spec->model(), 0, spec->model().layers());
  at::NoGradGuard no_grad;
  for (NamedParameter& parameter : model->Parameters()) {
    DP_ASSIGN_OR_RETURN(std::vector<float> values,
                        file.FloatValues(parameter.name));
    if (static_cast<int64_t>(values.size()) != parameter.tensor.numel()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", parameter.name, " has ", values.size(),
          " elements, expected ", parameter.tensor.numel()));
    }
    parameter.tensor.copy_(
        at::from_blob(values.data(), parameter.tensor.sizes(), at::kFloat));
  }
  return model;
}

/// Draws from softmax(logits / temperature) with a uniform number in [0, 1).
size_t Draw(const float* logits, double temperature, double uniform) {
  const float* largest = std::max_element(logits, logits + kVocabulary);
  if (temperature <= 0) return static_cast<size_t>(largest - logits);
  std::vector<double> cumulative(kVocabulary);
  double total = 0;
  for (size_t i = 0; i < kVocabulary; ++i) {
    total += std::exp((logits[i] - *largest) / temperature);
    cumulative[i] = total;
  }
  const auto drawn =
      std::upper_bound(cumulative.begin(), cumulative.end(), uniform * total);
  return std::min(static_cast<size_t>(drawn - cumulative.begin()),
                  kVocabulary - 1);
}

}  // namespace

absl::Status GenerateText(const GenerateOptions& options,
                          const std::function<void(char)>& emit) {
  try {
    v1::JobSpec spec;
    DP_ASSIGN_OR_RETURN(const std::unique_ptr<PartialModel> model,
                        LoadModel(options.model_path, &spec));
    at::NoGradGuard no_grad;
    std::string text = options.prompt.empty() ? "\n" : options.prompt;
    const size_t context = static_cast<size_t>(spec.model().context());
    for (int64_t i = 0; i < options.num_bytes; ++i) {
      std::string window =
          text.substr(text.size() > context ? text.size() - context : 0);
      const at::Tensor tokens =
          at::from_blob(window.data(), {1, static_cast<int64_t>(window.size())},
                        at::kByte)
              .to(at::kLong);
      const at::Tensor logits =
          model->Forward(tokens).select(0, 0).select(0, -1).contiguous();
      const PhiloxBlock words =
          Philox4x32({static_cast<uint32_t>(i), 0, 0, 0},
                     {static_cast<uint32_t>(options.seed),
                      static_cast<uint32_t>(options.seed >> 32)});
      const char next =
          static_cast<char>(Draw(logits.data_ptr<float>(), options.temperature,
                                 UniformFloat(words[0])));
      text.push_back(next);
      emit(next);
    }
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(
        "cannot write text with ", options.model_path, ": ", error.what()));
  }
}

}  // namespace deltapipe
