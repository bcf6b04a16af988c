#include "compression/codecs/fp.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

double MeanRelativeError(const std::vector<float>& x,
                         const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += std::fabs((static_cast<double>(x[i]) - y[i]) / x[i]);
  }
  return sum / static_cast<double>(x.size());
}

TEST(FpTest, ValuesOfTheFormatArePreservedSubnormalsIncluded) {
  // 1-2-1: the top is 3 times the scale; the normal numbers begin at 1/2.
  EXPECT_THAT(RoundTrip("fp(2,1)", {3, -2, 1.5, 1, -0.75, 0.5, 0.25, 0}),
              ElementsAre(3, -2, 1.5, 1, -0.75, 0.5, 0.25, 0));
  EXPECT_THAT(RoundTrip("fp(2,1)", {3, 0.13f, 0.12f, 0.4f, -2.4f, 2.6f}),
              ElementsAre(3, 0.25, 0, 0.5, -2, 3));
}

TEST(FpTest, AutoWritesTheSplitThatFitsTheSpread) {
  for (const auto& [bits, sigma, exponent_bits] :
       std::vector<std::tuple<int, double, int>>{{4, 0.5, 2},
                                                 {4, 2, 3},
                                                 {6, 2.2, 4},
                                                 {6, 4, 5},
                                                 {8, 2, 4},
                                                 {8, 4, 5}}) {
    const std::vector<uint8_t> payload =
        EncodeForTest("fp(auto," + std::to_string(bits) + ")",
                      LognormalValues({sigma}, 1 << 14, 1));
    EXPECT_EQ(payload[0], exponent_bits) << bits << " bits, sigma " << sigma;
  }
}

// Of all splits, the chosen one has the least mean relative error on lognormal
// values, to 3 %: what was measured is also what was computed.
TEST(FpTest, AutoIsAsGoodAsTheBestSplit) {
  for (const int bits : {4, 6, 8}) {
    for (const double sigma : {0.6, 1.2, 2.0, 3.5}) {
      const std::vector<float> x = LognormalValues({sigma}, 1 << 14, 7);
      double least = 1e9;
      for (int exponent_bits = 1; exponent_bits < bits; ++exponent_bits) {
        const std::string text = "fp(" + std::to_string(exponent_bits) + "," +
                                 std::to_string(bits - 1 - exponent_bits) + ")";
        least = std::min(least, MeanRelativeError(x, RoundTrip(text, x)));
      }

      const double of_auto = MeanRelativeError(
          x, RoundTrip("fp(auto," + std::to_string(bits) + ")", x));

      EXPECT_LE(of_auto, 1.03 * least) << bits << " bits, sigma " << sigma;
    }
  }
}

TEST(FpTest, ErrorsNameTheParameterItsRangeAndTheNearest) {
  EXPECT_THAT(std::string(MakeCodec("fp(4,5)").status().message()),
              HasSubstr("column 6: mantissa: expected 0..3 with exponent=4, "
                        "got 5 (the nearest is 3)"));
  EXPECT_THAT(std::string(MakeCodec("fp(auto,2)").status().message()),
              HasSubstr("mantissa: expected 3..8 bits in all with "
                        "exponent=auto, got 2 (the nearest is 3)"));
  EXPECT_THAT(std::string(MakeCodec("fp(8,0)").status().message()),
              HasSubstr("exponent: expected auto or 1..7, got 8"));
}

}  // namespace
}  // namespace deltapipe
