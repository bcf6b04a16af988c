#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/kernels/tile_rotation.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

// Activations with one large value in every other tile of 32.
std::vector<float> WithOutliers(size_t count, uint32_t seed) {
  std::vector<float> x = MakeTestData(TestData::kNormal, count, seed);
  for (size_t i = 0; i + 64 <= count; i += 64) x[i + i / 64 % 32] = 60;
  return x;
}

TEST(HadamardTest, RotationIsTheDefinition) {
  for (const size_t size : {8, 32, 128}) {
    const std::vector<float> x = MakeTestData(TestData::kNormal, size, 51);
    std::vector<float> y = x;

    RotateTile(absl::MakeSpan(y));

    for (size_t r = 0; r < size; ++r) {
      double sum = 0;
      for (size_t c = 0; c < size; ++c) {
        sum += __builtin_parityll(r & c) ? -x[c] : x[c];
      }
      ASSERT_NEAR(y[r], sum / std::sqrt(size), 1e-5);
    }
  }
}

TEST(HadamardTest, OnlyTilesWithAnOutlierAreRotated) {
  std::vector<float> x(4 * 8, 1.0f);
  x[8 + 3] = 2.1f;  // more than twice the second largest
  x[16 + 7] = -5;   // on either side
  x[24] = 2;        // not more

  EXPECT_EQ(FindOutlier(absl::MakeSpan(x).subspan(0, 8), 2), -1);
  EXPECT_EQ(FindOutlier(absl::MakeSpan(x).subspan(8, 8), 2), 3);
  EXPECT_EQ(FindOutlier(absl::MakeSpan(x).subspan(16, 8), 2), 7);
  EXPECT_EQ(FindOutlier(absl::MakeSpan(x).subspan(24, 8), 2), -1);
  // Fields of 4 bits: 0, 4, 8, 0.
  const std::vector<uint8_t> payload =
      EncodeForTest("hadamard(none,tile=8)", x);
  EXPECT_EQ(payload.size(), 2 + 4 * x.size());
  EXPECT_EQ(payload[0], 4 << 4);
  EXPECT_EQ(payload[1], 8);
}

TEST(HadamardTest, RotatedTilesComeBack) {
  for (const int tile : {8, 16, 32, 64, 128}) {
    const std::vector<float> x = WithOutliers(5000, 52);

    const std::vector<float> y = RoundTrip(
        absl::StrCat("hadamard(none,tile=", tile, ",threshold=0.5)"), x);

    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], x[i], 1e-4);
  }
}

// What 4 bits lose of the values beside the outliers is several times less.
TEST(HadamardTest, OutliersNoLongerTakeTheResolutionOfTheirTiles) {
  const std::vector<float> x = WithOutliers(1 << 16, 53);
  const auto rest_error = [&x](const std::string& text) {
    const std::vector<float> y = RoundTrip(text, x);
    std::vector<float> rest_x, rest_y;
    for (size_t i = 0; i < x.size(); ++i) {
      if (x[i] == 60) continue;
      rest_x.push_back(x[i]);
      rest_y.push_back(y[i]);
    }
    return RelativeRmsError(rest_x, rest_y);
  };

  for (const auto& [codec, share] : std::vector<std::pair<std::string, double>>{
           {"int(4,block=32,clip=minmax)", 0.75}, {"rowwise4(row=32)", 0.5}}) {
    EXPECT_LE(rest_error(absl::StrCat("hadamard(", codec, ")")),
              share * rest_error(codec))
        << codec;
  }
}

TEST(HadamardTest, RotatedTilesAreUnbiased) {
  const std::vector<float> x = WithOutliers(64, 54);
  const std::string text = "hadamard(int(4,block=32,round=stochastic))";
  std::vector<double> mean(x.size(), 0);
  constexpr int kDraws = 4000;
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    const std::vector<float> y = RoundTrip(text, x, {RandomKey{draw}});
    for (size_t i = 0; i < x.size(); ++i) mean[i] += y[i] / double{kDraws};
  }

  // Rotated values are below 60 / sqrt(32) + 3 * sqrt(32) = 28, a step below
  // 28 / 7 * cbrt(2) = 5.1. The rotation keeps the mean square: an error's
  // standard deviation is below 5.1 / 2, that of 4,000 draws below 0.04. Ten of
  // them: 64 * 2e-23.
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(mean[i], x[i], 0.4) << i;
}

TEST(HadamardTest, AFieldBeyondTheTileIsAnError) {
  const auto codec = MakeCodec("hadamard(none,tile=8)");
  ASSERT_TRUE(codec.ok());
  std::vector<uint8_t> payload(1 + 32, 0);
  payload[0] = 9;
  std::vector<float> out(8);

  EXPECT_THAT(
      std::string((*codec)->Decode(payload, absl::MakeSpan(out)).message()),
      HasSubstr("tile 0 has the field 9, expected at most 8"));
}

TEST(HadamardTest, SettingsThatCannotBeAreErrors) {
  EXPECT_THAT(
      std::string(MakeCodec("hadamard(none,tile=24)").status().message()),
      HasSubstr("tile: expected 8|16|32|64|128, got 24"));
  EXPECT_THAT(
      std::string(MakeCodec("hadamard(delta(int(4)))").status().message()),
      HasSubstr("column 10: codec: expected a codec without state, got "
                "delta(int(4)) (the nearest is int(4)"));
}

}  // namespace
}  // namespace deltapipe
