#include "compression/kernels/narrow_floats.h"

#include <cstring>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// Every 16-bit pattern, and fp32 values at, between and just beside them.
std::vector<float> InterestingFloats() {
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u,
                               0x1000u, 0x3000u, 0x2FFFu}) {
      values.push_back(BitsToFloat(high << 16 | low));
    }
  }
  return values;
}

TEST(NarrowFloatsTest, VectorKernelsNarrowLikeFloatCast) {
  const std::vector<float> all = InterestingFloats();
  const auto values = absl::MakeConstSpan(all).subspan(1);
  for (const NarrowFloat type :
       {NarrowFloat::kBFloat16, NarrowFloat::kFloat16}) {
    std::vector<uint8_t> expected(2 * values.size());
    reference::NarrowFloats(type, values, expected.data());
    ForEachVectorTarget([&] {
      // One byte off, so that nothing is aligned.
      std::vector<uint8_t> narrow(2 * values.size() + 1);
      NarrowFloats(type, values, narrow.data() + 1);
      ASSERT_EQ(
          std::memcmp(narrow.data() + 1, expected.data(), expected.size()), 0);
    });
  }
}

TEST(NarrowFloatsTest, VectorKernelsWidenAllPatternsLikeFloatCast) {
  std::vector<uint8_t> narrow(2 * 0x10000 + 1);
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const uint16_t pattern = static_cast<uint16_t>(i);
    std::memcpy(narrow.data() + 1 + 2 * i, &pattern, sizeof(pattern));
  }
  for (const NarrowFloat type :
       {NarrowFloat::kBFloat16, NarrowFloat::kFloat16}) {
    std::vector<float> expected(0xFFFF);
    reference::WidenFloats(type, narrow.data() + 1, absl::MakeSpan(expected));
    ForEachVectorTarget([&] {
      std::vector<float> values(0xFFFF);
      WidenFloats(type, narrow.data() + 1, absl::MakeSpan(values));
      ASSERT_EQ(std::memcmp(values.data(), expected.data(),
                            expected.size() * sizeof(float)),
                0);
    });
  }
}

}  // namespace
}  // namespace deltapipe
