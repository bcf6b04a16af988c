#include "compression/codecs/int.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "compression/codec_registry.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

double Error(const std::string& text, const std::vector<float>& x) {
  return RelativeRmsError(x, RoundTrip(text, x));
}

// 2^16 values whose clip is computed for what they are.
TEST(IntTest, ComputedClipsComeNearTheSearchedOne) {
  const std::vector<float> laplace = LaplaceValues(1 << 16, 3);
  const std::vector<float> normal = MakeTestData(TestData::kNormal, 1 << 16, 4);
  for (const char* levels : {"symmetric", "affine"}) {
    for (const int bits : {2, 3, 4}) {
      const std::string text =
          absl::StrCat("int(", bits, ",block=1024,levels=", levels, ",clip=");
      SCOPED_TRACE(text);
      for (const auto& [clip, x] :
           std::vector<std::pair<const char*, const std::vector<float>*>>{
               {"laplace)", &laplace}, {"gauss)", &normal}}) {
        const double error = Error(absl::StrCat(text, clip), *x);

        EXPECT_LE(error, 1.15 * Error(absl::StrCat(text, "search)"), *x));
        EXPECT_LT(error, 0.9 * Error(absl::StrCat(text, "minmax)"), *x));
      }
    }
  }
}

// The paper's expected error takes what is rounded off for uniform, which at
// fewer bits it is not.
TEST(IntTest, LaplaceClipReachesTheExpectedErrorOfThePaper) {
  const std::vector<float> x = LaplaceValues(1 << 16, 6);
  const double clips[] = {5.029, 6.205, 7.413};
  for (int bits = 4; bits <= 6; ++bits) {
    const double a = clips[bits - 4];
    // Relative to E x^2 = 2 b^2.
    const double expected =
        std::sqrt((2 * std::exp(-a) + a * a / (3 * std::pow(4, bits))) / 2);

    const double error = Error(
        absl::StrCat("int(", bits, ",block=4096,clip=laplace,scale=fp32)"), x);

    EXPECT_NEAR(error / expected, 1, 0.06) << bits << " bits";
  }
}

TEST(IntTest, EqualValuesInAnAffineBlockComeBackExactly) {
  std::mt19937 generator(8);
  for (const char* text :
       {"int(1,block=16,levels=affine)", "int(4,levels=affine)",
        "int(8,round=stochastic,levels=affine)",
        "int(2,levels=affine,scale=bf16,axis=column,row=3)",
        "int(3,clip=laplace,levels=affine,scale=fp32)"}) {
    const auto codec = MakeForTest(text);
    for (int i = 0; i < 200; ++i) {
      const float value =
          BitsToFloat(generator() % 0x7F800000u | (generator() & 0x80000000u));
      for (const size_t count : {1, 2, 17, 64}) {
        const std::vector<float> x(count, value);
        ASSERT_EQ(RoundTrip(*codec, x), x) << text << ", " << count;
      }
    }
  }
}

// Values after GELU: none below -0.17, many just below 0, a long upper side.
TEST(IntTest, AffineLevelsSuitValuesThatAreNotCentred) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 16, 9);
  for (float& value : x) {
    value = static_cast<float>(0.5 * value * std::erfc(-value / std::sqrt(2)));
  }
  for (const int bits : {2, 3, 4, 8}) {
    const std::string text = absl::StrCat("int(", bits, ",clip=minmax");

    EXPECT_LT(Error(absl::StrCat(text, ",levels=affine)"), x),
              0.75 * Error(absl::StrCat(text, ")"), x))
        << text;
  }
  // Far from zero no symmetric grid is of use.
  for (float& value : x) value = 100 + 0.01f * value;
  EXPECT_LT(Error("int(4,levels=affine)", x), 5e-4);
}

TEST(IntTest, FloatScalesCoverTheBlockAndAreFiner) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 14, 10);
  for (const auto& [scale, slack] : std::vector<std::pair<const char*, double>>{
           {"bf16", 1 + 0x1p-7}, {"fp32", 1 + 1e-6}}) {
    const std::vector<float> y =
        RoundTrip(absl::StrCat("int(4,clip=minmax,scale=", scale, ")"), x);
    for (size_t begin = 0; begin < x.size(); begin += 64) {
      float max = 0;
      for (size_t i = begin; i < begin + 64; ++i) {
        max = std::max(max, std::fabs(x[i]));
      }
      for (size_t i = begin; i < begin + 64; ++i) {
        ASSERT_LE(std::fabs(x[i] - y[i]), max / 7 / 2 * slack) << scale;
      }
    }
  }
}

// Columns of very different size: a block down a column has one of them, so
// that each column's error is that of its own values.
TEST(IntTest, BlocksDownColumnsKeepColumnsApart) {
  constexpr size_t kColumns = 40, kRows = 300;
  std::vector<float> x =
      MakeTestData(TestData::kNormal, kColumns * kRows + 7, 11);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = std::ldexp(x[i], static_cast<int>(i % kColumns % 16) - 8);
  }

  const std::vector<float> y = RoundTrip("int(4,axis=column,row=40)", x);

  for (size_t column = 0; column < kColumns; ++column) {
    std::vector<float> of_x, of_y;
    for (size_t i = column; i < x.size(); i += kColumns) {
      of_x.push_back(x[i]);
      of_y.push_back(y[i]);
    }
    EXPECT_LE(RelativeRmsError(of_x, of_y), 0.115) << "column " << column;
  }
}

// The order of codes and scales that int.h gives: the tensor's bands, each
// transposed, encoded as a tensor of rows.
TEST(IntTest, BlocksDownColumnsAreThoseOfTheTransposedTensor) {
  constexpr size_t kColumns = 5, kBlock = 32, kBands = 3;
  const std::vector<float> x =
      MakeTestData(TestData::kNormal, kColumns * kBlock * kBands, 12);
  std::vector<float> transposed;
  for (size_t band = 0; band < kBands; ++band) {
    for (size_t column = 0; column < kColumns; ++column) {
      for (size_t row = 0; row < kBlock; ++row) {
        transposed.push_back(x[(band * kBlock + row) * kColumns + column]);
      }
    }
  }
  for (const char* rest : {"", ",levels=affine", ",scale=bf16"}) {
    EXPECT_EQ(
        EncodeForTest(
            absl::StrCat("int(4,block=32", rest, ",axis=column,row=5)"), x),
        EncodeForTest(absl::StrCat("int(4,block=32", rest, ")"), transposed));
  }
}

// 512 rows of 512 channels, five of which (1 %) are 100 times larger.
std::vector<float> OutlierChannels(uint32_t seed) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 18, seed);
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % 512 % 107 == 19) x[i] *= 100;
  }
  return x;
}

TEST(IntTest, SlowChannelScalesKeepOutlierChannelsFromTheOthers) {
  const std::vector<float> x = OutlierChannels(13);
  for (const auto& [bits, target] :
       std::vector<std::pair<int, double>>{{2, 0.35}, {3, 0.19}, {4, 0.10}}) {
    const std::string text = absl::StrCat("int(", bits, ",row=512");
    const std::vector<float> y =
        RoundTrip(absl::StrCat(text, ",channel=slow)"), x);
    const std::vector<float> without = RoundTrip(absl::StrCat(text, ")"), x);
    // Of the block of 64 channels with the first outlier, the others.
    std::vector<float> of_x, of_y, of_without;
    for (size_t i = 0; i < x.size(); ++i) {
      if (i % 512 >= 64 || i % 512 == 19) continue;
      of_x.push_back(x[i]);
      of_y.push_back(y[i]);
      of_without.push_back(without[i]);
    }

    EXPECT_LE(RelativeRmsError(x, y), 1.3 * target) << text;
    EXPECT_LE(RelativeRmsError(of_x, of_y), 1.3 * target) << text;
    EXPECT_GT(RelativeRmsError(of_x, of_without), 0.9) << text;
  }
}

TEST(IntTest, SlowChannelScalesRunAndTravelWithThePayload) {
  const auto codec = MakeForTest("int(4,channel=slow,row=512)");
  std::vector<float> memory;
  std::vector<float> x = OutlierChannels(14);
  RoundTrip(*codec, x, {RandomKey(), &memory});
  const std::vector<float> first = memory;

  // All channels twice as large: running mean squares grow by 0.1 * 3.
  for (float& value : x) value *= 2;
  const std::vector<float> y = RoundTrip(*codec, x, {RandomKey(), &memory});

  ASSERT_EQ(memory.size(), 2 + 512u);
  for (size_t c = 2; c < memory.size(); ++c) {
    EXPECT_NEAR(memory[c] / first[c], std::sqrt(1.3), 1e-5);
  }
  EXPECT_LE(RelativeRmsError(x, y), 0.13);
}

TEST(IntTest, RowsAreFilledInWhereTheyMatter) {
  EXPECT_EQ(*BindTensorShape("int(4)", {8, 128}), "int(4)");
  EXPECT_EQ(*BindTensorShape("int(4,axis=column)", {8, 128}),
            "int(4,axis=column,row=128)");
  EXPECT_EQ(*BindTensorShape("hadamard(int(4,channel=slow))", {8, 128}),
            "hadamard(int(4,channel=slow,row=128))");
}

TEST(IntTest, ErrorsNameTheParameterAndItsRange) {
  for (const auto& [text, part] :
       std::vector<std::pair<std::string, std::string>>{
           {"int(4,clip=laplac)",
            "clip: expected minmax|search|laplace|gauss, "
            "got laplac (did you mean 'laplace'?)"},
           {"int(4,levels=afine)", "did you mean 'affine'?"},
           {"int(4,scale=bf1)", "scale: expected log8|bf16|fp32, got bf1"},
           {"int(4,axis=columns)", "did you mean 'column'?"},
           {"int(9)", "bits: expected 1..8, got 9"}}) {
    EXPECT_THAT(std::string(MakeCodec(text).status().message()),
                HasSubstr(part));
  }
}

}  // namespace
}  // namespace deltapipe
