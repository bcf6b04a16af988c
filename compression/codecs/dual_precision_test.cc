#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;

int64_t PayloadBytes(const std::string& text, int64_t count) {
  const auto codec = MakeCodec(text);
  return codec.ok() ? (*codec)->MaxPayloadBytes(count) : -1;
}

// Average pooling without padding and nearest upsampling, as the paper has it,
// of one plane; edge blocks are those that are there.
std::vector<float> LowFrequencies(const std::vector<float>& x, size_t width,
                                  size_t block) {
  const size_t height = x.size() / width;
  std::vector<float> low(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t top = i / width / block * block;
    const size_t left = i % width / block * block;
    double sum = 0;
    int count = 0;
    for (size_t r = top; r < std::min(top + block, height); ++r) {
      for (size_t c = left; c < std::min(left + block, width); ++c) {
        sum += x[r * width + c];
        ++count;
      }
    }
    low[i] = BFloat16ToFloat(FloatToBFloat16(static_cast<float>(sum / count)));
  }
  return low;
}

TEST(DualPrecisionTest, ErrsByLessThanAStepOfTheRestOfThePlane) {
  for (const size_t width : {7, 8, 13, 28}) {
    const size_t height = 3 * width / 2;
    const std::vector<float> x =
        MakeTestData(TestData::kHeavyTailed, width * height, 31);
    const std::vector<float> low = LowFrequencies(x, width, 8);
    float least = 1e9f, most = -1e9f;
    for (size_t i = 0; i < x.size(); ++i) {
      least = std::min(least, x[i] - low[i]);
      most = std::max(most, x[i] - low[i]);
    }

    const std::vector<float> y =
        RoundTrip(absl::StrCat("dual_precision(high_bits=4,height=", height,
                               ",width=", width, ")"),
                  x);

    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_LE(std::fabs(y[i] - x[i]), (most - least) / 15 * 1.02) << i;
    }
  }
}

TEST(DualPrecisionTest, PlanesOfConstantBlocksAreTheirMeans) {
  std::vector<float> x;
  for (int r = 0; r < 20; ++r) {
    for (int c = 0; c < 28; ++c) {
      x.push_back(static_cast<float>(r / 8 * 4 + c / 8));
    }
  }

  EXPECT_EQ(RoundTrip("dual_precision(height=20,width=28)", x), x);
}

// Where neighbours are alike, 2.26 bits do what int needs 4 bits for.
TEST(DualPrecisionTest, SmoothImagesAreKeptFinely) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 8 * 56 * 56, 32);
  for (size_t i = 0; i < x.size(); ++i) {
    const double r = static_cast<double>(i / 56 % 56);
    const double c = static_cast<double>(i % 56);
    x[i] = static_cast<float>(10 * std::sin(r / 15) * std::cos(c / 20) +
                              0.2 * x[i]);
  }

  const double dual =
      RelativeRmsError(x, RoundTrip("dual_precision(height=56,width=56)", x));

  EXPECT_LE(dual,
            0.5 * RelativeRmsError(x, RoundTrip("int(2,round=stochastic)", x)));
  EXPECT_LE(dual, 0.2);
}

TEST(DualPrecisionTest, SizesAreThoseOfThePaper) {
  // 2 + 16 / 64 + 32 / 3136 bits.
  EXPECT_EQ(PayloadBytes("dual_precision(height=56,width=56)", 56 * 56),
            56 * 56 / 4 + 49 * 2 + 4);
  EXPECT_EQ(PayloadBytes("dual_precision(height=7,width=7)", 3 * 49),
            3 * (4 + 2 + 13));
  // Two planes and three rows of a third, the last of them short.
  EXPECT_EQ(PayloadBytes("dual_precision(8,4,height=9,width=9)", 162 + 22),
            2 * (4 + 4 + 4 + 41) + (4 + 4 + 2 + 11));
  EXPECT_EQ(PayloadBytes("dual_precision", 130), 4 + 2 * 3 + 33);
}

TEST(DualPrecisionTest, ExtentsComeFromTheTensor) {
  EXPECT_EQ(*BindTensorShape("dual_precision", {32, 64, 28, 14}),
            "dual_precision(height=28,width=14)");
}

// What the reference loses by decoding with other scales than it encoded with:
// at 8 bits the mean of many draws is the value, to a hundredth of a step.
TEST(DualPrecisionTest, TheMeanOfManyDrawsIsTheValue) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 24 * 24, 33);
  const float range = *std::max_element(x.begin(), x.end()) -
                      *std::min_element(x.begin(), x.end());
  std::vector<double> mean(x.size(), 0);
  constexpr int kDraws = 4000;
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    const std::vector<float> y = RoundTrip(
        "dual_precision(8,8,height=24,width=24)", x, {RandomKey{draw}});
    for (size_t i = 0; i < x.size(); ++i) mean[i] += y[i] / double{kDraws};
  }

  // Hoeffding: n = 4,000 draws within a step; 576 elements are all within
  // 0.062 steps but for 1 time in 10^10.
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(mean[i], x[i], 0.062 * 1.2 * range / 255);
  }
}

TEST(DualPrecisionTest, ANanSpoilsItsPlaneAlone) {
  std::vector<float> x(3 * 64, 1.0f);
  x[100] = std::numeric_limits<float>::quiet_NaN();

  const std::vector<float> y = RoundTrip("dual_precision(height=8,width=8)", x);

  EXPECT_THAT(std::vector<float>(y.begin(), y.begin() + 64), Each(1));
  EXPECT_TRUE(std::all_of(y.begin() + 64, y.begin() + 128,
                          [](float value) { return std::isnan(value); }));
  EXPECT_THAT(std::vector<float>(y.begin() + 128, y.end()), Each(1));
}

}  // namespace
}  // namespace deltapipe
