// What models of images compute first: bytes become numbers around 0.
#ifndef DELTAPIPE_WORKER_STAGE_MODELS_PIXELS_H_
#define DELTAPIPE_WORKER_STAGE_MODELS_PIXELS_H_

#include "ATen/core/Tensor.h"

namespace deltapipe {

/// Mean and deviation of the pixels of Fashion-MNIST's training images / 255.
constexpr double kPixelMean = 0.2860;
constexpr double kPixelDeviation = 0.3530;

/// (bytes / 255 - mean) / deviation, computed in fp32, in `type`.
inline at::Tensor NormalizedPixels(const at::Tensor& bytes,
                                   at::ScalarType type) {
  return bytes.to(at::kFloat)
      .mul(1.0 / (255 * kPixelDeviation))
      .sub(kPixelMean / kPixelDeviation)
      .to(type);
}

/// The square root of pixels; less than exact for what is no square.
inline int64_t SideOf(int64_t pixels) {
  int64_t side = 0;
  while ((side + 1) * (side + 1) <= pixels) ++side;
  return side;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_MODELS_PIXELS_H_
