// What a boundary's tensors are like, which both of its ends know from the
// spec.
#include "base/mixed_sizes.h"
#include "worker/engine/training.h"

namespace deltapipe {

std::vector<BoundaryShape> Training::ShapesAt(int boundary) const {
  const Stage& stage = *versions_->newest();
  std::vector<BoundaryShape> shapes = {
      boundary == stage_index_ ? stage.output_shape() : stage.input_shape()};
  const v1::ModelSpec& model = spec_.model();
  const int end_layer = plan_.stages(boundary).end_layer();
  for (const ShapeShare& sized :
       SizedBoundaryShapes(MixedSizes(spec_.data().sizes()), end_layer,
                           model.layers(), model.width())) {
    if (sized.shape.columns != shapes[0].columns) {
      shapes.push_back(sized.shape);
    }
  }
  return shapes;
}

int64_t Training::ElementsAt(int boundary, int64_t image_size) const {
  if (image_size == 0 || image_size == kImageSize) return 0;
  const v1::ModelSpec& model = spec_.model();
  const BoundaryShape shape =
      SizedBoundaryShape(plan_.stages(boundary).end_layer(), model.layers(),
                         model.width(), image_size);
  return shape.rows * shape.columns;
}

}  // namespace deltapipe
