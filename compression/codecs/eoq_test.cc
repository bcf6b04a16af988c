#include "compression/codecs/eoq.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

// The papers' equations, k = 8: R(x) = 2^round(log2 max|x|), Q(x, k) =
// round(x 2^(k-1)) / 2^(k-1), SQ(x) = R clip(Q(x / R, k), +-(1 - 2^(1-k))).
double ScaleOf(const std::vector<float>& values) {
  double max = 0;
  for (const float x : values) max = std::max<double>(max, std::fabs(x));
  return std::exp2(std::round(std::log2(max)));
}
double Direct(double x) { return std::nearbyint(x * 128) / 128; }
double Shift(double x, double scale) {
  return scale * std::clamp(Direct(x / scale), -127.0 / 128, 127.0 / 128);
}
// The flag quantizer: steps of Sc = R / 2^(k-1) from Sc on, of Sc / 2^(k-1)
// below.
double Flag(double x, double scale) {
  const double sc = scale / 128;
  return std::fabs(x) >= sc ? Shift(x, scale) : sc * Direct(x / sc);
}

std::vector<float> HeavyTailed(uint32_t seed, double scale) {
  std::mt19937 generator(seed);
  std::student_t_distribution<double> heavy(2);
  std::vector<float> values(2000);
  for (float& value : values) {
    value = static_cast<float>(scale * heavy(generator));
  }
  return values;
}

TEST(EoqTest, NearestIsThePublishedQuantizers) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const std::vector<float> x = HeavyTailed(seed, std::exp2(seed * 0.3 - 20));
    const double scale = ScaleOf(x);
    const std::vector<float> shift = RoundTrip("eoq_shift8", x);
    const std::vector<float> flag = RoundTrip("eoq_flag8", x);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(shift[i], static_cast<float>(Shift(x[i], scale))) << x[i];
      ASSERT_EQ(flag[i], static_cast<float>(Flag(x[i], scale))) << x[i];
    }
  }
}

TEST(EoqTest, TheScaleIsTheNearestPowerOfTwoAndClips) {
  // 1.41 < sqrt(2): R = 1 clips; 1.42: R = 2 does not.
  EXPECT_THAT(RoundTrip("eoq_shift8", {1.41f, -1, 0.5f}),
              ElementsAre(127.0f / 128, -127.0f / 128, 0.5f));
  EXPECT_THAT(RoundTrip("eoq_shift8", {1.421875f, -1, 0.5f}),
              ElementsAre(1.421875f, -1, 0.5f));
  EXPECT_THAT(RoundTrip("eoq_shift8", {FLT_MAX, -0x1p127f}),
              ElementsAre(127 * 0x1p121f, -0x1p127f));
}

TEST(EoqTest, FlagKeepsFourteenOctaves) {
  EXPECT_THAT(RoundTrip("eoq_flag8", {1, 0x1p-7f, 0x1p-8f, -0x1p-14f, 0}),
              ElementsAre(127.0f / 128, 0x1p-7f, 0x1p-8f, -0x1p-14f, 0));
  // Rounds up to a whole coarse step.
  EXPECT_THAT(RoundTrip("eoq_flag8", {1, 0.99999f * 0x1p-7f}),
              ElementsAre(127.0f / 128, 0x1p-7f));
}

// Sums of n independent errors within a step: 6.5 sqrt(n) steps are exceeded
// with a probability below 2 exp(-2 * 6.5^2) (Hoeffding).
TEST(EoqTest, StochasticIsUnbiasedBelowTheClippedEndAndExactlyClippedAbove) {
  constexpr int kKeys = 4000;
  for (const char* text :
       {"eoq_shift8(round=stochastic)", "eoq_flag8(round=stochastic)"}) {
    const std::vector<float> x = {1.3f,     -1.0f,    0.99f,  0.777f, -0.33f,
                                  0.01234f, 0.00456f, -1e-4f, 1e-6f,  0};
    std::vector<double> sums(x.size());
    for (uint64_t key = 0; key < kKeys; ++key) {
      const std::vector<float> out = RoundTrip(text, x, {RandomKey{key}});
      for (size_t i = 0; i < x.size(); ++i) sums[i] += out[i];
    }
    EXPECT_EQ(sums[0], kKeys * 127.0 / 128);
    EXPECT_EQ(sums[1], kKeys * -127.0 / 128);
    for (size_t i = 2; i < x.size(); ++i) {
      const bool is_fine = text[4] == 'f' && std::fabs(x[i]) < 1.0f / 128;
      const double step = is_fine ? 1.0 / (128 * 128) : 1.0 / 128;
      EXPECT_NEAR(sums[i] / kKeys, x[i], 6.5 * step / std::sqrt(kKeys))
          << text << ": " << x[i];
    }
  }
}

TEST(EoqTest, CodesOutOfRangeAreRefused) {
  auto codec = MakeCodec("eoq_shift8");
  ASSERT_TRUE(codec.ok());
  const std::vector<uint8_t> payload = {126, 0x80};
  std::vector<float> out(1);

  EXPECT_EQ((*codec)->Decode(payload, absl::MakeSpan(out)).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
