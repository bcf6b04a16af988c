#include "compression/codecs/luq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/float_cast.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

std::unique_ptr<Codec> Make(const std::string& text) {
  auto codec = MakeCodec(text);
  EXPECT_TRUE(codec.ok()) << codec.status();
  return *std::move(codec);
}

std::vector<float> Lognormal(size_t count, double sigma, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    const double magnitude = std::exp(sigma * normal(generator) - 9);
    value = static_cast<float>(generator() % 2 == 0 ? magnitude : -magnitude);
  }
  return values;
}

std::vector<uint8_t> Encode(const Codec& codec, const std::vector<float>& in,
                            uint64_t seed, std::vector<float>* memory) {
  std::vector<uint8_t> payload(codec.MaxPayloadBytes(in.size()));
  EXPECT_TRUE(codec
                  .EncodeNext(in, RandomKey{seed, 1, 2, 3, 1}, memory,
                              absl::MakeSpan(payload))
                  .ok());
  return payload;
}

std::vector<float> Decode(const Codec& codec,
                          const std::vector<uint8_t>& payload, size_t count) {
  std::vector<float> out(count);
  EXPECT_TRUE(codec.Decode(payload, absl::MakeSpan(out)).ok());
  return out;
}

std::vector<float> RoundTrip(const Codec& codec, const std::vector<float>& in,
                             uint64_t seed) {
  std::vector<float> memory;
  return Decode(codec, Encode(codec, in, seed, &memory), in.size());
}

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
  const auto codec = Make("luq");
  const std::vector<float> x = Lognormal(1 << 14, 2, 1);
  std::vector<float> memory;
  const std::vector<uint8_t> payload = Encode(*codec, x, 1, &memory);
  const std::vector<float> alphas = Alphas(payload, x.size());
  const std::vector<float> y = Decode(*codec, payload, x.size());

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
  const auto codec = Make("luq");
  std::mt19937 generator(3);
  std::uniform_real_distribution<float> exponent(-9, 6);
  for (int trial = 0; trial < 60; ++trial) {
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

    const std::vector<float> out = RoundTrip(*codec, values, trial);

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
  const auto codec = Make("luq(block=128)");
  std::vector<double> errors;
  for (uint32_t seed = 1; seed <= 15; ++seed) {
    const std::vector<float> x = Lognormal(1 << 15, 2, seed);
    errors.push_back(RelativeSquaredError(x, RoundTrip(*codec, x, seed)));
  }
  std::nth_element(errors.begin(), errors.begin() + 7, errors.end());

  EXPECT_LE(errors[7], 0.02);
  EXPECT_LE(8.0 * codec->MaxPayloadBytes(1 << 20) / (1 << 20), 4.2);
}

TEST(LuqTest, SamplesDivideTheVariance) {
  const std::vector<float> x = Lognormal(1 << 15, 1, 5);
  const double one = RelativeSquaredError(x, RoundTrip(*Make("luq"), x, 1));
  for (const int samples : {2, 4, 16}) {
    const auto codec = Make("luq(samples=" + std::to_string(samples) + ")");

    EXPECT_NEAR(RelativeSquaredError(x, RoundTrip(*codec, x, 1)) * samples, one,
                0.15 * one)
        << samples;
  }
}

TEST(LuqTest, HindsightTakesTheRunningMaximumAndClamps) {
  const auto codec = Make("luq(range=hindsight,momentum=0.25)");
  std::vector<float> memory;
  Encode(*codec, {1, -8, 2}, 1, &memory);
  // The first tensor's own maximum, then 0.75 * 4 + 0.25 * 8 = 5.
  EXPECT_EQ(memory.back(), 8);
  Encode(*codec, {4, 0, 0}, 1, &memory);
  EXPECT_EQ(memory.back(), 5);

  const std::vector<float> out =
      Decode(*codec, Encode(*codec, {100, -100, 5}, 1, &memory), 3);

  EXPECT_THAT(out, ElementsAre(5, -5, 5));
  EXPECT_EQ(memory.back(), 0.75f * 100 + 0.25f * 5);
}

TEST(LuqTest, WhatIsNotFiniteLeavesTheRunningMaximum) {
  const auto codec = Make("luq(range=hindsight)");
  std::vector<float> memory;
  Encode(*codec, {1, -8, 2}, 1, &memory);
  const std::vector<float> before = memory;

  const std::vector<float> out = Decode(
      *codec,
      Encode(*codec, {1, std::numeric_limits<float>::infinity()}, 1, &memory),
      2);

  EXPECT_TRUE(std::isnan(out[0]) && std::isnan(out[1]));
  EXPECT_EQ(memory, before);
}

}  // namespace
}  // namespace deltapipe
