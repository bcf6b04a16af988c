#include "base/mixed_sizes.h"

#include <algorithm>

namespace deltapipe {

std::vector<SizeShare> MixedSizes(absl::string_view sizes_text) {
  const auto sizes = ParseSizeShares(sizes_text);
  if (!sizes.ok()) return {};
  const bool is_mixed = std::any_of(
      sizes->begin(), sizes->end(),
      [](const SizeShare& size) { return size.size != kImageSize; });
  return is_mixed ? *sizes : std::vector<SizeShare>();
}

BoundaryShape SizedBoundaryShape(int end_layer, int num_layers, int64_t width,
                                 int64_t image_size) {
  const ResidualBlockShape block =
      ResidualBlockOf(end_layer - 1, num_layers, width, image_size);
  return {block.output_channels, block.output_size * block.output_size};
}

std::vector<ShapeShare> SizedBoundaryShapes(const std::vector<SizeShare>& sizes,
                                            int end_layer, int num_layers,
                                            int64_t width) {
  std::vector<ShapeShare> shapes;
  for (const SizeShare& size : sizes) {
    const BoundaryShape shape =
        SizedBoundaryShape(end_layer, num_layers, width, size.size);
    // All have the same rows.
    const auto known =
        std::find_if(shapes.begin(), shapes.end(), [&](const ShapeShare& at) {
          return at.shape.columns == shape.columns;
        });
    if (known == shapes.end()) {
      shapes.push_back({shape, size.share});
    } else {
      known->share += size.share;
    }
  }
  return shapes;
}

double MeanArea(const std::vector<SizeShare>& sizes) {
  double mean = 0;
  for (const SizeShare& size : sizes) {
    mean += size.share * static_cast<double>(size.size * size.size) /
            static_cast<double>(kImagePixels);
  }
  return mean;
}

}  // namespace deltapipe
