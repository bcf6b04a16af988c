#include "compression/kernels/int_quantize.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/kernels/reference/int_quantize.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

std::vector<IntFormat> AllFormats() {
  std::vector<IntFormat> formats;
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t block : {16, 48, 64, 256}) {
      formats.push_back({bits, block, false, true});
      formats.push_back({bits, block, false, false});
      formats.push_back({bits, block, true, false});
      formats.push_back({bits, block, false, true, IntClipModel::kLaplace});
      formats.push_back({bits, block, false, true, IntClipModel::kGauss});
    }
  }
  return formats;
}

std::string FormatName(const IntFormat& format) {
  return absl::StrCat(format.bits, " bits, block ", format.block,
                      format.model == IntClipModel::kLaplace ? ", laplace"
                      : format.model == IntClipModel::kGauss ? ", gauss"
                      : format.is_stochastic                 ? ", stochastic"
                      : format.searches_clip                 ? ", search"
                                                             : ", minmax");
}

// Values of every kind, the awkward ones included.
std::vector<float> MixedValues(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::student_t_distribution<float> heavy(3);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    switch (i / 320 % 9) {
      case 0:
        values[i] = normal(generator);
        break;
      case 1:
        values[i] = heavy(generator) * 1e-3f;
        break;
      case 2:
        values[i] = 0;
        break;
      case 3:
        values[i] = 0.75f;
        break;
      case 4:
        values[i] = normal(generator) * 1e-42f;
        break;
      case 5:
        values[i] = normal(generator) * 1e30f;
        break;
      case 6:
        values[i] = i % 64 == 5 ? 3e38f : -3e38f;
        break;
      case 7:
        values[i] = normal(generator) * 1e-15f;
        break;
      case 8:
        values[i] = i % 200 == 7 ? -0.0f : normal(generator);
        break;
    }
  }
  if (count > 2500) {
    values[2600] = std::numeric_limits<float>::quiet_NaN();
    values[100] = -std::numeric_limits<float>::infinity();
  }
  return values;
}

TEST(IntQuantizeTest, VectorKernelsWriteTheReferenceBytes) {
  for (const size_t count : {1, 15, 64, 1000, 6151}) {
    const std::vector<float> storage = MixedValues(count + 1, 7);
    const auto values = absl::MakeConstSpan(storage).subspan(1);
    for (const IntFormat& format : AllFormats()) {
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", count ", count));
      const RandomKey key{11, 2, 3, 4, 1};
      const size_t size = IntPayloadBytes(format, count);
      std::vector<uint8_t> expected(size, 0xAA);
      reference::IntQuantize(format, values, key, expected.data());
      ForEachVectorTarget([&] {
        std::vector<uint8_t> payload(size, 0x55);
        IntQuantize(format, values, key, payload.data());
        ASSERT_EQ(payload, expected);
      });
    }
  }
}

// Values of nearly one size, but for a run that is 2^octaves as large.
std::vector<float> StepValues(std::mt19937* generator, size_t count,
                              int octaves) {
  std::normal_distribution<float> normal;
  const int exponent = static_cast<int>((*generator)() % 240) - 120;
  const size_t begin = (*generator)() % count;
  const size_t end = begin + (*generator)() % (count - begin) + 1;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const bool is_in_run = begin <= i && i < end;
    const float value =
        std::ldexp(normal(*generator), exponent + (is_in_run ? octaves : 0));
    values[i] = std::isfinite(value) ? value : 3e38f;
  }
  return values;
}

// Whether an encoder guesses a payload's window or not, rightly or wrongly.
TEST(IntQuantizeTest, TilesOfAnySizesGiveTheReferenceBytesAndValues) {
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    std::mt19937 generator(seed);
    for (const int octaves : {0, 1, -4, 6, -8, 9, -9, 14, -17, 19, -30}) {
      const size_t count = 1 + generator() % 9000;
      const auto values = StepValues(&generator, count, octaves);
      for (const IntFormat& format : AllFormats()) {
        SCOPED_TRACE(absl::StrCat(FormatName(format), ", count ", count, ", ",
                                  octaves, " octaves, seed ", seed));
        const RandomKey key{seed, 2, 3, 4, 1};
        const size_t size = IntPayloadBytes(format, count);
        std::vector<uint8_t> expected(size), payload(size, 0x55);
        std::vector<float> expected_values(count), restored(count, 1.0f);
        reference::IntQuantize(format, values, key, expected.data());
        reference::IntDequantize(format, expected.data(),
                                 absl::MakeSpan(expected_values));
        const size_t tile = format.block * (1 + generator() % 30);

        IntTileEncoder encoder(format, count, key, payload.data());
        do {
          for (size_t at = 0; at < count; at += tile) {
            encoder.Encode(absl::MakeConstSpan(values).subspan(at, tile),
                           restored.data() + at);
          }
        } while (!encoder.Finish());

        ASSERT_EQ(payload, expected);
        ASSERT_EQ(std::memcmp(restored.data(), expected_values.data(),
                              count * sizeof(float)),
                  0);
      }
    }
  }
}

// Most blocks small and a few large: a window that is guessed in between shows
// them all, the payload's own does not.
TEST(IntQuantizeTest, WindowsThatLeaveBlocksOutGiveTheReferenceBytes) {
  std::mt19937 generator(13);
  std::normal_distribution<float> normal;
  for (const int octaves : {6, 7, 8, 9}) {
    std::vector<float> values(9000);
    for (size_t i = 0; i < values.size(); ++i) {
      const int exponent = i < 1024 ? 0 : i < 8000 ? -octaves : octaves;
      values[i] = std::ldexp(normal(generator), exponent);
    }
    for (const IntFormat& format : AllFormats()) {
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", ", octaves, " octaves"));
      std::vector<uint8_t> expected(IntPayloadBytes(format, values.size()));
      reference::IntQuantize(format, values, RandomKey(), expected.data());
      ForEachVectorTarget([&] {
        std::vector<uint8_t> payload(expected.size(), 0x55);
        IntQuantize(format, values, RandomKey(), payload.data());
        ASSERT_EQ(payload, expected);
      });
    }
  }
}

TEST(IntQuantizeTest, VectorKernelsReadTheReferenceValuesFromAnyBytes) {
  std::mt19937 generator(5);
  for (const size_t count : {1, 17, 63, 1000, 4097}) {
    for (const IntFormat& format : AllFormats()) {
      SCOPED_TRACE(absl::StrCat(FormatName(format), ", count ", count));
      std::vector<uint8_t> payload(IntPayloadBytes(format, count));
      for (uint8_t& byte : payload) byte = static_cast<uint8_t>(generator());
      payload[0] = static_cast<uint8_t>(generator() % (kIntMaxWindow + 1));
      std::vector<float> expected(count);
      reference::IntDequantize(format, payload.data(),
                               absl::MakeSpan(expected));
      ForEachVectorTarget([&] {
        std::vector<float> values(count + 1, 12345.0f);
        IntDequantize(format, payload.data(),
                      absl::MakeSpan(values).subspan(1));
        ASSERT_EQ(std::memcmp(values.data() + 1, expected.data(),
                              count * sizeof(float)),
                  0);
      });
    }
  }
}

// Minimises the paper's expected squared errors by golden-section search.
TEST(IntQuantizeTest, ModelsClipWhereTheExpectedErrorIsLeast) {
  const auto laplace = [](double a, int bits) {
    return 2 * std::exp(-a) + a * a / (3 * std::pow(4, bits));
  };
  const auto gauss = [](double a, int bits) {
    return (1 + a * a) * std::erfc(a / std::sqrt(2.0)) -
           std::sqrt(2 / std::acos(-1.0)) * a * std::exp(-a * a / 2) +
           a * a / (3 * std::pow(4, bits));
  };
  const auto minimum = [](auto error, int bits) {
    const double ratio = (std::sqrt(5.0) - 1) / 2;
    double low = 0.1, high = 20;
    while (high - low > 1e-7) {
      const double left = high - ratio * (high - low);
      const double right = low + ratio * (high - low);
      if (error(left, bits) < error(right, bits)) {
        high = right;
      } else {
        low = left;
      }
    }
    return (low + high) / 2;
  };
  for (int bits = 1; bits <= 8; ++bits) {
    EXPECT_NEAR(IntOptimalClip(IntClipModel::kLaplace, bits),
                minimum(laplace, bits), 6e-5)
        << bits << " bits";
    EXPECT_NEAR(IntOptimalClip(IntClipModel::kGauss, bits),
                minimum(gauss, bits), 6e-5)
        << bits << " bits";
  }
}

TEST(IntQuantizeTest, CeilMagnitudeIsTheSmallestUnitNotBelowTheTarget) {
  std::mt19937 generator(3);
  for (int window = 0; window <= kIntMaxWindow; window += 5) {
    for (int i = 0; i < 2000; ++i) {
      const float target = BitsToFloat(generator() % 0x7F800000u);
      const int magnitude = IntCeilMagnitude(window, target);
      float smallest = std::numeric_limits<float>::infinity();
      for (int m = 1; m <= 126; ++m) {
        const float unit = IntUnit(window, m);
        if (unit >= target) smallest = std::min(smallest, unit);
      }
      ASSERT_EQ(IntUnit(window, magnitude), smallest)
          << "window " << window << ", target " << target;
    }
  }
}

}  // namespace
}  // namespace deltapipe
