// ElementwiseStage: the fake of Stage. A layer multiplies each element by its
// own weight and adds another; the loss is the mean squared distance to the
// targets.
//
// Small enough to differentiate by hand and to run thousands of steps without
// LibTorch, yet with real weights, gradients and a loss that falls.
#ifndef DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_
#define DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/stage.h"

namespace deltapipe {

class ElementwiseStage : public Stage {
 public:
  /// `elements` per sample is context x width of the spec.
  ElementwiseStage(const v1::JobSpec& spec, int first_layer, int end_layer)
      : is_first_(first_layer == 0),
        is_last_(end_layer == spec.model().layers()),
        context_(spec.model().context()),
        width_(spec.model().width()) {
    for (int layer = first_layer; layer < end_layer; ++layer) {
      for (const char* kind : {"gain", "shift"}) {
        ParameterSegment segment;
        segment.name = absl::StrCat("layers.", layer, ".", kind);
        segment.shape = {width_};
        segment.num_elements = width_;
        layout_.segments.push_back(segment);
      }
    }
    std::sort(layout_.segments.begin(), layout_.segments.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    for (ParameterSegment& segment : layout_.segments) {
      segment.offset = layout_.num_elements;
      layout_.num_elements += segment.num_elements;
    }
    weights_.resize(static_cast<size_t>(layout_.num_elements));
    gradients_.resize(weights_.size());
    for (const ParameterSegment& segment : layout_.segments) {
      const bool is_gain = segment.name.back() == 'n';
      FillInitialWeights(
          spec.seed(), segment.name, is_gain ? 1 : 0, 0.1,
          weights().subspan(static_cast<size_t>(segment.offset),
                            static_cast<size_t>(segment.num_elements)));
    }
  }

  /// Called with (step, micro-batch) before each Forward; may change gradients,
  /// block or fail.
  std::function<absl::Status(int64_t, int)> before_forward;

  const ParameterLayout& parameters() const override { return layout_; }
  absl::Span<float> weights() override { return absl::MakeSpan(weights_); }
  absl::Span<float> gradients() override { return absl::MakeSpan(gradients_); }
  absl::Status WeightsChanged() override {
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
    return absl::OkStatus();
  }
  int64_t boundary_elements() const override { return context_ * width_; }

  absl::Status Forward(const StageInput& input, StageOutput* output) override {
    if (before_forward) {
      const absl::Status status = before_forward(input.step, input.microbatch);
      if (!status.ok()) return status;
    }
    const size_t elements =
        static_cast<size_t>(input.num_samples * boundary_elements());
    Kept kept;
    kept.loss_scale = input.loss_scale;
    std::vector<float> value(elements);
    for (size_t i = 0; i < elements; ++i) {
      value[i] =
          is_first_ ? Embed(input.tokens, i) : input.activation.values[i];
    }
    for (size_t layer = 0; layer < layout_.segments.size() / 2; ++layer) {
      kept.inputs.push_back(value);
      for (size_t i = 0; i < elements; ++i) {
        value[i] = value[i] * Gain(layer, i) + Shift(layer, i);
      }
    }
    if (is_last_) {
      double loss = 0;
      kept.error.resize(elements);
      for (size_t i = 0; i < elements; ++i) {
        kept.error[i] = value[i] - Embed(input.targets, i);
        loss += 0.5 * kept.error[i] * kept.error[i];
      }
      output->loss = loss / static_cast<double>(elements);
    } else {
      auto owned = std::make_shared<std::vector<float>>(std::move(value));
      output->activation = {*owned, owned};
    }
    if (input.needs_backward) kept_[input.microbatch] = std::move(kept);
    return absl::OkStatus();
  }

  absl::StatusOr<TensorRef> Backward(int microbatch,
                                     const TensorRef& gradient) override {
    const auto found = kept_.find(microbatch);
    if (found == kept_.end()) {
      return absl::FailedPreconditionError("backward without a forward");
    }
    Kept kept = std::move(found->second);
    kept_.erase(found);
    std::vector<float> value(gradient.values.begin(), gradient.values.end());
    if (is_last_) {
      value = kept.error;
      for (float& v : value) {
        v *= kept.loss_scale / static_cast<float>(kept.error.size());
      }
    }
    for (size_t layer = layout_.segments.size() / 2; layer-- > 0;) {
      for (size_t i = 0; i < value.size(); ++i) {
        gradients_[Index(layer, 0, i)] += value[i] * kept.inputs[layer][i];
        gradients_[Index(layer, 1, i)] += value[i];
        value[i] *= Gain(layer, i);
      }
    }
    if (is_first_) return TensorRef();
    auto owned = std::make_shared<std::vector<float>>(std::move(value));
    return TensorRef{*owned, owned};
  }

 private:
  struct Kept {
    std::vector<std::vector<float>> inputs;
    std::vector<float> error;
    float loss_scale = 1;
  };

  size_t Index(size_t layer, size_t kind, size_t i) const {
    return static_cast<size_t>(layout_.segments[2 * layer + kind].offset) +
           i % static_cast<size_t>(width_);
  }
  float Gain(size_t layer, size_t i) const {
    return weights_[Index(layer, 0, i)];
  }
  float Shift(size_t layer, size_t i) const {
    return weights_[Index(layer, 1, i)];
  }
  float Embed(absl::Span<const uint8_t> bytes, size_t i) const {
    const size_t position = i / static_cast<size_t>(width_);
    const size_t column = i % static_cast<size_t>(width_);
    return static_cast<float>((bytes[position] * (2 * column + 1)) % 101) /
               50.0f -
           1.0f;
  }

  const bool is_first_;
  const bool is_last_;
  const int64_t context_;
  const int64_t width_;
  ParameterLayout layout_;
  std::vector<float> weights_;
  std::vector<float> gradients_;
  std::map<int, Kept> kept_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_
