#include "base/mixed_sizes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(MixedSizesTest, OnlySizesOtherThanTheImagesOwnMix) {
  EXPECT_TRUE(MixedSizes("").empty());
  EXPECT_TRUE(MixedSizes("28:1").empty());
  EXPECT_TRUE(MixedSizes("28:0.5").empty());  // no shares
  EXPECT_EQ(MixedSizes("14:1").size(), 1);
  EXPECT_EQ(MixedSizes("28:0.5,20:0.5").size(), 2);
}

// Three groups of two blocks; a convolution of stride 2 rounds up.
TEST(MixedSizesTest, ShapesFollowTheStridesOfTheBlocks) {
  const auto shape = [](int end_layer, int64_t size) {
    const BoundaryShape at = SizedBoundaryShape(end_layer, 6, 8, size);
    return std::make_pair(at.rows, at.columns);
  };

  EXPECT_EQ(shape(1, 15), std::make_pair(int64_t{8}, int64_t{225}));
  EXPECT_EQ(shape(2, 15), std::make_pair(int64_t{8}, int64_t{225}));
  EXPECT_EQ(shape(3, 15), std::make_pair(int64_t{16}, int64_t{64}));
  EXPECT_EQ(shape(5, 15), std::make_pair(int64_t{32}, int64_t{16}));
  for (const int end_layer : {1, 3, 5}) {
    const BoundaryShape full =
        BoundaryShapeOf("resnet", end_layer, 6, /*width=*/8, /*context=*/0);
    EXPECT_EQ(shape(end_layer, kImageSize),
              std::make_pair(full.rows, full.columns));
  }
}

TEST(MixedSizesTest, SizesOfOneShapeAreAddedUp) {
  const auto sizes = MixedSizes("28:0.5,27:0.3,14:0.2");

  const auto early = SizedBoundaryShapes(sizes, 2, 6, 8);
  const auto late = SizedBoundaryShapes(sizes, 3, 6, 8);

  EXPECT_EQ(early.size(), 3);
  ASSERT_EQ(late.size(), 2);
  EXPECT_EQ(late[0].shape.columns, 14 * 14);
  EXPECT_EQ(late[0].share, 0.8);
  EXPECT_EQ(late[1].shape.columns, 7 * 7);
  EXPECT_EQ(late[1].share, 0.2);
}

TEST(MixedSizesTest, TheMeanAreaIsRelativeToWholeImages) {
  EXPECT_DOUBLE_EQ(MeanArea(MixedSizes("28:0.5,14:0.5")), 0.625);
}

}  // namespace
}  // namespace deltapipe
