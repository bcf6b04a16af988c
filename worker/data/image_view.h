// How an image is shown: shifted, mirrored, brought to another size. Pure
// functions of bytes and keys, the same on any machine.
//
// Batch augmentation: Hoffer et al., "Augment your batch", CVPR 2020. Mixed
// sizes: Hoffer et al., "Mix & Match: training convnets with mixed image
// sizes", arXiv 1908.08986.
#ifndef DELTAPIPE_WORKER_DATA_IMAGE_VIEW_H_
#define DELTAPIPE_WORKER_DATA_IMAGE_VIEW_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/image_options.h"

namespace deltapipe {

/// What view `view` of a sample does: nothing for view 0, else a shift by -2..2
/// pixels each way (a random crop after padding with 2 zeros, He et al. 2016)
/// and a mirror image for every second, a function of (seed, sample, view)
/// alone.
struct ImageView {
  int shift_x = 0;
  int shift_y = 0;
  bool is_mirrored = false;
};

ImageView DrawImageView(uint64_t seed, uint64_t sample, uint64_t view);

/// Writes the view of `image`, kImageSize^2 bytes, to `out`, as many. What
/// comes from beyond the edges is 0.
void ApplyImageView(const ImageView& view, absl::Span<const uint8_t> image,
                    absl::Span<uint8_t> out);

/// Brings `image`, from^2 bytes, to to^2 bytes in `out`, to <= from: each pixel
/// is the mean over the area that it covers, rounded, ties up, in integers.
void ResizeImage(absl::Span<const uint8_t> image, int64_t from, int64_t to,
                 absl::Span<uint8_t> out);

/// The size for the micro-batch of `slot` at `step`: each in its share, drawn
/// from (seed, step, slot) alone; kImageSize if there are no shares.
int64_t DrawImageSize(uint64_t seed, int64_t step, int64_t slot,
                      absl::Span<const SizeShare> shares);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_IMAGE_VIEW_H_
