// A residual convolutional network for small grey images (He et al., "Deep
// residual learning for image recognition", CVPR 2016, section 4.2): shapes in
// base/image_model.h. A block is
//
//   relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))
//
// with 3x3 convolutions without bias and shortcuts without parameters (option
// A): every second pixel, new channels zero.
//
// norm batch: BatchNorm over the micro-batch in training and evaluation alike
// (docs/decisions/0025). group: GroupNorm in groups of 8 channels, one group
// where that divides no channels. fixup (Zhang, Dauphin, Ma, "Fixup
// initialization", ICLR 2019): no norm; a shift before each convolution,
// activation and the head, a scale after the last convolution of a block, whose
// weights begin at 0 as the head's do, and the first convolution's begin at
// L^(-1/2) of He's deviation for L blocks of two convolutions.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/ops/adaptive_avg_pool2d.h"
#include "ATen/ops/add.h"
#include "ATen/ops/batch_norm.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/conv2d.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/group_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/mul.h"
#include "ATen/ops/relu.h"
#include "ATen/ops/zeros_like.h"
#include "absl/strings/str_cat.h"
#include "base/image_model.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/stage/models/model.h"
#include "worker/stage/models/pixels.h"

namespace deltapipe {
namespace {

constexpr double kNormEpsilon = 1e-5;
constexpr int64_t kGroupChannels = 8;

enum class NormKind { kBatch, kGroup, kFixup };

NormKind ParseNorm(const std::string& text) {
  if (text == "group") return NormKind::kGroup;
  return text == "fixup" ? NormKind::kFixup : NormKind::kBatch;
}

at::Tensor NewParameter(at::IntArrayRef shape) {
  return at::empty(shape, at::kFloat).requires_grad_(true);
}

/// He et al. 2015, equation 10, for 3x3 convolutions.
double HeDeviation(const at::Tensor& weight) {
  return std::sqrt(2.0 / static_cast<double>(9 * weight.size(1)));
}

/// BatchNorm or GroupNorm; nothing, without parameters, for fixup.
struct Norm {
  Norm(NormKind norm_kind, int64_t channels) : kind(norm_kind) {
    if (kind == NormKind::kFixup) return;
    weight = NewParameter({channels});
    bias = NewParameter({channels});
  }

  at::Tensor Forward(const at::Tensor& input) const {
    if (kind == NormKind::kFixup) return input;
    if (kind == NormKind::kBatch) {
      return at::batch_norm(input, weight, bias, {}, {}, /*training=*/true,
                            /*momentum=*/0, kNormEpsilon,
                            /*cudnn_enabled=*/true);
    }
    const int64_t channels = input.size(1);
    const int64_t groups =
        channels % kGroupChannels == 0 ? channels / kGroupChannels : 1;
    return at::group_norm(input, groups, weight, bias, kNormEpsilon);
  }

  void AddTo(const std::string& name, std::vector<NamedParameter>* parameters) {
    if (kind == NormKind::kFixup) return;
    parameters->push_back({name + ".weight", weight, 0, 1});
    parameters->push_back({name + ".bias", bias, 0, 0});
  }

  NormKind kind;
  at::Tensor weight;
  at::Tensor bias;
};

/// Fixup's one number; undefined, and nothing, for the other kinds.
struct Shift {
  explicit Shift(NormKind kind) {
    if (kind == NormKind::kFixup) value = NewParameter({1});
  }

  at::Tensor Forward(const at::Tensor& input) const {
    return value.defined() ? at::add(input, value) : input;
  }
  void AddTo(const std::string& name, std::vector<NamedParameter>* parameters) {
    if (value.defined()) parameters->push_back({name, value, 0, 0});
  }

  at::Tensor value;
};

struct ResidualBlock {
  ResidualBlock(NormKind kind, const ResidualBlockShape& shape)
      : stride(shape.stride()),
        conv1(
            NewParameter({shape.output_channels, shape.input_channels, 3, 3})),
        conv2(
            NewParameter({shape.output_channels, shape.output_channels, 3, 3})),
        norm1(kind, shape.output_channels),
        norm2(kind, shape.output_channels),
        shift1(kind),
        shift2(kind),
        shift3(kind),
        shift4(kind) {
    if (kind == NormKind::kFixup) scale = NewParameter({1});
  }

  at::Tensor Forward(const at::Tensor& input) const {
    const at::Tensor shifted = shift1.Forward(input);
    at::Tensor value = at::conv2d(shifted, conv1, {}, stride, /*padding=*/1);
    value = at::relu(shift2.Forward(norm1.Forward(value)));
    value = at::conv2d(shift3.Forward(value), conv2, {}, 1, /*padding=*/1);
    if (scale.defined()) value = at::mul(value, scale);
    value = shift4.Forward(norm2.Forward(value));
    return at::relu(at::add(value, stride == 1 ? input : Narrowed(shifted)));
  }

  /// Every second pixel, and as many channels of zeros.
  static at::Tensor Narrowed(const at::Tensor& input) {
    const at::Tensor kept = input
                                .slice(2, 0, INT64_MAX, 2)  //
                                .slice(3, 0, INT64_MAX, 2);
    return at::cat({kept, at::zeros_like(kept)}, 1);
  }

  void AddTo(const std::string& name, NormKind kind, int num_layers,
             std::vector<NamedParameter>* parameters) {
    const bool is_fixup = kind == NormKind::kFixup;
    const double shrink = is_fixup ? 1 / std::sqrt(1.0 * num_layers) : 1;
    parameters->push_back(
        {name + ".conv1.weight", conv1, shrink * HeDeviation(conv1), 0});
    parameters->push_back(
        {name + ".conv2.weight", conv2, is_fixup ? 0 : HeDeviation(conv2), 0});
    norm1.AddTo(name + ".norm1", parameters);
    norm2.AddTo(name + ".norm2", parameters);
    shift1.AddTo(name + ".bias1", parameters);
    shift2.AddTo(name + ".bias2", parameters);
    shift3.AddTo(name + ".bias3", parameters);
    shift4.AddTo(name + ".bias4", parameters);
    if (is_fixup) parameters->push_back({name + ".scale", scale, 0, 1});
  }

  int64_t stride;
  at::Tensor conv1;
  at::Tensor conv2;
  Norm norm1;
  Norm norm2;
  Shift shift1;
  Shift shift2;
  Shift shift3;
  Shift shift4;
  at::Tensor scale;
};

/// The image [samples, size, size] to [samples, width, size, size].
struct Stem {
  Stem(NormKind kind, int64_t width)
      : conv(NewParameter({width, 1, 3, 3})), norm(kind, width), shift(kind) {}

  at::Tensor Forward(const at::Tensor& bytes) const {
    const at::Tensor pixels =
        NormalizedPixels(bytes.unsqueeze(1), conv.scalar_type());
    SavedInput input(pixels.const_data_ptr());
    const at::Tensor value = at::conv2d(pixels, conv, {}, 1, /*padding=*/1);
    return at::relu(shift.Forward(norm.Forward(value)));
  }

  at::Tensor conv;
  Norm norm;
  Shift shift;
};

/// Means over the image, and classes from them.
struct Head {
  Head(NormKind kind, int64_t channels)
      : weight(NewParameter({kNumImageClasses, channels})),
        bias(NewParameter({kNumImageClasses})),
        shift(kind) {}

  at::Tensor Forward(const at::Tensor& input) const {
    const at::Tensor means = at::adaptive_avg_pool2d(input, {1, 1}).flatten(1);
    return at::linear(shift.Forward(means), weight, bias);
  }

  at::Tensor weight;
  at::Tensor bias;
  Shift shift;
};

class ResNet : public PartialModel {
 public:
  ResNet(const v1::ModelSpec& spec, int first_layer, int end_layer)
      : kind_(ParseNorm(spec.norm())),
        first_layer_(first_layer),
        num_layers_(spec.layers()) {
    if (first_layer == 0) stem_.emplace_back(kind_, spec.width());
    for (int layer = first_layer; layer < end_layer; ++layer) {
      const ResidualBlockShape shape =
          ResidualBlockOf(layer, num_layers_, spec.width());
      if (layer == first_layer) input_channels_ = shape.input_channels;
      blocks_.emplace_back(kind_, shape);
      if (layer + 1 == num_layers_) {
        head_.emplace_back(kind_, shape.output_channels);
      }
    }
  }

  std::vector<std::string> PartNames() const override {
    std::vector<std::string> names;
    if (!stem_.empty()) names.push_back("embedding");
    for (size_t i = 0; i < blocks_.size(); ++i) names.push_back(BlockName(i));
    if (!head_.empty()) names.push_back("head");
    return names;
  }

  at::Tensor ForwardPart(int part, const at::Tensor& input) override {
    if (!stem_.empty() && part-- == 0) return stem_[0].Forward(input);
    if (part < static_cast<int>(blocks_.size())) {
      return blocks_[static_cast<size_t>(part)].Forward(input);
    }
    return head_[0].Forward(input);
  }

  std::vector<int64_t> InputShape(int64_t samples,
                                  int64_t elements) const override {
    const int64_t channels = stem_.empty() ? input_channels_ : 1;
    const int64_t side =
        SideOf(elements / std::max<int64_t>(samples * channels, 1));
    if (!stem_.empty()) return {samples, side, side};
    return {samples, channels, side, side};
  }

  std::vector<NamedParameter> Parameters() override {
    std::vector<NamedParameter> parameters;
    if (!stem_.empty()) {
      Stem& stem = stem_[0];
      parameters.push_back(
          {"embedding.conv.weight", stem.conv, HeDeviation(stem.conv), 0});
      stem.norm.AddTo("embedding.norm", &parameters);
      stem.shift.AddTo("embedding.bias", &parameters);
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      blocks_[i].AddTo(BlockName(i), kind_, num_layers_, &parameters);
    }
    if (!head_.empty()) {
      Head& head = head_[0];
      const double deviation =
          kind_ == NormKind::kFixup
              ? 0
              : 1 / std::sqrt(static_cast<double>(head.weight.size(1)));
      parameters.push_back({"head.output.weight", head.weight, deviation, 0});
      parameters.push_back({"head.output.bias", head.bias, 0, 0});
      head.shift.AddTo("head.bias", &parameters);
    }
    return parameters;
  }

 private:
  std::string BlockName(size_t i) const {
    return absl::StrCat("blocks.", first_layer_ + static_cast<int>(i));
  }

  const NormKind kind_;
  const int first_layer_;
  const int num_layers_;
  int64_t input_channels_ = 0;
  std::vector<Stem> stem_;  // one or none
  std::vector<ResidualBlock> blocks_;
  std::vector<Head> head_;  // one or none
};

}  // namespace

std::unique_ptr<PartialModel> MakeResNet(const v1::ModelSpec& spec,
                                         int first_layer, int end_layer) {
  return std::make_unique<ResNet>(spec, first_layer, end_layer);
}

}  // namespace deltapipe
