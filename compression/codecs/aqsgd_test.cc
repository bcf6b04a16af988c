#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

// _compress_nbits and _decompress_nbits of the authors' compress/fixpoint.py,
// operation by operation, with max over the rows.
std::vector<float> Published(const std::vector<float>& x, size_t row,
                             int bits) {
  const int fbits = bits - 1;
  const int clip_min = -(1 << fbits);
  const int clip_max = (1 << fbits) - 1;
  std::vector<float> y(x.size());
  for (size_t channel = 0; channel < row; ++channel) {
    float amax = 0;
    for (size_t i = channel; i < x.size(); i += row) {
      amax = std::fmax(amax, std::fabs(x[i]));
    }
    const float scale = Float16ToFloat(FloatToFloat16(amax));
    // Half and a Python number make a half.
    const float divisor = Float16ToFloat(FloatToFloat16(scale + 1e-6f));
    for (size_t i = channel; i < x.size(); i += row) {
      const float scaled = std::ldexp(x[i] / divisor, fbits);
      float level = std::nearbyint(scaled);
      level = std::fmin(std::fmax(level, clip_min), clip_max);
      const auto code = static_cast<uint8_t>(level - clip_min);
      y[i] = (static_cast<float>(code) + clip_min) / (clip_max + 1) * scale;
    }
  }
  return y;
}

TEST(AqsgdTest, IsThePublishedQuantizerToTheBit) {
  for (const size_t row : {1, 7, 64, 250}) {
    for (int bits = 1; bits <= 8; ++bits) {
      for (const float size : {1e-9f, 1e-6f, 0.01f, 1.0f, 3000.0f}) {
        SCOPED_TRACE(absl::StrCat(row, " channels, ", bits, " bits, ", size));
        std::vector<float> x =
            MakeTestData(TestData::kHeavyTailed, 1777, 10 * row + bits);
        for (size_t i = 0; i < x.size(); ++i) x[i] *= size;

        const std::vector<float> y =
            RoundTrip(absl::StrCat("aqsgd(", bits, ",row=", row, ")"), x);

        ASSERT_EQ(y, Published(x, row, bits));
      }
    }
  }
}

TEST(AqsgdTest, WithoutARowAllValuesAreOneChannel) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 500, 2);

  EXPECT_EQ(RoundTrip("aqsgd(3)", x), Published(x, 1, 3));
  EXPECT_EQ(RoundTrip("aqsgd(3)", x), RoundTrip("aqsgd(3,row=1)", x));
}

TEST(AqsgdTest, KnownDefectsAreKept) {
  // The positive maximum loses a step, the negative one does not.
  EXPECT_THAT(RoundTrip("aqsgd(2)", {1, -1, 0.5}), ElementsAre(0.5, -1, 0.5));
  EXPECT_THAT(RoundTrip("aqsgd(1)", {1, -1, 0.5}), ElementsAre(0, -1, 0));
  // fp16 has no such small scale.
  EXPECT_THAT(RoundTrip("aqsgd(8)", {2e-8f, -1e-8f}), ElementsAre(0, 0));
}

TEST(AqsgdTest, AChannelBeyondFloat16IsClippedAndNotLost) {
  EXPECT_THAT(RoundTrip("aqsgd(8,row=2)", {-1e6, 1, 65504, -1}),
              ElementsAre(-65504, 127.0f / 128, 127 * 511.75, -1));
}

TEST(AqsgdTest, ANanSpoilsItsChannelAlone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();

  const std::vector<float> y =
      RoundTrip("aqsgd(4,row=2)", {1, nan, -1, 1, -0.5, 2});

  EXPECT_THAT((std::vector<float>{y[0], y[2], y[4]}),
              ElementsAre(0.875, -1, -0.5));
  EXPECT_TRUE(std::isnan(y[1]) && std::isnan(y[3]) && std::isnan(y[5]));
}

}  // namespace
}  // namespace deltapipe
