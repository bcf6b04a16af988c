#include "compression/codecs/error_bound.h"

#include <zstd.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/little_endian.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

absl::Status Decode(const std::string& text,
                    const std::vector<uint8_t>& payload,
                    std::vector<float>* out) {
  return (*MakeCodec(text))->Decode(payload, absl::MakeSpan(*out));
}

// Every kind of finite number: all exponents, both signs.
std::vector<float> AllExponents() {
  std::vector<float> values;
  for (uint32_t exponent = 0; exponent < 255; ++exponent) {
    for (const uint32_t mantissa : {0u, 1u, 0x2AAAAAu, 0x7FFFFFu}) {
      values.push_back(BitsToFloat(exponent << 23 | mantissa));
      values.push_back(-values.back());
    }
  }
  return values;
}

TEST(ErrorBoundTest, TheBoundIsStrictForEveryElement) {
  std::vector<std::vector<float>> tensors = {AllExponents()};
  for (const TestData data : kAllTestData) {
    tensors.push_back(MakeTestData(data, 3000, 21));
  }
  for (const std::string bound :
       {"abs=1e-44", "abs=1e-40", "abs=1e-9", "abs=0.01", "abs=1", "abs=1e30",
        "abs=3.3e38", "rel=1e-9", "rel=0.0001", "rel=0.01", "rel=0.9"}) {
    for (const std::vector<float>& x : tensors) {
      const std::string text = absl::StrCat("error_bound(", bound, ")");
      const std::vector<uint8_t> payload = EncodeForTest(text, x);
      std::vector<float> y(x.size());
      ASSERT_TRUE(Decode(text, payload, &y).ok());

      const auto statistics = ReadErrorBoundStatistics(payload);

      ASSERT_TRUE(statistics.ok()) << statistics.status();
      double max = 0, squares = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double error = std::fabs(static_cast<double>(x[i]) - y[i]);
        ASSERT_LE(error, statistics->bound) << text << ", " << x[i];
        if (std::fabs(x[i]) <= statistics->bound) {
          ASSERT_EQ(FloatBits(y[i]), 0) << text << ", " << x[i];
        }
        max = std::max(max, error);
        squares += error * error;
      }
      EXPECT_EQ(statistics->max_error, max) << text;
      EXPECT_NEAR(statistics->mean_square_error,
                  std::min(squares / x.size(), double{FLT_MAX}),
                  1e-6 * squares / x.size() + 1e-45)
          << text;
    }
  }
}

TEST(ErrorBoundTest, TheBoundIsTheOneAskedFor) {
  const std::vector<float> x = {0.5f, -3, 2};

  EXPECT_NEAR(ReadErrorBoundStatistics(EncodeForTest("error_bound(abs=0.1)", x))
                  .value()
                  .bound,
              0.1, 1e-8);
  EXPECT_NEAR(
      ReadErrorBoundStatistics(EncodeForTest("error_bound(rel=0.01)", x))
          .value()
          .bound,
      0.03, 1e-8);
}

TEST(ErrorBoundTest, NanAndInfinitiesKeepTheirBits) {
  std::vector<float> x(200, 1.5f);
  x[3] = BitsToFloat(0x7FC12345u);
  x[4] = -std::numeric_limits<float>::infinity();
  x[199] = BitsToFloat(0xFFC00001u);
  std::vector<float> y(x.size());

  ASSERT_TRUE(Decode("error_bound", EncodeForTest("error_bound", x), &y).ok());

  for (const size_t i : {3, 4, 199})
    EXPECT_EQ(FloatBits(y[i]), FloatBits(x[i]));
  EXPECT_NEAR(y[100], 1.5, 0.0015);
}

double BitsPerElement(const std::string& text, const std::vector<float>& x) {
  return 8.0 * EncodeForTest(text, x).size() / x.size();
}

// The entropy of a normal value in steps s is log2(sqrt(2 pi e) / s).
TEST(ErrorBoundTest, SizesFollowTheEntropy) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 18, 22);

  for (const auto& [bound, share] : std::vector<std::pair<double, double>>{
           {0.0003, 1.05}, {0.001, 1.05}, {0.01, 1.05}, {0.1, 1.15}}) {
    EXPECT_LE(BitsPerElement(absl::StrCat("error_bound(abs=", bound, ")"), x),
              share * std::log2(4.1327 / (2 * bound)))
        << bound;
  }
}

TEST(ErrorBoundTest, ZerosOfAReluCostLittle) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 18, 22);
  const double bits = BitsPerElement("error_bound(abs=0.01)", x);
  for (float& value : x) value = std::max(value, 0.0f);

  EXPECT_LE(BitsPerElement("error_bound(abs=0.01)", x), 0.62 * bits);
}

TEST(ErrorBoundTest, SmoothTensorsAreSentAsDifferences) {
  std::vector<float> smooth(1 << 16), noisy(1 << 16);
  for (size_t i = 0; i < smooth.size(); ++i) {
    smooth[i] = 1000 * std::sin(static_cast<float>(i) * 1e-3f);
    noisy[i] = smooth[i * 40503 % smooth.size()];
  }

  EXPECT_LE(EncodeForTest("error_bound(abs=0.5)", smooth).size(),
            EncodeForTest("error_bound(abs=0.5)", noisy).size() / 4);
}

TEST(ErrorBoundTest, WhatDoesNotCompressCostsFourBytes) {
  std::vector<float> x(70000);
  for (uint32_t i = 0; i < x.size(); ++i) {
    const PhiloxBlock words = Philox4x32({i, 0, 0, 0}, {1, 2});
    x[i] = BitsToFloat((words[0] & 0x807FFFFFu) | (words[1] % 254 + 1) << 23);
  }

  EXPECT_EQ(EncodeForTest("error_bound(abs=1e-44)", x).size(),
            12 + 2 * 4 + 4 * x.size());
}

// A frame that would unpack to a gigabyte stops at 6 bytes per element.
TEST(ErrorBoundTest, AFrameThatIsLargerThanItsChunkIsAnError) {
  const std::vector<uint8_t> zeros(1 << 22, 0);
  std::vector<uint8_t> frame(ZSTD_compressBound(zeros.size()));
  frame.resize(
      ZSTD_compress(frame.data(), frame.size(), zeros.data(), zeros.size(), 3));
  std::vector<uint8_t> payload = EncodeForTest("error_bound", {1, 2, 3});
  payload.resize(12 + 4);
  StoreLittleEndian(static_cast<uint32_t>(4 * frame.size() + 1),
                    payload.data() + 12);
  payload.insert(payload.end(), frame.begin(), frame.end());
  std::vector<float> out(3);

  const absl::Status status = Decode("error_bound", payload, &out);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the chunk of element 0 of 3: zstd: "));
}

TEST(ErrorBoundTest, SettingsThatCannotBeAreErrors) {
  EXPECT_THAT(std::string(MakeCodec("error_bound(abs=0)").status().message()),
              HasSubstr("abs: expected off or above 0, below"));
  EXPECT_THAT(std::string(MakeCodec("error_bound(rel=2)").status().message()),
              HasSubstr("rel: expected above 0, below 1, got 2"));
  EXPECT_THAT(
      std::string(MakeCodec("error_bound(abs=1,rel=0.1)").status().message()),
      HasSubstr("error_bound: expected abs or rel, got both"));
}

}  // namespace
}  // namespace deltapipe
