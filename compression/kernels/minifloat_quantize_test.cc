#include "compression/kernels/minifloat_quantize.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/kernels/reference/minifloat_quantize.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr RandomKey kKey{11, 2, 3, 4, 1};

std::vector<MinifloatFormat> AllFormats() {
  std::vector<MinifloatFormat> formats;
  for (int exponent = 1; exponent <= 7; ++exponent) {
    for (int mantissa = 0; exponent + mantissa <= 7; ++mantissa) {
      for (const bool is_stochastic : {false, true}) {
        formats.push_back({exponent, mantissa, 48, is_stochastic, 1});
      }
    }
  }
  for (const int64_t block : {0, 16, 128, 2048}) {
    formats.push_back({3, 0, block, true, 1});
    formats.push_back({3, 0, block, true, 3});
    formats.push_back({4, 2, block, false, 1});
  }
  return formats;
}

std::string FormatName(const MinifloatFormat& format) {
  return absl::StrCat("1-", format.exponent_bits, "-", format.mantissa_bits,
                      ", block ", format.block, ", ", format.num_samples,
                      format.is_stochastic ? " stochastic" : " nearest");
}

// Values of every kind, the awkward ones included.
std::vector<float> MixedValues(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const float scales[] = {1, 1e-3f, 0, 1e-42f, 1e30f, 3e38f, 1e-15f};
    values[i] = normal(generator) * scales[i / 160 % 7];
    if (!std::isfinite(values[i])) values[i] = 3e38f;
    // So small a fraction that 16 random bits often do not decide.
    if (i % 5 == 0) values[i] = std::ldexp(1 + 0x1p-22f, -(i % 7));
    if (i % 200 == 7) values[i] = -0.0f;
  }
  if (count > 2500) {
    values[2600] = std::numeric_limits<float>::quiet_NaN();
    values[100] = -std::numeric_limits<float>::infinity();
  }
  return values;
}

TEST(MinifloatQuantizeTest, VectorKernelsWriteTheReferenceBytes) {
  for (const size_t count : {1, 15, 64, 1000, 5151}) {
    const std::vector<float> storage = MixedValues(count + 1, 7);
    const auto values = absl::MakeConstSpan(storage).subspan(1);
    for (const MinifloatFormat& format : AllFormats()) {
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", count ", count));
      const size_t size = MinifloatPayloadBytes(format, count);
      std::vector<uint8_t> expected(size, 0xAA);
      reference::MinifloatQuantize(format, values, kKey, expected.data());
      ForEachVectorTarget([&] {
        std::vector<uint8_t> payload(size, 0x55);
        MinifloatQuantize(format, values, kKey, payload.data());
        ASSERT_EQ(payload, expected);
      });
    }
  }
}

TEST(MinifloatQuantizeTest, VectorKernelsWriteTheReferenceBytesInAGivenRange) {
  std::vector<float> values = MixedValues(2000, 8);
  values[100] = 5;
  for (const float range : {1.0f, 1e-3f, 3e38f, 1e-40f}) {
    for (MinifloatFormat format : AllFormats()) {
      format.block = 0;
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", range ", range));
      const size_t size = MinifloatPayloadBytes(format, values.size());
      std::vector<uint8_t> expected(size, 0xAA);
      reference::MinifloatQuantizeInRange(format, range, values, kKey,
                                          expected.data());
      ForEachVectorTarget([&] {
        std::vector<uint8_t> payload(size, 0x55);
        MinifloatQuantizeInRange(format, range, values, kKey, payload.data());
        ASSERT_EQ(payload, expected);
      });
    }
  }
}

TEST(MinifloatQuantizeTest, VectorKernelsReadTheReferenceValuesFromAnyCodes) {
  std::mt19937 generator(5);
  for (const size_t count : {1, 17, 63, 1000, 4097}) {
    for (const MinifloatFormat& format : AllFormats()) {
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", count ", count));
      std::vector<uint8_t> payload(MinifloatPayloadBytes(format, count));
      for (uint8_t& byte : payload) byte = static_cast<uint8_t>(generator());
      for (int64_t i = 0; i < MinifloatNumBlocks(format, count); ++i) {
        uint16_t scale = static_cast<uint16_t>(generator() % 0x7F01);
        if (!IsMinifloatScale(scale)) scale = kMinifloatScaleNonFinite;
        std::memcpy(payload.data() + 2 * i, &scale, sizeof(scale));
      }
      std::vector<float> expected(count);
      reference::MinifloatDequantize(format, payload.data(),
                                     absl::MakeSpan(expected));
      ForEachVectorTarget([&] {
        std::vector<float> values(count + 1, 12345.0f);
        MinifloatDequantize(format, payload.data(),
                            absl::MakeSpan(values).subspan(1));
        ASSERT_EQ(std::memcmp(values.data() + 1, expected.data(),
                              count * sizeof(float)),
                  0);
      });
    }
  }
}

// The magnitudes of a format by the text of minifloat_format.h.
std::vector<double> Magnitudes(const MinifloatFormat& format) {
  std::vector<double> magnitudes;
  const int top = format.largest_exponent();
  const int fractions = 1 << format.mantissa_bits;
  for (int e = 0; e <= top; ++e) {
    for (int f = 0; f < fractions; ++f) {
      const double fraction = static_cast<double>(f) / fractions;
      magnitudes.push_back(e > 0 ? std::ldexp(1 + fraction, e - top + 1)
                                 : std::ldexp(fraction, 2 - top));
    }
  }
  return magnitudes;
}

TEST(MinifloatQuantizeTest, CodesStandForTheMagnitudesOfTheFormat) {
  for (MinifloatFormat format : AllFormats()) {
    format.num_samples = 1;
    const std::vector<double> magnitudes = Magnitudes(format);
    EXPECT_EQ(format.top(), magnitudes.back());
    for (size_t magnitude = 0; magnitude < magnitudes.size(); ++magnitude) {
      for (const bool is_negative : {false, true}) {
        const size_t code = magnitude + (is_negative ? magnitudes.size() : 0);
        // A scale of 1 and one code.
        const uint8_t payload[3] = {0x80, 0x3F, static_cast<uint8_t>(code)};
        float value = 0;

        MinifloatDequantize(format, payload, absl::MakeSpan(&value, 1));

        EXPECT_EQ(value,
                  is_negative ? -magnitudes[magnitude] : magnitudes[magnitude])
            << FormatName(format) << ", code " << code;
      }
    }
  }
}

TEST(MinifloatQuantizeTest, NearestTakesTheNearestMagnitude) {
  std::mt19937 generator(6);
  std::uniform_real_distribution<float> exponent(-20, 0);
  for (const MinifloatFormat& format : AllFormats()) {
    if (format.is_stochastic) continue;
    const std::vector<double> magnitudes = Magnitudes(format);
    std::vector<float> values(format.block == 0 ? 64 : format.block);
    for (float& value : values) {
      value = format.top() * std::exp2(exponent(generator));
    }
    values[3] = format.top();  // a scale of 1
    std::vector<uint8_t> payload(MinifloatPayloadBytes(format, values.size()));
    std::vector<float> out(values.size());

    MinifloatQuantize(format, values, kKey, payload.data());
    MinifloatDequantize(format, payload.data(), absl::MakeSpan(out));

    for (size_t i = 0; i < values.size(); ++i) {
      double nearest = magnitudes[0];
      for (const double magnitude : magnitudes) {
        if (std::fabs(magnitude - values[i]) < std::fabs(nearest - values[i])) {
          nearest = magnitude;
        }
      }
      EXPECT_LE(std::fabs(out[i] - values[i]),
                std::fabs(nearest - values[i]) + 1e-6)
          << FormatName(format) << ": " << values[i] << " became " << out[i];
    }
  }
}

// A fraction below 2^-16 of the step is rounded up as often as it should be:
// the second word decides. 2^24 draws of a fraction of 2^-18 in expectation
// round up 64 times; Poisson, P(|k - 64| > 52) < 1e-9.
TEST(MinifloatQuantizeTest, FractionsBelowSixteenBitsAreRoundedWithoutBias) {
  constexpr size_t kCount = size_t{1} << 20;
  MinifloatFormat format{3, 0, 0, true, 1};
  std::vector<float> values(kCount, 1 + 0x1p-18f);
  values[0] = format.top();
  std::vector<uint8_t> payload(MinifloatPayloadBytes(format, kCount));
  std::vector<float> out(kCount);
  int num_up = 0;
  for (uint64_t seed = 0; seed < 16; ++seed) {
    MinifloatQuantize(format, values, RandomKey{seed, 1, 2, 3, 0},
                      payload.data());
    MinifloatDequantize(format, payload.data(), absl::MakeSpan(out));
    for (size_t i = 1; i < kCount; ++i) num_up += out[i] == 2;
  }
  EXPECT_GE(num_up, 8);
  EXPECT_LE(num_up, 128);
}

TEST(MinifloatQuantizeTest, ScalesPutTheLargestValueJustBelowTheTop) {
  std::mt19937 generator(9);
  for (const MinifloatFormat& format : AllFormats()) {
    for (int i = 0; i < 1000; ++i) {
      const uint32_t bits = 1 + generator() % 0x7F7FFFFF;
      const uint16_t scale = MinifloatScale(format, bits);
      ASSERT_TRUE(IsMinifloatScale(scale));
      const double top =
          static_cast<double>(BFloat16ToFloat(scale)) * format.top();
      ASSERT_GE(top * (1 + 1e-7), BitsToFloat(bits));
      if (scale > kMinifloatScaleSmallest) {
        ASSERT_LE(top, BitsToFloat(bits) * (1 + 0x1p-7) * (1 + 1e-7));
      }
    }
  }
}

}  // namespace
}  // namespace deltapipe
