// ElementwiseStage: the fake of Stage. A layer multiplies each element by its
// own weight and adds another; the loss is the mean squared distance to the
// targets. With model.tied the last layer multiplies by the first one's
// weights.
//
// Small enough to differentiate by hand and to run thousands of steps without
// LibTorch, yet with real weights, gradients and a loss that falls.
#ifndef DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_
#define DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
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
    const bool is_tied = spec.model().tied() == "on";
    const bool is_shared = is_tied && is_first_ != is_last_;
    const std::string first_gain = "layers.0.gain";
    std::set<std::pair<bool, std::string>> names;  // and whether others have it
    std::vector<std::string> gains;                // by layer
    std::vector<std::string> shifts;
    for (int layer = first_layer; layer < end_layer; ++layer) {
      const bool is_end = is_tied && layer + 1 == spec.model().layers();
      gains.push_back(is_end ? first_gain
                             : absl::StrCat("layers.", layer, ".gain"));
      shifts.push_back(absl::StrCat("layers.", layer, ".shift"));
      names.emplace(is_shared && gains.back() == first_gain, gains.back());
      names.emplace(false, shifts.back());
    }
    std::map<std::string, int64_t> offsets;
    for (const auto& [is_of_others, name] : names) {
      offsets[name] = layout_.num_elements;
      ParameterSegment segment;
      segment.name = name;
      segment.shape = {width_};
      segment.offset = layout_.num_elements;
      segment.num_elements = width_;
      layout_.segments.push_back(segment);
      layout_.num_elements += width_;
      if (is_of_others) layout_.num_tied += width_;
    }
    if (is_shared) layout_.tied_stages = {0, spec.parallel().stages() - 1};
    for (size_t i = 0; i < gains.size(); ++i) {
      offsets_.push_back({offsets[gains[i]], offsets[shifts[i]]});
    }
    // A tensor that two layers use is final with the first of them.
    std::set<int64_t> placed;
    for (size_t i = gains.size(); i-- > 0;) {
      std::vector<int64_t> own = {offsets_[i][1]};
      const bool is_first_use =
          std::find(gains.begin(), gains.end(), gains[i]) ==
          gains.begin() + static_cast<long>(i);
      if (is_first_use) own.insert(own.begin(), offsets_[i][0]);
      for (const int64_t offset : own) {
        if (placed.insert(offset).second) {
          order_.push_back({offset, offset + width_});
        }
      }
      num_final_.push_back(static_cast<int64_t>(order_.size()) * width_);
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

  /// Called with (micro-batch, layer of the stage) before each layer of a
  /// Backward; may fail.
  std::function<absl::Status(int, int)> before_layer_backward;
  /// False: gradients are told of when Backward returns.
  bool tells_early = true;

  /// Inputs of backward passes that somebody else held (TensorRef::read_again).
  int num_inputs_read_again = 0;
  /// True: keeps copies of them all the same.
  bool keeps_inputs = false;

  const ParameterLayout& parameters() const override { return layout_; }
  absl::Span<float> weights() override { return absl::MakeSpan(weights_); }
  absl::Span<float> gradients() override { return absl::MakeSpan(gradients_); }
  absl::Status WeightsChanged() override {
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
    return absl::OkStatus();
  }
  BoundaryShape input_shape() const override { return {context_, width_}; }
  BoundaryShape output_shape() const override { return {context_, width_}; }

  absl::Status Forward(const StageInput& input, StageOutput* output) override {
    if (before_forward) {
      const absl::Status status = before_forward(input.step, input.microbatch);
      if (!status.ok()) return status;
    }
    const size_t elements =
        static_cast<size_t>(input.num_samples * output_elements());
    Kept kept;
    kept.loss_scale = input.loss_scale;
    std::vector<float> value(elements);
    for (size_t i = 0; i < elements; ++i) {
      value[i] =
          is_first_ ? Embed(input.tokens, i) : input.activation.values[i];
    }
    // What somebody holds anyway is asked for again, as real stages do.
    if (!is_first_ && !keeps_inputs) {
      kept.read_input = input.activation.read_again;
    }
    for (size_t layer = 0; layer < offsets_.size(); ++layer) {
      const bool is_held = layer == 0 && kept.read_input != nullptr;
      kept.inputs.push_back(is_held ? std::vector<float>(elements) : value);
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
    if (kept.read_input != nullptr) {
      const absl::Status status =
          kept.read_input(absl::MakeSpan(kept.inputs[0]));
      if (!status.ok()) return status;
      ++num_inputs_read_again;
    }
    std::vector<float> value(gradient.values.begin(), gradient.values.end());
    if (is_last_) {
      value = kept.error;
      for (float& v : value) {
        v *= kept.loss_scale / static_cast<float>(kept.error.size());
      }
    }
    const auto on_final = std::exchange(on_final_, nullptr);
    for (size_t layer = offsets_.size(); layer-- > 0;) {
      if (before_layer_backward) {
        const absl::Status status =
            before_layer_backward(microbatch, static_cast<int>(layer));
        if (!status.ok()) return status;
      }
      for (size_t i = 0; i < value.size(); ++i) {
        gradients_[Index(layer, 0, i)] += value[i] * kept.inputs[layer][i];
        gradients_[Index(layer, 1, i)] += value[i];
        value[i] *= Gain(layer, i);
      }
      if (on_final) on_final(num_final_[offsets_.size() - 1 - layer]);
    }
    if (is_first_) return TensorRef();
    auto owned = std::make_shared<std::vector<float>>(std::move(value));
    return TensorRef{*owned, owned};
  }

  std::vector<ElementRange> gradient_order() const override { return order_; }
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    if (tells_early) on_final_ = std::move(on_final);
    return tells_early;
  }

  SavedActivations* saved_activations() override { return nullptr; }

 private:
  struct Kept {
    std::vector<std::vector<float>> inputs;
    std::function<absl::Status(absl::Span<float>)> read_input;
    std::vector<float> error;
    float loss_scale = 1;
  };

  size_t Index(size_t layer, size_t kind, size_t i) const {
    return static_cast<size_t>(offsets_[layer][kind]) +
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
  std::vector<std::array<int64_t, 2>> offsets_;  // of each layer's gain, shift
  std::vector<ElementRange> order_;              // as gradient_order()
  std::vector<int64_t> num_final_;               // after each layer's backward
  std::function<void(int64_t)> on_final_;
  std::vector<float> weights_;
  std::vector<float> gradients_;
  std::map<int, Kept> kept_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_TESTING_ELEMENTWISE_STAGE_H_
