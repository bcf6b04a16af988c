// Stages without a model: they wait as long as the real ones would compute and
// exchange tensors of the real shape.
//
// A sample's activation in epoch v is a cos(v d) + b sin(v d), where a and b
// are windows of one pool of normal numbers chosen by (stage, sample): its norm
// stays and it changes by `drift` relative to itself from epoch to epoch.
//
// Parameters and time are shared out evenly over the stage's layers; gradients
// are final from the last layer to the first.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

class SyntheticStage : public Stage {
 public:
  SyntheticStage(const v1::JobSpec& spec, int stage, int num_stages,
                 Nanos forward_time, Nanos backward_time)
      : is_first_(stage == 0),
        is_last_(stage + 1 == num_stages),
        shape_{spec.model().context(), spec.model().width()},
        angle_(2 * std::asin(spec.model().synthetic().drift() / 2)),
        forward_time_(forward_time),
        backward_time_(backward_time),
        pool_(std::make_shared<std::vector<float>>(
            static_cast<size_t>(output_elements() + kOffsets))) {
    FillInitialWeights(spec.seed(), absl::StrCat("synthetic.", stage), 0, 1,
                       absl::MakeSpan(*pool_));
    const int64_t parameters = spec.model().synthetic().parameters_per_stage();
    const int64_t layers =
        std::max<int64_t>(spec.model().layers() / num_stages, 1);
    for (int64_t layer = 0; layer < layers; ++layer) {
      const ElementRange range = {
          parameters / layers * layer,
          layer + 1 == layers ? parameters : parameters / layers * (layer + 1)};
      if (range.begin == range.end) continue;
      ParameterSegment weight;
      weight.name = absl::StrFormat("synthetic.%d.%04d.weight", stage, layer);
      weight.offset = range.begin;
      weight.num_elements = range.end - range.begin;
      weight.shape = {weight.num_elements};
      layout_.segments.push_back(std::move(weight));
    }
    layout_.num_elements = parameters;
    weights_.resize(static_cast<size_t>(parameters));
    gradients_.resize(static_cast<size_t>(parameters), 1e-3f);
    FillInitialWeights(spec.seed(), "synthetic.weight", 0, 0.02,
                       absl::MakeSpan(weights_));
  }

  const ParameterLayout& parameters() const override { return layout_; }
  absl::Span<float> weights() override { return absl::MakeSpan(weights_); }
  absl::Span<float> gradients() override { return absl::MakeSpan(gradients_); }
  absl::Status WeightsChanged() override {
    std::fill(gradients_.begin(), gradients_.end(), 1e-3f);
    return absl::OkStatus();
  }
  BoundaryShape input_shape() const override { return shape_; }
  BoundaryShape output_shape() const override { return shape_; }

  absl::Status Forward(const StageInput& input, StageOutput* output) override {
    const Nanos end = Clock::Real()->Now() + forward_time_;
    if (!is_last_) {
      std::vector<double> angles;
      std::vector<uint64_t> ids;
      for (uint64_t key : input.sample_keys) {
        angles.push_back(angle_ * static_cast<double>(input.epoch));
        ids.push_back(key);
      }
      output->activation = Make(ids, angles);
    }
    if (input.needs_backward) {
      // Gradients of one sample have little to do with each other.
      std::vector<uint64_t>& ids = gradient_ids_[input.microbatch];
      ids.clear();
      for (uint64_t key : input.sample_keys) {
        ids.push_back(key * 31 + static_cast<uint64_t>(input.epoch));
      }
    }
    Clock::Real()->SleepUntil(end, nullptr);
    return absl::OkStatus();
  }

  absl::StatusOr<TensorRef> Backward(int microbatch,
                                     const TensorRef& gradient) override {
    const Nanos begin = Clock::Real()->Now();
    const auto found = gradient_ids_.find(microbatch);
    if (found == gradient_ids_.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "backward of micro-batch ", microbatch, " without its forward"));
    }
    TensorRef result;
    if (!is_first_) {
      const std::vector<uint64_t>& ids = found->second;
      // One window as it is needs no copy: the processor is for the codecs.
      result = ids.size() == 1
                   ? TensorRef{{Window(ids[0] * kMix >> 48),
                                static_cast<size_t>(output_elements())},
                               pool_}
                   : Make(ids, std::vector<double>(ids.size(), 0.0));
    }
    gradient_ids_.erase(found);
    if (on_final_) TellOfLayers(begin);
    Clock::Real()->SleepUntil(begin + backward_time_, nullptr);
    return result;
  }

  std::vector<ElementRange> gradient_order() const override {
    std::vector<ElementRange> order;
    for (const ParameterSegment& segment : layout_.segments) {
      order.insert(order.begin(), RangeOf(segment));
    }
    return order;
  }
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    on_final_ = std::move(on_final);
    return true;
  }

  SavedActivations* saved_activations() override { return nullptr; }

 private:
  static constexpr int64_t kOffsets = 1 << 16;
  static constexpr uint64_t kMix = 0x9E3779B97F4A7C15ull;

  /// Of all but the first one, each when its share of the time is over.
  void TellOfLayers(Nanos begin) {
    const std::vector<ElementRange> order = gradient_order();
    const int64_t layers = static_cast<int64_t>(order.size());
    int64_t num_final = 0;
    for (int64_t i = 0; i + 1 < layers; ++i) {
      Clock::Real()->SleepUntil(begin + backward_time_ * (i + 1) / layers,
                                nullptr);
      num_final += order[static_cast<size_t>(i)].end -
                   order[static_cast<size_t>(i)].begin;
      on_final_(num_final);
    }
    on_final_ = nullptr;
  }

  TensorRef Make(const std::vector<uint64_t>& ids,
                 const std::vector<double>& angles) {
    const size_t row = static_cast<size_t>(output_elements());
    auto bytes = std::make_shared<Buffer>(
        static_cast<int64_t>(ids.size() * row * sizeof(float)));
    float* values = reinterpret_cast<float*>(bytes->data());
    for (size_t i = 0; i < ids.size(); ++i) {
      const uint64_t mixed = ids[i] * kMix;
      const float* a = Window(mixed >> 48);
      const float* b = Window(mixed >> 32);
      const float cosine = static_cast<float>(std::cos(angles[i]));
      const float sine = static_cast<float>(std::sin(angles[i]));
      float* out = values + i * row;
      for (size_t k = 0; k < row; ++k) {
        out[k] = cosine * a[k] + sine * b[k];
      }
    }
    return {{values, ids.size() * row}, bytes};
  }

  const float* Window(uint64_t offset) const {
    return pool_->data() + offset % kOffsets;
  }

  const bool is_first_;
  const bool is_last_;
  const BoundaryShape shape_;
  const double angle_;
  const Nanos forward_time_;
  const Nanos backward_time_;
  const std::shared_ptr<std::vector<float>> pool_;
  ParameterLayout layout_;
  std::vector<float> weights_;
  std::vector<float> gradients_;
  std::map<int, std::vector<uint64_t>> gradient_ids_;  // by micro-batch
  std::function<void(int64_t)> on_final_;  // of the next Backward, or null
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> MakeSyntheticStage(
    const v1::JobSpec& spec, int stage, int num_stages) {
  const v1::SyntheticSpec& synthetic = spec.model().synthetic();
  DP_ASSIGN_OR_RETURN(const Nanos forward_time,
                      ParseDuration(synthetic.forward_time()));
  DP_ASSIGN_OR_RETURN(const Nanos backward_time,
                      ParseDuration(synthetic.backward_time()));
  return std::make_unique<SyntheticStage>(spec, stage, num_stages, forward_time,
                                          backward_time);
}

}  // namespace deltapipe
