#include "compression/kernels/channel_quantize.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/reference/channel_quantize.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// Of all sizes, with zeros, NaN and infinities among them.
std::vector<float> AnyValues(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(generator);
    switch (generator() % 16) {
      case 0:
        value = BitsToFloat(static_cast<uint32_t>(generator()));
        break;
      case 1:
        value = 0;
        break;
      case 2:
        value = std::numeric_limits<float>::quiet_NaN();
        break;
    }
  }
  return values;
}

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(FloatBits(value));
  return bits;
}

class ChannelQuantizeTest : public ::testing::Test {
 protected:
  // Counts on both sides of each vector's size.
  static constexpr size_t kCounts[] = {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 100};
};

TEST_F(ChannelQuantizeTest, MaximaAreTheReferences) {
  ForEachVectorTarget([] {
    for (const size_t count : kCounts) {
      const std::vector<float> row = AnyValues(count, 1);
      std::vector<float> maxima(count, 0.5f), expected = maxima;

      UpdateChannelMaxima(row, absl::MakeSpan(maxima));

      reference::UpdateChannelMaxima(row, absl::MakeSpan(expected));
      ASSERT_EQ(Bits(maxima), Bits(expected)) << count;
    }
  });
}

TEST_F(ChannelQuantizeTest, CodesAndValuesAreTheReferences) {
  ForEachVectorTarget([] {
    for (const size_t count : kCounts) {
      for (const bool is_one : {false, true}) {
        for (const float half : {1.0f, 8.0f, 128.0f}) {
          // Divisors are never 0; values are finite where divisors are.
          std::vector<float> channels = AnyValues(is_one ? 1 : count, 2);
          for (float& channel : channels) {
            channel = std::fabs(channel) + 1e-6f;
          }
          std::vector<float> row = AnyValues(count, 3);
          for (float& value : row) {
            if (!std::isfinite(value)) value = 1e30f;
          }
          std::vector<uint8_t> codes(count), expected_codes(count);
          std::vector<float> values(count), expected_values(count);

          ChannelCodes(row, channels, half, codes.data());
          ChannelValues(codes.data(), channels, half, absl::MakeSpan(values));

          reference::ChannelCodes(row, channels, half, expected_codes.data());
          reference::ChannelValues(codes.data(), channels, half,
                                   absl::MakeSpan(expected_values));
          ASSERT_EQ(codes, expected_codes) << count << ", " << half;
          ASSERT_EQ(Bits(values), Bits(expected_values)) << count;
        }
      }
    }
  });
}

}  // namespace
}  // namespace deltapipe
