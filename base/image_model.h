// The arithmetic of models of images, which workers build and the coordinator
// plans: sizes, channels and what a backward pass needs.
//
// A residual network for small images (He et al., "Deep residual learning",
// CVPR 2016, section 4.2): a 3x3 convolution of the image to `width` channels,
// then blocks of two 3x3 convolutions in three groups of near-equal count with
// width, 2 and 4 x width channels. The first block of the second and of the
// third group halves height and width.
#ifndef DELTAPIPE_BASE_IMAGE_MODEL_H_
#define DELTAPIPE_BASE_IMAGE_MODEL_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace deltapipe {

/// Pixels of a side of an image, as it is in the files; one byte each.
constexpr int64_t kImageSize = 28;
constexpr int64_t kImagePixels = kImageSize * kImageSize;
constexpr int64_t kNumImageClasses = 10;

inline bool IsImageModel(absl::string_view model_kind) {
  return model_kind == "resnet" || model_kind == "image_mlp";
}

/// What the loss is a mean over: bytes of text, or whole images.
inline int64_t TargetsPerSample(absl::string_view model_kind, int64_t context) {
  return IsImageModel(model_kind) ? 1 : context;
}

/// One block: [input_channels, input_size, input_size] of a sample becomes
/// [output_channels, output_size, output_size].
struct ResidualBlockShape {
  int64_t input_channels = 0;
  int64_t output_channels = 0;
  int64_t input_size = 0;
  int64_t output_size = 0;

  int64_t stride() const { return input_channels == output_channels ? 1 : 2; }
  int64_t input_elements() const {
    return input_channels * input_size * input_size;
  }
  int64_t output_elements() const {
    return output_channels * output_size * output_size;
  }
  bool operator==(const ResidualBlockShape& other) const {
    return input_channels == other.input_channels &&
           output_channels == other.output_channels &&
           input_size == other.input_size;
  }
};

/// 0, 1 or 2; earlier groups have one block more where `num_layers` is no
/// multiple of 3.
inline int ResidualGroup(int layer, int num_layers) {
  int end = 0;
  for (int group = 0; group < 2; ++group) {
    end += num_layers / 3 + (group < num_layers % 3 ? 1 : 0);
    if (layer < end) return group;
  }
  return 2;
}

/// Of block `layer` for images of `image_size` pixels a side.
inline ResidualBlockShape ResidualBlockOf(int layer, int num_layers,
                                          int64_t width,
                                          int64_t image_size = kImageSize) {
  const int group = ResidualGroup(layer, num_layers);
  const int before = layer == 0 ? 0 : ResidualGroup(layer - 1, num_layers);
  // A convolution of stride 2 rounds up.
  const auto size_in = [image_size](int of_group) {
    int64_t size = image_size;
    for (int i = 0; i < of_group; ++i) size = (size + 1) / 2;
    return size;
  };
  return {width << before, width << group, size_in(before), size_in(group)};
}

/// Values per sample that a block keeps for its backward pass: the results of
/// both convolutions and of both activations; `fixup` also keeps its shifted
/// input.
inline int64_t ResidualSavedElements(const ResidualBlockShape& block,
                                     absl::string_view norm) {
  const int64_t shifted = norm == "fixup" ? block.input_elements() : 0;
  return shifted + 4 * block.output_elements();
}

/// Rows and columns of one sample's tensor between two layers, as codecs see
/// it.
struct BoundaryShape {
  int64_t rows = 0;
  int64_t columns = 0;
};

/// Of what layer `end_layer - 1` returns; `context` is text's.
inline BoundaryShape BoundaryShapeOf(absl::string_view model_kind,
                                     int end_layer, int num_layers,
                                     int64_t width, int64_t context) {
  if (model_kind == "image_mlp") return {1, width};
  if (model_kind != "resnet") return {context, width};
  const ResidualBlockShape block =
      ResidualBlockOf(end_layer - 1, num_layers, width);
  return {block.output_channels, block.output_size * block.output_size};
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_IMAGE_MODEL_H_
