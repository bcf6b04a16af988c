// The tensors of a job that mixes image sizes (data.sizes), which workers send
// and the coordinator plans: a boundary carries one shape for each size.
#ifndef DELTAPIPE_BASE_MIXED_SIZES_H_
#define DELTAPIPE_BASE_MIXED_SIZES_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/image_model.h"
#include "base/image_options.h"

namespace deltapipe {

/// The sizes of data.sizes, where images of another size than kImageSize are
/// among them; empty where all tensors of a boundary have one shape, and for a
/// text that ParseSizeShares refuses.
std::vector<SizeShare> MixedSizes(absl::string_view sizes_text);

/// What block `end_layer - 1` of a residual network returns for images of
/// `image_size` pixels a side.
BoundaryShape SizedBoundaryShape(int end_layer, int num_layers, int64_t width,
                                 int64_t image_size);

struct ShapeShare {
  BoundaryShape shape;
  double share = 0;  // of the micro-batches
};

/// The same for each of `sizes`, in their order. Shapes occur once: sizes that
/// strides bring to the same one are added up.
std::vector<ShapeShare> SizedBoundaryShapes(const std::vector<SizeShare>& sizes,
                                            int end_layer, int num_layers,
                                            int64_t width);

/// Pixels of an image relative to one of kImageSize, mean over micro-batches.
double MeanArea(const std::vector<SizeShare>& sizes);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_MIXED_SIZES_H_
