#include "compression/codecs/mixed.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/codecs/row_bits.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<uint8_t> BitsFor(const std::vector<double>& costs, int64_t total) {
  std::vector<uint8_t> bits(costs.size());
  ChooseRowBits(costs, total, absl::MakeSpan(bits));
  return bits;
}

double CostOf(const std::vector<double>& costs,
              const std::vector<uint8_t>& bits) {
  double cost = 0;
  for (size_t i = 0; i < costs.size(); ++i) {
    cost += costs[i] / std::pow((1 << bits[i]) - 1, 2);
  }
  return cost;
}

// Plainly as the paper has it: from 8 bits each, the bit is taken away that
// costs least.
std::vector<uint8_t> TakenAway(const std::vector<double>& costs,
                               int64_t total) {
  std::vector<uint8_t> bits(costs.size(), 8);
  for (int64_t sum = 8 * costs.size(); sum > total; --sum) {
    size_t least = costs.size();
    double least_cost = 0;
    for (size_t i = 0; i < costs.size(); ++i) {
      if (bits[i] == 1) continue;
      const double more =
          costs[i] * (1 / std::pow((1 << (bits[i] - 1)) - 1, 2) -
                      1 / std::pow((1 << bits[i]) - 1, 2));
      if (least < costs.size() && more >= least_cost) continue;
      least = i;
      least_cost = more;
    }
    --bits[least];
  }
  return bits;
}

// Rows of 512 normal values whose sizes span three orders of magnitude.
std::vector<float> RowsOfManySizes(size_t num_rows, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values;
  for (size_t row = 0; row < num_rows; ++row) {
    const float scale = std::exp(3.5f * normal(random) / 2);
    for (int i = 0; i < 512; ++i) values.push_back(scale * normal(random));
  }
  return values;
}

double SquaredError(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = static_cast<double>(x[i]) - y[i];
    sum += error * error;
  }
  return sum;
}

TEST(MixedTest, BitsOverRowsCostWhatThePapersGreedyReaches) {
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::vector<double> costs(1 + random() % 60);
    for (double& cost : costs) {
      cost = random() % 10 == 0 ? 0 : std::exp(4 * normal(random));
    }
    const int64_t total = costs.size() + random() % (7 * costs.size() + 1);

    const std::vector<uint8_t> bits = BitsFor(costs, total);

    int64_t sum = 0;
    for (const uint8_t b : bits) {
      ASSERT_TRUE(b >= 1 && b <= 8);
      sum += b;
    }
    EXPECT_EQ(sum, total);
    const double paper = CostOf(costs, TakenAway(costs, total));
    EXPECT_NEAR(CostOf(costs, bits), paper, 1e-12 * paper);
  }
}

TEST(MixedTest, RowsThatRangeMoreGetMoreBits) {
  EXPECT_THAT(BitsFor({1, 1e4, 1, 1e2}, 10), ElementsAre(1, 5, 1, 3));
  EXPECT_THAT(BitsFor({0, 0, 0}, 4), ElementsAre(2, 1, 1));
  EXPECT_THAT(BitsFor({3, 5}, 16), Each(8));
  EXPECT_THAT(BitsFor({3, 5}, 2), Each(1));
}

TEST(MixedTest, PayloadBeginsWithTheBitsOfTheRows) {
  std::vector<float> values(3 * 16 + 5, 1.0f);
  for (int i = 16; i < 32; ++i) values[i] = static_cast<float>(i * i);

  const auto payload = EncodeForTest("mixed(2.4,block=16,row=16)", values);

  // 7 bits for 3 rows, 2 for the short one.
  ASSERT_EQ(payload.size(), 2 + 4 * 4 + 7 * 2 + 2 * 2);
  EXPECT_EQ(payload[0] & 15, 1);
  EXPECT_EQ(payload[0] >> 4, 5);
  EXPECT_EQ(payload[1] & 15, 1);
  EXPECT_EQ(payload[1] >> 4, 2);
}

// What the paper's section 4.2 is for. Of rows like these the error of even
// bits is ruled by the largest few.
TEST(MixedTest, ErrorIsLessThanThatOfEvenBits) {
  const std::vector<float> values = RowsOfManySizes(256, 5);

  const double even = SquaredError(
      values,
      RoundTrip("int(2,block=256,round=stochastic,levels=affine,scale=bf16)",
                values));
  const double mixed = SquaredError(
      values,
      RoundTrip(MakeForTest("mixed(bits=2.001,row=512)")->text(), values));

  EXPECT_LT(mixed, 0.3 * even);
}

TEST(MixedTest, AtWholeBitsEqualRowsAreThoseOfInt) {
  std::vector<float> values = RowsOfManySizes(1, 6);
  const std::vector<float> row = values;
  values.insert(values.end(), row.begin(), row.end());

  // The same groups under the same random words.
  EXPECT_EQ(
      RoundTrip("mixed(3.0,row=512)", values),
      RoundTrip("int(3,block=256,round=stochastic,levels=affine,scale=bf16)",
                values));
}

TEST(MixedTest, EqualValuesComeBackExactly) {
  const std::vector<float> values(1000, 0.1f);

  EXPECT_EQ(RoundTrip("mixed(1,row=100)", values), values);
}

TEST(MixedTest, TablesThatCannotBeAreNamed) {
  const auto codec = MakeForTest("mixed(2.5,block=16,row=16)");
  std::vector<float> values(4 * 16 + 4);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i;
  const auto payload = EncodeForTest(*codec, values);
  const auto message = [&](size_t byte, uint8_t value) {
    auto damaged = payload;
    damaged[byte] = value;
    return std::string(
        codec->Decode(damaged, absl::MakeSpan(values)).message());
  };

  EXPECT_EQ(message(0, payload[0]), "");
  EXPECT_THAT(message(0, 0x20), HasSubstr("row 0 of 5 has 0 bits, expected 1"));
  EXPECT_THAT(message(0, 0x92), HasSubstr("row 1 of 5 has 9 bits, expected 1"));
  EXPECT_THAT(message(0, 0x88),
              HasSubstr("4 rows have 20 bits in all, expected 10"));
  EXPECT_THAT(message(2, 0x03), HasSubstr("row 4 of 5 has 3 bits, expected 2"));
  EXPECT_THAT(message(2, 0x12), HasSubstr("unused bits"));
}

}  // namespace
}  // namespace deltapipe
