#include "worker/data/image_view.h"

#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "base/image_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

std::vector<uint8_t> Gradient() {
  std::vector<uint8_t> image(kImagePixels);
  for (size_t i = 0; i < image.size(); ++i) {
    image[i] = static_cast<uint8_t>(1 + i % 251);
  }
  return image;
}

uint8_t At(const std::vector<uint8_t>& image, int64_t x, int64_t y) {
  return image[static_cast<size_t>(y * kImageSize + x)];
}

TEST(ImageViewTest, ShiftsAndMirrorsWithZerosBeyondTheEdges) {
  const std::vector<uint8_t> image = Gradient();
  std::vector<uint8_t> out(image.size());

  ApplyImageView({2, -1, false}, image, absl::MakeSpan(out));
  EXPECT_EQ(At(out, 0, 5), 0);
  EXPECT_EQ(At(out, 1, 5), 0);
  EXPECT_EQ(At(out, 2, 5), At(image, 0, 6));
  EXPECT_EQ(At(out, 27, 5), At(image, 25, 6));
  EXPECT_EQ(At(out, 20, 27), 0);

  ApplyImageView({2, 0, true}, image, absl::MakeSpan(out));
  EXPECT_EQ(At(out, 1, 5), 0);
  EXPECT_EQ(At(out, 2, 5), At(image, 27, 5));
  EXPECT_EQ(At(out, 27, 5), At(image, 2, 5));

  ApplyImageView({}, image, absl::MakeSpan(out));
  EXPECT_EQ(out, image);
}

TEST(ImageViewTest, ViewsAreAFunctionOfSeedSampleAndNumber) {
  std::set<std::tuple<int, int, bool>> seen;
  const auto draw = [](uint64_t seed, uint64_t sample, uint64_t view) {
    const ImageView drawn = DrawImageView(seed, sample, view);
    return std::make_tuple(drawn.shift_x, drawn.shift_y, drawn.is_mirrored);
  };
  for (uint64_t view = 1; view < 2000; ++view) {
    EXPECT_EQ(draw(5, 9, view), draw(5, 9, view));
    seen.insert(draw(5, 9, view));
  }

  // All 5 x 5 x 2; one of them is missed with 50 * (49/50)^1999 < 1e-15.
  EXPECT_EQ(seen.size(), 50);
  EXPECT_EQ(draw(5, 9, 0), std::make_tuple(0, 0, false));
  int num_equal = 0;
  for (uint64_t view = 1; view < 1000; ++view) {
    num_equal += draw(5, 9, view) == draw(6, 9, view);
    num_equal += draw(5, 9, view) == draw(5, 10, view);
  }
  // Mean 40, deviation 6.3.
  EXPECT_LT(num_equal, 90);
}

TEST(ImageViewTest, ResizingAveragesAreas) {
  const std::vector<uint8_t> image = {10, 20, 30, 40,  //
                                      10, 20, 30, 40,  //
                                      50, 60, 70, 80,  //
                                      51, 61, 71, 82};
  std::vector<uint8_t> half(4);
  std::vector<uint8_t> third(9);

  ResizeImage(image, 4, 2, absl::MakeSpan(half));
  ResizeImage(image, 4, 3, absl::MakeSpan(third));

  // (70 + 80 + 71 + 82) / 4 = 75.75.
  EXPECT_THAT(half, ElementsAre(15, 35, 56, 76));
  // 4/3 pixels each way: (10 + 20/3) / (4/3) = 12.5, a tie, up.
  EXPECT_EQ(third[0], 13);
  EXPECT_EQ(third[1], 25);
}

TEST(ImageViewTest, AnEvenImageStaysEvenAndAnySizeKeepsTheMean) {
  const std::vector<uint8_t> even(kImagePixels, 200);
  const std::vector<uint8_t> image = Gradient();
  double mean = 0;
  for (const uint8_t pixel : image) mean += pixel / double{kImagePixels};
  for (int64_t size = 8; size <= kImageSize; ++size) {
    std::vector<uint8_t> out(static_cast<size_t>(size * size));

    ResizeImage(even, kImageSize, size, absl::MakeSpan(out));
    EXPECT_THAT(out, Each(200)) << size;
    ResizeImage(image, kImageSize, size, absl::MakeSpan(out));
    double resized = 0;
    for (const uint8_t pixel : out) resized += pixel / double(size * size);
    EXPECT_NEAR(resized, mean, 0.5) << size;
    if (size == kImageSize) {
      EXPECT_EQ(out, image);
    }
  }
}

// n = 20,000 micro-batches. A count deviates by sqrt(n p (1 - p)) <= 71; 8 of
// them, 566, are exceeded with less than 1e-14.
TEST(ImageViewTest, SizesComeInTheirShares) {
  const std::vector<SizeShare> shares = {{28, 0.5}, {20, 0.3}, {14, 0.2}};
  constexpr int kSteps = 5000;
  constexpr int kSlots = 4;
  std::map<int64_t, int> counts;
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const int64_t size = DrawImageSize(17, step, slot, shares);
      EXPECT_EQ(size, DrawImageSize(17, step, slot, shares));
      ++counts[size];
    }
  }

  ASSERT_EQ(counts.size(), 3);
  for (const SizeShare& share : shares) {
    const double n = kSteps * kSlots;
    EXPECT_NEAR(counts[share.size], n * share.share,
                8 * std::sqrt(n * share.share * (1 - share.share)))
        << share.size;
  }
  EXPECT_EQ(DrawImageSize(17, 3, 1, {}), kImageSize);
}

}  // namespace
}  // namespace deltapipe
