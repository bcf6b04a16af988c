#include "compression/kernels/bit_packing.h"

#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

template <int kBits>
void ExpectRoundTrip() {
  std::mt19937 generator(kBits);
  for (size_t count = 1; count <= 70; ++count) {
    std::vector<uint8_t> codes((count + 7) / 8 * 8, 0xFF);
    for (size_t i = 0; i < count; ++i) {
      codes[i] = static_cast<uint8_t>(generator() % (1u << kBits));
    }
    for (size_t i = count; i < codes.size(); ++i) {
      codes[i] = (1u << kBits) - 1;
    }
    std::vector<uint8_t> packed((count * kBits + 7) / 8);
    PackCodes<kBits>(codes.data(), count, packed.data(),
                     packed.data() + packed.size());
    std::vector<uint8_t> unpacked(codes.size(), 0);
    UnpackCodes<kBits>(packed.data(), packed.data() + packed.size(), count,
                       unpacked.data());

    codes.resize(count);
    unpacked.resize(count);
    ASSERT_EQ(unpacked, codes) << kBits << " bits, " << count << " codes";
    const int used = static_cast<int>(count * kBits % 8);
    if (used != 0) {
      ASSERT_EQ(packed.back() >> used, 0);
    }
  }
}

TEST(BitPackingTest, UnpackingGivesTheCodesAndUnusedBitsAreZero) {
  ExpectRoundTrip<1>();
  ExpectRoundTrip<2>();
  ExpectRoundTrip<3>();
  ExpectRoundTrip<4>();
  ExpectRoundTrip<5>();
  ExpectRoundTrip<6>();
  ExpectRoundTrip<7>();
  ExpectRoundTrip<8>();
}

TEST(BitPackingTest, TheStreamIsLeastSignificantBitFirst) {
  const uint8_t codes[8] = {0b001, 0b010, 0b111, 0, 0, 0, 0, 0b100};
  uint8_t packed[3];

  PackCodes<3>(codes, 8, packed, packed + 3);

  EXPECT_THAT(packed, ElementsAre(0b11010001, 0b00000001, 0b10000000));
}

}  // namespace
}  // namespace deltapipe
