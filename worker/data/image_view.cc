#include "worker/data/image_view.h"

#include <algorithm>

#include "base/image_model.h"
#include "base/philox.h"

namespace deltapipe {
namespace {

constexpr int kMaxShift = 2;
// Last words of counters: no two draws of this seed are the same bits.
constexpr uint32_t kViewDraw = 0x56494557;
constexpr uint32_t kSizeDraw = 0x53495A45;

PhiloxBlock Draw(uint64_t seed, uint32_t what, uint64_t a, uint64_t b) {
  // Neither is as large as 2^48.
  return Philox4x32(
      {static_cast<uint32_t>(a), static_cast<uint32_t>(b),
       static_cast<uint32_t>(a >> 32) << 16 | static_cast<uint32_t>(b >> 32),
       what},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

int ShiftOf(uint32_t word) {
  return static_cast<int>(uint64_t{word} * (2 * kMaxShift + 1) >> 32) -
         kMaxShift;
}

}  // namespace

ImageView DrawImageView(uint64_t seed, uint64_t sample, uint64_t view) {
  if (view == 0) return {};
  const PhiloxBlock words = Draw(seed, kViewDraw, sample, view);
  return {ShiftOf(words[0]), ShiftOf(words[1]), words[2] >> 31 == 1};
}

void ApplyImageView(const ImageView& view, absl::Span<const uint8_t> image,
                    absl::Span<uint8_t> out) {
  const auto is_inside = [](int64_t i) { return i >= 0 && i < kImageSize; };
  for (int64_t y = 0; y < kImageSize; ++y) {
    for (int64_t x = 0; x < kImageSize; ++x) {
      const int64_t from_y = y - view.shift_y;
      int64_t from_x = x - view.shift_x;
      const bool has_source = is_inside(from_x) && is_inside(from_y);
      if (view.is_mirrored) from_x = kImageSize - 1 - from_x;
      out[static_cast<size_t>(y * kImageSize + x)] =
          has_source ? image[static_cast<size_t>(from_y * kImageSize + from_x)]
                     : uint8_t{0};
    }
  }
}

void ResizeImage(absl::Span<const uint8_t> image, int64_t from, int64_t to,
                 absl::Span<uint8_t> out) {
  // In units of 1 / to of a pixel of `image`, a pixel of `out` is `from` long.
  const auto overlap = [from, to](int64_t of_out, int64_t of_image) {
    return std::min((of_out + 1) * from, (of_image + 1) * to) -
           std::max(of_out * from, of_image * to);
  };
  for (int64_t y = 0; y < to; ++y) {
    for (int64_t x = 0; x < to; ++x) {
      int64_t sum = 0;
      for (int64_t v = y * from / to; v * to < (y + 1) * from; ++v) {
        for (int64_t u = x * from / to; u * to < (x + 1) * from; ++u) {
          sum += overlap(y, v) * overlap(x, u) *
                 image[static_cast<size_t>(v * from + u)];
        }
      }
      out[static_cast<size_t>(y * to + x)] =
          static_cast<uint8_t>((2 * sum + from * from) / (2 * from * from));
    }
  }
}

int64_t DrawImageSize(uint64_t seed, int64_t step, int64_t slot,
                      absl::Span<const SizeShare> shares) {
  if (shares.empty()) return kImageSize;
  const PhiloxBlock words = Draw(seed, kSizeDraw, static_cast<uint64_t>(step),
                                 static_cast<uint64_t>(slot));
  const double uniform = words[0] * 0x1.0p-32;
  double below = 0;
  for (const SizeShare& share : shares) {
    below += share.share;
    if (uniform < below) return share.size;
  }
  return shares.back().size;
}

}  // namespace deltapipe
