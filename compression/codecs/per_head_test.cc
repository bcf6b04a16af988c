#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Rows of 4 heads of 16 columns, each head of its own size and place.
std::vector<float> Heads(uint32_t seed) {
  std::vector<float> values = MakeTestData(TestData::kNormal, 64 * 64, seed);
  const float sizes[] = {1, 100, 0.01f, 5};
  const float places[] = {0, 1000, -3, 50};
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t head = i % 64 / 16;
    values[i] = values[i] * sizes[head] + places[head];
  }
  return values;
}

TEST(PerHeadTest, EachHeadHasTheErrorOfItsOwnRange) {
  const std::vector<float> x = Heads(41);

  const std::vector<float> y =
      RoundTrip("per_head(int(8,clip=minmax),head=16,row=64)", x);

  const float sizes[] = {1, 100, 0.01f, 5};
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(std::fabs(y[i] - x[i]), 0.025 * sizes[i % 64 / 16]) << i;
  }
}

// Mesa: alpha <- 0.9 alpha + 0.1 (max - min), beta likewise.
TEST(PerHeadTest, RangesFollowTheTensorsSlowly) {
  std::vector<float> memory;
  double half = 0, center = 0;
  for (uint32_t call = 0; call < 20; ++call) {
    std::vector<float> x = MakeTestData(TestData::kNormal, 500, 42 + call);
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double now_half = (*high - *low) / 2, now_center = (*high + *low) / 2;
    half = call == 0 ? now_half : 0.9 * half + 0.1 * now_half;
    center = call == 0 ? now_center : 0.9 * center + 0.1 * now_center;

    const std::vector<float> y =
        RoundTrip("per_head(none,head=500)", x, {RandomKey(), &memory});

    for (size_t i = 0; i < x.size(); ++i) {
      const double clamped =
          std::clamp<double>(x[i], center - half, center + half);
      ASSERT_NEAR(y[i], clamped, 1e-5);
    }
  }
}

TEST(PerHeadTest, ValuesOutsideTheRangeAreItsEndsAndDoNotWrap) {
  std::vector<float> memory;
  const std::string text = "per_head(int(8,round=stochastic),head=4)";
  RoundTrip(text, {-1, 1, 0, 0.5f}, {RandomKey(), &memory});

  const std::vector<float> y =
      RoundTrip(text, {-100, 100, 0, 1}, {RandomKey(), &memory});

  // 0.9 * 1 + 0.1 * 100
  EXPECT_NEAR(y[0], -10.9, 0.2);
  EXPECT_NEAR(y[1], 10.9, 0.2);
}

TEST(PerHeadTest, PayloadsDecodeAfterTheRangeHasMovedOn) {
  const auto codec = MakeForTest("per_head(none,head=2)");
  std::vector<float> memory;
  const std::vector<uint8_t> first =
      EncodeForTest(*codec, {-1, 1}, {RandomKey(), &memory});
  for (int i = 0; i < 5; ++i) {
    RoundTrip("per_head(none,head=2)", {-50, 70}, {RandomKey(), &memory});
  }

  const std::vector<float> out = DecodeForTest(*codec, first, 2);

  EXPECT_THAT(out, ElementsAre(-1, 1));
}

TEST(PerHeadTest, ANanSpoilsItsHeadAndNotItsRunningRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> memory;
  const std::string text = "per_head(none,head=2,row=4)";
  RoundTrip(text, {-1, 1, -2, 2}, {RandomKey(), &memory});

  const std::vector<float> y =
      RoundTrip(text, {9, nan, 2, -2}, {RandomKey(), &memory});

  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
  EXPECT_EQ(y[2], 2);
  EXPECT_EQ(y[3], -2);
  EXPECT_THAT(RoundTrip(text, {1, -1, 0, 0}, {RandomKey(), &memory}),
              ElementsAre(1, -1, 0, 0));
}

TEST(PerHeadTest, WrappersAreRefused) {
  EXPECT_THAT(std::string(MakeCodec("per_head(ef(int(4)))").status().message()),
              HasSubstr("column 10: codec: expected a codec without state, "
                        "got ef(int(4)) (the nearest is int(4), as in "
                        "per_head(int(4)))"));
}

}  // namespace
}  // namespace deltapipe
