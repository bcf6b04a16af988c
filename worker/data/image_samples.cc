#include "worker/data/image_samples.h"

#include "base/checksum.h"
#include "base/image_model.h"
#include "base/status_macros.h"
#include "worker/data/image_view.h"

namespace deltapipe {
namespace {

absl::Span<const uint8_t> ImageOf(const ImageSet& set, int64_t index) {
  return absl::MakeConstSpan(set.pixels)
      .subspan(static_cast<size_t>(index * kImagePixels),
               static_cast<size_t>(kImagePixels));
}

/// The position takes part: equal images elsewhere are other samples. There are
/// fewer than 2^31 images and visits.
uint64_t KeyOf(absl::Span<const uint8_t> image, bool is_test, int64_t index,
               int64_t view) {
  return Checksum(image, (is_test ? uint64_t{1} << 63 : 0) |
                             static_cast<uint64_t>(view) << 32 |
                             static_cast<uint64_t>(index));
}

uint64_t HashOf(const ImageSet& set, uint64_t seed) {
  return Checksum(set.classes, Checksum(set.pixels, seed));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSamples>> ImageSamples::Open(
    const std::string& folder, double validation, uint64_t seed,
    const ImageOptions& options) {
  std::unique_ptr<ImageSamples> samples(new ImageSamples(seed, options));
  DP_ASSIGN_OR_RETURN(samples->train_, ReadImageSet(folder, /*is_test=*/false,
                                                    options.max_train));
  DP_ASSIGN_OR_RETURN(samples->test_,
                      ReadImageSet(folder, /*is_test=*/true, 0));
  const auto num_validation = static_cast<int64_t>(
      validation * static_cast<double>(samples->test_.num_images));
  if (num_validation > 0) {
    DP_ASSIGN_OR_RETURN(samples->test_,
                        ReadImageSet(folder, /*is_test=*/true, num_validation));
  }
  samples->data_hash_ = HashOf(samples->test_, HashOf(samples->train_, 0));
  return samples;
}

Microbatch ImageSamples::Train(absl::Span<const int64_t> indices, int64_t visit,
                               int64_t step, int64_t slot) const {
  const int64_t size = DrawImageSize(seed_, step, slot, options_.sizes);
  const ViewChoice& views = options_.views;
  Microbatch microbatch;
  microbatch.image_size = size;
  std::vector<uint8_t> viewed(static_cast<size_t>(kImagePixels));
  for (const int64_t index : indices) {
    const absl::Span<const uint8_t> image = ImageOf(train_, index);
    for (int64_t i = 0; i < views.count; ++i) {
      const int64_t view = views.is_unbounded ? visit : i;
      ApplyImageView(DrawImageView(seed_, static_cast<uint64_t>(index),
                                   static_cast<uint64_t>(view)),
                     image, absl::MakeSpan(viewed));
      const size_t begin = microbatch.tokens.size();
      microbatch.tokens.resize(begin + static_cast<size_t>(size * size));
      ResizeImage(viewed, kImageSize, size,
                  absl::MakeSpan(microbatch.tokens).subspan(begin));
      microbatch.targets.push_back(train_.classes[static_cast<size_t>(index)]);
      microbatch.samples.push_back({KeyOf(image, false, index, view), 0});
    }
  }
  return microbatch;
}

void ImageSamples::AppendValidation(int64_t index,
                                    Microbatch* microbatch) const {
  const absl::Span<const uint8_t> image = ImageOf(test_, index);
  microbatch->image_size = kImageSize;
  microbatch->tokens.insert(microbatch->tokens.end(), image.begin(),
                            image.end());
  microbatch->targets.push_back(test_.classes[static_cast<size_t>(index)]);
  microbatch->samples.push_back({KeyOf(image, true, index, 0), 0});
}

}  // namespace deltapipe
