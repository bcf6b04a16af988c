#include "base/philox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace deltapipe {
namespace {

using testing::ElementsAre;

// Known answers that Random123 publishes for philox4x32-10.
TEST(PhiloxTest, KnownAnswerOfZeros) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
}

TEST(PhiloxTest, KnownAnswerOfOnes) {
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
}

TEST(PhiloxTest, KnownAnswerOfTheDigitsOfPi) {
  EXPECT_THAT(Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                         {0xa4093822u, 0x299f31d0u}),
              ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(RandomKeyTest, EveryFieldChangesTheBits) {
  const RandomKey base{17, 2, 3, 4, 0};
  std::vector<RandomKey> keys(7, base);
  keys[1].seed = 18;
  keys[2].seed = 17 | (uint64_t{1} << 40);
  keys[3].tensor_id = 5;
  keys[4].step = 6;
  keys[5].slot = 7;
  keys[6].direction = 1;

  std::set<PhiloxBlock> blocks;
  for (const RandomKey& key : keys) {
    blocks.insert(Philox4x32(key.PhiloxCounter(9), key.PhiloxKey()));
  }

  EXPECT_EQ(blocks.size(), keys.size());
}

TEST(RandomKeyTest, TensorIdsNeverShareAKeyUnderOneSeed) {
  std::set<std::array<uint32_t, 2>> keys;
  for (uint32_t id = 0; id < 10000; ++id) {
    keys.insert(RandomKey{99, id, 0, 0, 0}.PhiloxKey());
  }

  EXPECT_EQ(keys.size(), 10000);
}

TEST(UniformFloatTest, StaysBelowOne) {
  EXPECT_EQ(UniformFloat(0), 0.0f);
  EXPECT_EQ(UniformFloat(0xffu), 0.0f);
  EXPECT_LT(UniformFloat(0xffffffffu), 1.0f);
}

TEST(UniformFloatTest, MeanIsOneHalf) {
  // n = 40,000 values of variance 1/12: the mean's deviation is 0.00144; the
  // bound is 6.2 of them, passed by chance with probability below 1e-9 (and the
  // seed is fixed).
  constexpr int kNumBlocks = 10000;
  const RandomKey key{20261121, 1, 1, 1, 1};

  double sum = 0;
  for (uint32_t i = 0; i < kNumBlocks; ++i) {
    for (const uint32_t word :
         Philox4x32(key.PhiloxCounter(i), key.PhiloxKey())) {
      sum += UniformFloat(word);
    }
  }

  EXPECT_NEAR(sum / (4 * kNumBlocks), 0.5, 0.009);
}

}  // namespace
}  // namespace deltapipe
