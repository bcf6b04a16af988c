#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// By sorting; of equal magnitudes the earlier ones.
std::vector<float> LargestBySorting(const std::vector<float>& x, size_t k) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&x](size_t a, size_t b) {
    return std::fabs(x[a]) > std::fabs(x[b]);
  });
  std::vector<float> y(x.size(), 0);
  for (size_t i = 0; i < k; ++i) y[order[i]] = x[order[i]];
  return y;
}

TEST(TopKTest, KeepsWhatSortingByMagnitudeKeeps) {
  for (const TestData data : kAllTestData) {
    for (const size_t count : {1, 10, 999, 5000}) {
      for (const double ratio : {0.001, 0.1, 0.5, 0.999}) {
        SCOPED_TRACE(
            absl::StrCat(TestDataName(data), ", ", count, ", ", ratio));
        const std::vector<float> x = MakeTestData(data, count, 3);
        const auto k = std::max<size_t>(1, std::floor(ratio * count + 0.5));

        const std::vector<float> y =
            RoundTrip(absl::StrCat("topk(", ratio, ",values=none)"), x);

        ASSERT_EQ(y, LargestBySorting(x, k));
      }
    }
  }
}

TEST(TopKTest, OfEqualMagnitudesTheEarlierOnesAreKept) {
  EXPECT_THAT(RoundTrip("topk(0.5)", {1, -1, 2, 1, -1, 0.5}),
              ElementsAre(1, -1, 2, 0, 0, 0));
}

TEST(TopKTest, NanIsTheLargest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();

  const std::vector<float> y = RoundTrip("topk(0.5)", {5, -infinity, 3, nan});

  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[1], -infinity);
  EXPECT_EQ(y[0], 0);
}

// 1 % in bf16: 0.16 bits for the values, 0.08 for where they are.
TEST(TopKTest, OnePercentCostsAQuarterOfABit) {
  const auto codec = MakeCodec("topk(0.01)");
  ASSERT_TRUE(codec.ok());

  EXPECT_LE(8 * (*codec)->MaxPayloadBytes(1 << 20), 0.25 * (1 << 20));
}

TEST(TopKTest, SettingsThatCannotBeAreErrors) {
  EXPECT_THAT(std::string(MakeCodec("topk(1.2)").status().message()),
              HasSubstr("ratio: expected above 0, below 1, got 1.2"));
  EXPECT_THAT(
      std::string(MakeCodec("topk(0.1,values=ef(none))").status().message()),
      HasSubstr("column 17: values: expected a codec without state, got "
                "ef(none) (the nearest is none"));
}

}  // namespace
}  // namespace deltapipe
