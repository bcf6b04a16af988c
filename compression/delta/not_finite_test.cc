#include "compression/delta/not_finite.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(CountNotFiniteTest, FindsEachAtEveryPlace) {
  for (const size_t count : {1, 2, 7, 16, 33, 64, 130}) {
    for (size_t place = 0; place < count; ++place) {
      // At an odd address.
      std::vector<float> values(count + 1, -std::numeric_limits<float>::max());
      const float kinds[] = {kNaN, kInfinity, -kInfinity, -kNaN};
      values[place + 1] = kinds[place % 4];
      ForEachVectorTarget([&] {
        ASSERT_EQ(CountNotFinite(absl::MakeSpan(values).subspan(1)), 1);
      });
    }
  }
}

TEST(CountNotFiniteTest, CountsWhatTheStandardLibraryCallsNotFinite) {
  std::mt19937 generator(1);
  std::vector<float> values(100003);
  int64_t expected = 0;
  for (float& value : values) {
    uint32_t bits = static_cast<uint32_t>(generator());
    if (generator() % 3 == 0) bits |= 0x7F800000u;
    value = BitsToFloat(bits);
    expected += std::isfinite(value) ? 0 : 1;
  }

  EXPECT_GT(expected, 30000);
  ForEachVectorTarget([&] { EXPECT_EQ(CountNotFinite(values), expected); });
}

TEST(CountNotFiniteTest, ZerosSubnormalsAndNothingAreFinite) {
  EXPECT_EQ(CountNotFinite({}), 0);
  EXPECT_EQ(CountNotFinite({0.0f, -0.0f, 1e-45f, -1e-45f}), 0);
}

}  // namespace
}  // namespace deltapipe
