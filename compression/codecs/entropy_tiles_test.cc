#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

// H = -sum p log p of each tile of 32, and the highest 80 % of them.
std::vector<bool> HighestEntropies(const std::vector<float>& row) {
  const size_t num_tiles = row.size() / 32;
  std::vector<double> entropies(num_tiles, 0);
  for (size_t t = 0; t < num_tiles; ++t) {
    double total = 0;
    for (size_t i = 32 * t; i < 32 * t + 32; ++i) total += std::fabs(row[i]);
    for (size_t i = 32 * t; i < 32 * t + 32; ++i) {
      const double p = std::fabs(row[i]) / total;
      entropies[t] -= p * std::log(p);
    }
  }
  std::vector<size_t> order(num_tiles);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return entropies[a] > entropies[b]; });
  std::vector<bool> is_high(num_tiles, false);
  const auto num_high = static_cast<size_t>(std::lround(0.8 * num_tiles));
  for (size_t i = 0; i < num_high; ++i) is_high[order[i]] = true;
  return is_high;
}

TEST(EntropyTilesTest, TheHighestEntropiesOfARowTakeFourBits) {
  const std::vector<float> x =
      MakeTestData(TestData::kHeavyTailed, 32 * 40, 71);

  const std::vector<uint8_t> payload = EncodeForTest("entropy_tiles", x);

  const std::vector<bool> expected = HighestEntropies(x);
  for (size_t t = 0; t < expected.size(); ++t) {
    ASSERT_EQ((payload[t / 8] >> (t % 8) & 1) != 0, expected[t]) << t;
  }
}

TEST(EntropyTilesTest, ErrorsAreHalfAStepOfTheTile) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 32 * 50, 72);
  const std::vector<bool> is_high = HighestEntropies(x);

  const std::vector<float> y = RoundTrip("entropy_tiles", x);

  for (size_t i = 0; i < x.size(); ++i) {
    const auto begin = x.begin() + i / 32 * 32;
    const auto [low, high] = std::minmax_element(begin, begin + 32);
    const double step = (*high - *low) / (is_high[i / 32] ? 15 : 7);
    ASSERT_LE(std::fabs(y[i] - x[i]), step / 2 * (1 + 0x1p-6)) << i;
  }
}

TEST(EntropyTilesTest, SizesAreThoseOfTheTiles) {
  const auto codec = MakeCodec("entropy_tiles(row=320)");
  ASSERT_TRUE(codec.ok());

  // A row: 10 bits, 10 fields of 3 bytes, 8 tiles of 16 bytes and 2 of 12.
  EXPECT_EQ((*codec)->MaxPayloadBytes(640), 2 * (2 + 30 + 8 * 16 + 2 * 12));
  EXPECT_EQ((*codec)->MaxPayloadBytes(5), 3 + 3);
  EXPECT_LE((*MakeCodec("hadamard(entropy_tiles)"))->traits().bits_per_element,
            4.78);
}

// One large value in every other tile: what TAH-Quant is for.
TEST(EntropyTilesTest, AfterARotationOutliersCostLittle) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 15, 73);
  std::vector<bool> is_outlier(x.size(), false);
  for (size_t i = 0; i + 64 <= x.size(); i += 64) {
    is_outlier[i + i / 64 % 32] = true;
    x[i + i / 64 % 32] = 40;
  }
  const auto rest_error = [&](const std::string& text) {
    const std::vector<float> y = RoundTrip(text, x);
    std::vector<float> rest_x, rest_y;
    for (size_t i = 0; i < x.size(); ++i) {
      if (is_outlier[i]) continue;
      rest_x.push_back(x[i]);
      rest_y.push_back(y[i]);
    }
    return RelativeRmsError(rest_x, rest_y);
  };

  EXPECT_LE(rest_error("hadamard(entropy_tiles)"),
            0.5 * rest_error("entropy_tiles"));
  EXPECT_LE(rest_error("hadamard(entropy_tiles)"), 0.2);
}

TEST(EntropyTilesTest, ZerosAndFarTilesStay) {
  EXPECT_THAT(RoundTrip("entropy_tiles", std::vector<float>(100, 0)), Each(0));
  EXPECT_THAT(RoundTrip("entropy_tiles", std::vector<float>(100, 127)),
              Each(127));
}

TEST(EntropyTilesTest, AWrongNumberOfTilesIsAnError) {
  const auto codec = MakeCodec("entropy_tiles");
  ASSERT_TRUE(codec.ok());
  std::vector<uint8_t> payload =
      EncodeForTest("entropy_tiles", std::vector<float>(320, 1));
  payload[0] = 0;
  std::vector<float> out(320);

  EXPECT_THAT(
      std::string((*codec)->Decode(payload, absl::MakeSpan(out)).message()),
      HasSubstr("tiles of 4 bits, expected 8 of 10"));
}

}  // namespace
}  // namespace deltapipe
