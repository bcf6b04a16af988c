#include "compression/codecs/nonzero.h"

#include <cfloat>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTwoBits[] =
    "nonzero(int(2,block=256,round=stochastic,levels=affine,scale=bf16))";

std::vector<float> Relu(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = std::max(normal(random), 0.0f);
  return values;
}

TEST(NonzeroTest, PayloadIsKindBitmapSignsAndInnerPayload) {
  const auto positive =
      EncodeForTest("nonzero(none)", {0.0f, 1.0f, -0.0f, 2.0f});
  const auto mixed = EncodeForTest("nonzero(none)", {0.0f, -1.0f});

  EXPECT_THAT(positive,
              ElementsAre(0, 0b1010, 0, 0, 0x80, 0x3F, 0, 0, 0, 0x40));
  EXPECT_THAT(mixed, ElementsAre(1, 0b10, 1, 0, 0, 0x80, 0xBF));
}

TEST(NonzeroTest, ZerosAndSignsComeBackExactlyThroughAnyCodec) {
  std::vector<float> values = Relu(5000, 1);
  for (size_t i = 0; i < values.size(); i += 3) values[i] = -values[i];
  values[7] = 1e-45f;
  values[8] = -1e-45f;
  values[9] = FLT_MAX;
  for (const char* codec :
       {"int(1)", "int(4)", "sign", "topk(0.1)", "error_bound(rel=0.1)",
        "int(2,block=256,round=stochastic,levels=affine,scale=bf16)",
        "mixed(2.5,row=500)", "per_head(int(4))", "cast(fp16)"}) {
    SCOPED_TRACE(codec);

    const std::vector<float> decoded =
        RoundTrip(absl::StrCat("nonzero(", codec, ")"), values);

    ASSERT_EQ(decoded.size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(decoded[i] > 0, values[i] > 0) << i << ": " << values[i];
      ASSERT_EQ(decoded[i] < 0, values[i] < 0) << i << ": " << values[i];
    }
  }
}

TEST(NonzeroTest, WhatTheCodecLosesBecomesTheSmallestNormalOfItsSign) {
  EXPECT_THAT(RoundTrip("nonzero(topk(0.2,values=none))",
                        {3.0f, 0.0f, -1.0f, 1.0f, 1.0f, -0.0f}),
              ElementsAre(3, 0, -FLT_MIN, FLT_MIN, FLT_MIN, 0));
}

TEST(NonzeroTest, NothingIsLostOfAllZerosAndOfNone) {
  const std::vector<float> zeros(1000, 0.0f);

  EXPECT_EQ(RoundTrip(kTwoBits, zeros), zeros);
  EXPECT_EQ(EncodeForTest("nonzero(int(4))", zeros).size(), 126);
  const std::vector<float> ones(1000, 1.0f);
  EXPECT_EQ(RoundTrip(kTwoBits, ones), ones);
}

TEST(NonzeroTest, HalfZerosInTwoBitsTakeTwoBitsPerElementWithTheMask) {
  const std::vector<float> values = Relu(1 << 16, 2);

  const double bits =
      8.0 * EncodeForTest(kTwoBits, values).size() / values.size();

  // 1 + 0.5 * (2 + 32 / 256) is 2.0625; half the values +- 0.6 %.
  EXPECT_NEAR(bits, 2.0625, 0.015);
}

// The least value of a block of ReLU survivors, rounded down to bf16, is not
// below zero, so that levels never cross it. Of 4096 draws of 512 values the
// mean error, in units of its standard deviation, exceeds 7.1 for any of them
// once in 10^9 (Azuma, for steps within the block's range / 3).
TEST(NonzeroTest, SurvivorsOfAReluAreUnbiased) {
  constexpr int kNumDraws = 4096;
  const std::vector<float> values = Relu(512, 4);
  std::vector<double> sums(values.size());
  float max = 0;
  for (const float value : values) max = std::max(max, value);

  for (int draw = 0; draw < kNumDraws; ++draw) {
    TestEncoding encoding;
    encoding.key.seed = 77 + draw;
    const std::vector<float> decoded = RoundTrip(kTwoBits, values, encoding);
    for (size_t i = 0; i < values.size(); ++i) {
      sums[i] += static_cast<double>(decoded[i]) - values[i];
    }
  }

  const double step = max / 3 * 1.02;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_LT(std::fabs(sums[i]), 7.1 * step * std::sqrt(double{kNumDraws}))
        << i;
  }
}

TEST(NonzeroTest, InfinitiesAndNanStayWhatTheyAre) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> decoded =
      RoundTrip("nonzero(none)", {-infinity, 0.0f, std::nanf(""), infinity});

  EXPECT_EQ(decoded[0], -infinity);
  EXPECT_EQ(decoded[1], 0);
  EXPECT_TRUE(std::isnan(decoded[2]));
  EXPECT_EQ(decoded[3], infinity);
}

TEST(NonzeroTest, DamagedPayloadsAreNamed) {
  const auto codec = MakeForTest("nonzero(none)");
  std::vector<float> out(4);
  const auto decode = [&](std::vector<uint8_t> payload) {
    return std::string(codec->Decode(payload, absl::MakeSpan(out)).message());
  };

  EXPECT_THAT(decode({0}),
              HasSubstr("payload of 1 bytes, expected at least 2"));
  EXPECT_THAT(decode({2, 0}), HasSubstr("kind 2, expected 0 or 1"));
  EXPECT_THAT(decode({0, 0x10}), HasSubstr("unused bits"));
  EXPECT_THAT(decode({1, 1}), HasSubstr("expected at least 3"));
  EXPECT_THAT(decode({1, 1, 2, 0, 0, 0, 0}), HasSubstr("unused bits"));
  EXPECT_THAT(decode({0, 1, 0, 0}),
              HasSubstr("payload of 2 bytes, expected 4"));
}

}  // namespace
}  // namespace deltapipe
