// Stages without a model: they wait as long as the real ones would compute and
// exchange tensors of the real shape.
//
// A sample's activation in epoch v is a cos(v d) + b sin(v d), where a and b
// are windows of one pool of normal numbers chosen by (stage, sample): its norm
// stays and it changes by `drift` relative to itself from epoch to epoch.
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
    if (parameters > 0) {
      ParameterSegment weight;
      weight.name = absl::StrCat("synthetic.", stage, ".weight");
      weight.shape = {parameters};
      weight.num_elements = parameters;
      layout_.segments.push_back(std::move(weight));
      layout_.num_elements = parameters;
    }
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
    const Nanos end = Clock::Real()->Now() + backward_time_;
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
    Clock::Real()->SleepUntil(end, nullptr);
    return result;
  }

  // All of them are there from the beginning, and of no layer.
  std::vector<ElementRange> gradient_order() const override { return {}; }
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    return false;
  }

  SavedActivations* saved_activations() override { return nullptr; }

 private:
  static constexpr int64_t kOffsets = 1 << 16;
  static constexpr uint64_t kMix = 0x9E3779B97F4A7C15ull;

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
