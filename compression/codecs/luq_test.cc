#include "compression/codecs/luq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

double RelativeSquaredError(const std::vector<float>& x,
                            const std::vector<float>& y) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i]) - y[i], 2);
    norm += std::pow(static_cast<double>(x[i]), 2);
  }
  return error / norm;
}

// The alpha of each block of 128: the scale is 32 alpha.
std::vector<float> Alphas(const std::vector<uint8_t>& payload, size_t count) {
  std::vector<float> alphas(count / 128);
  for (size_t i = 0; i < alphas.size(); ++i) {
    uint16_t scale;
    std::memcpy(&scale, payload.data() + 2 * i, sizeof(scale));
    alphas[i] = BFloat16ToFloat(scale) / 32;
  }
  return alphas;
}

TEST(LuqTest, HasFifteenValuesAndAlphaIsTheBlockMaximumOverSixtyFour) {
  const auto codec = MakeForTest("luq");
  const std::vector<float> x = LognormalValues({2, -9}, 1 << 14, 1);
  const std::vector<uint8_t> payload = EncodeForTest(*codec, x);
  const std::vector<float> alphas = Alphas(payload, x.size());
  const std::vector<float> y = DecodeForTest(*codec, payload, x.size());

  std::set<float> values;
  for (size_t i = 0; i < x.size(); ++i) {
    values.insert(y[i] / alphas[i / 128]);
  }
  EXPECT_THAT(values, ElementsAre(-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8,
                                  16, 32, 64));
  for (size_t block = 0; block < alphas.size(); ++block) {
    float max = 0;
    for (size_t i = 128 * block; i < 128 * (block + 1); ++i) {
      max = std::max(max, std::fabs(x[i]));
    }
    EXPECT_GE(alphas[block] * 64, max);
    EXPECT_LE(alphas[block] * 64, max * (1 + 0x1p-7));
  }
}

// The paper's two steps, written down plainly: which two values x may become,
// and the upper one's probability. Over the draws of a block of equal x the
// count of the upper one is binomial; 6.5 standard deviations and 1, a false
// alarm in 10^9 for all of them together.
TEST(LuqTest, RoundsAsThePaperHasIt) {
  constexpr int kDraws = 127 * 64;
  const auto codec = MakeForTest("luq");
  std::mt19937 generator(3);
  std::uniform_real_distribution<float> exponent(-9, 6);
  for (uint64_t trial = 0; trial < 60; ++trial) {
    constexpr float kAlpha = 0.25f;
    const float x = kAlpha * std::exp2(exponent(generator));
    std::vector<float> values(128 * 64, -x);
    for (size_t i = 0; i < values.size(); i += 128) values[i] = 64 * kAlpha;
    double low = 0, high = kAlpha;
    while (x >= high) {
      low = high;
      high *= 2;
    }
    const double probability = (x - low) / (high - low);

    const std::vector<float> out =
        RoundTrip(*codec, values, {RandomKey{trial}});

    int num_high = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      if (i % 128 == 0) continue;
      ASSERT_TRUE(out[i] == -low || out[i] == -high) << x << ": " << out[i];
      num_high += out[i] == -high;
    }
    EXPECT_NEAR(num_high, kDraws * probability,
                6.5 * std::sqrt(kDraws * probability * (1 - probability)) + 1)
        << x;
  }
}

TEST(LuqTest, MeetsItsErrorAndSizeOnLognormalValues) {
  const auto codec = MakeForTest("luq(block=128)");
  std::vector<double> errors;
  for (uint32_t seed = 1; seed <= 15; ++seed) {
    const std::vector<float> x = LognormalValues({2, -9}, 1 << 15, seed);
    errors.push_back(
        RelativeSquaredError(x, RoundTrip(*codec, x, {RandomKey{seed}})));
  }
  std::nth_element(errors.begin(), errors.begin() + 7, errors.end());

  EXPECT_LE(errors[7], 0.02);
  EXPECT_LE(8.0 * codec->MaxPayloadBytes(1 << 20) / (1 << 20), 4.2);
}

TEST(LuqTest, SamplesDivideTheVariance) {
  const std::vector<float> x = LognormalValues({1, -9}, 1 << 15, 5);
  const double one = RelativeSquaredError(x, RoundTrip("luq", x));
  for (const int samples : {2, 4, 16}) {
    const std::string text = absl::StrCat("luq(samples=", samples, ")");

    EXPECT_NEAR(RelativeSquaredError(x, RoundTrip(text, x)) * samples, one,
                0.15 * one)
        << samples;
  }
}

TEST(LuqTest, HindsightTakesTheRunningMaximumAndClamps) {
  const auto codec = MakeForTest("luq(range=hindsight,momentum=0.25)");
  std::vector<float> memory;
  EncodeForTest(*codec, {1, -8, 2}, {RandomKey(), &memory});
  // The first tensor's own maximum, then 0.75 * 4 + 0.25 * 8 = 5.
  EXPECT_EQ(memory.back(), 8);
  EncodeForTest(*codec, {4, 0, 0}, {RandomKey(), &memory});
  EXPECT_EQ(memory.back(), 5);

  const std::vector<float> out = DecodeForTest(
      *codec, EncodeForTest(*codec, {100, -100, 5}, {RandomKey(), &memory}), 3);

  EXPECT_THAT(out, ElementsAre(5, -5, 5));
  EXPECT_EQ(memory.back(), 0.75f * 100 + 0.25f * 5);
}

TEST(LuqTest, WhatIsNotFiniteLeavesTheRunningMaximum) {
  const auto codec = MakeForTest("luq(range=hindsight)");
  std::vector<float> memory;
  EncodeForTest(*codec, {1, -8, 2}, {RandomKey(), &memory});
  const std::vector<float> before = memory;

  const std::vector<float> out = DecodeForTest(
      *codec,
      EncodeForTest(*codec, {1, std::numeric_limits<float>::infinity()},
                    {RandomKey(), &memory}),
      2);

  EXPECT_TRUE(std::isnan(out[0]) && std::isnan(out[1]));
  EXPECT_EQ(memory, before);
}

}  // namespace
}  // namespace deltapipe
