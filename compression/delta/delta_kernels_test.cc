#include "compression/delta/delta_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/float_cast.h"

namespace deltapipe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Sizes around the vector width, and one of many vectors.
constexpr int64_t kCounts[] = {0,  1,  3,  7,  8,    9,   15,
                               16, 17, 31, 64, 1000, 4099};

/// Ordinary values with every kind of special one strewn in.
std::vector<float> Values(int64_t count, uint32_t seed) {
  const float specials[] = {0.0f,
                            -0.0f,
                            kInfinity,
                            -kInfinity,
                            kLargest,
                            1e-40f,
                            -kLargest,
                            3.39e38f,
                            1e38f,
                            BitsToFloat(0x7F800001u),
                            BitsToFloat(0xFFC12345u)};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = random() % 7 == 0 ? specials[random() % 11] : normal(random);
  }
  return values;
}

std::vector<uint16_t> Records(int64_t count, uint32_t seed) {
  std::vector<uint16_t> records;
  for (const float value : Values(count, seed)) {
    uint16_t stored;
    StoreRecord(&value, &stored, 1);
    records.push_back(stored);
  }
  return records;
}

/// The contract of storing, spelled out one value at a time.
uint16_t Stored(float value) {
  const uint16_t sign = static_cast<uint16_t>(FloatBits(value) >> 16 & 0x8000u);
  if (std::isnan(value)) return sign | 0x7FC0u;
  if (std::isinf(value)) return sign | 0x7F7Fu;
  return FloatToBFloat16(value);
}

float Stored32(float value) {
  if (std::isnan(value)) {
    return BitsToFloat((FloatBits(value) & 0x80000000u) | 0x7FC00000u);
  }
  return std::isinf(value) ? std::copysign(kLargest, value) : value;
}

template <typename T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// With vectors of each width, in bits.
class DeltaKernelsTest : public testing::TestWithParam<int> {
 protected:
  DeltaKernelsTest() { SetVectorBitsForTest(GetParam()); }
  ~DeltaKernelsTest() override { SetVectorBitsForTest(512); }
};

INSTANTIATE_TEST_SUITE_P(Bits, DeltaKernelsTest, testing::Values(128, 256, 512),
                         testing::PrintToStringParamName());

TEST_P(DeltaKernelsTest, StoreFollowsTheContract) {
  for (const int64_t count : kCounts) {
    const std::vector<float> values = Values(count, 1);
    std::vector<uint16_t> expected;
    std::vector<float> expected32;
    for (const float value : values) {
      expected.push_back(Stored(value));
      expected32.push_back(Stored32(value));
    }
    std::vector<uint16_t> stored(values.size());
    std::vector<float> stored32(values.size());

    StoreRecord(values.data(), stored.data(), count);
    StoreRecord(values.data(), stored32.data(), count);

    EXPECT_TRUE(SameBytes(stored, expected)) << count;
    EXPECT_TRUE(SameBytes(stored32, expected32)) << count;
  }
}

TEST_P(DeltaKernelsTest, StoreOfEveryUpperHalfAndTieIsThatOfFloatCast) {
  // Every bf16 pattern with the lower halves where rounding changes.
  std::vector<float> values;
  std::vector<uint16_t> expected;
  for (uint32_t upper = 0; upper <= 0xFFFF; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      values.push_back(BitsToFloat(upper << 16 | lower));
      expected.push_back(Stored(values.back()));
    }
  }
  std::vector<uint16_t> stored(values.size());

  StoreRecord(values.data(), stored.data(),
              static_cast<int64_t>(values.size()));

  EXPECT_TRUE(SameBytes(stored, expected));
}

TEST_P(DeltaKernelsTest, AddStoresTheSum) {
  for (const int64_t count : kCounts) {
    const std::vector<uint16_t> record = Records(count, 2);
    const std::vector<float> restored = Values(count, 3);
    std::vector<uint16_t> expected;
    for (size_t i = 0; i < record.size(); ++i) {
      expected.push_back(Stored(BFloat16ToFloat(record[i]) + restored[i]));
    }
    std::vector<uint16_t> next(record.size());

    AddToRecord(record.data(), restored.data(), next.data(), count);

    for (size_t i = 0; i < next.size(); ++i) {
      // Which NaN a sum of NaNs gives is the processor's choice, but one NaN is
      // as good as the other: only its sign may differ.
      const bool is_nan = (expected[i] & 0x7FFFu) == 0x7FC0u;
      ASSERT_EQ(next[i] & (is_nan ? 0x7FFFu : 0xFFFFu),
                expected[i] & (is_nan ? 0x7FFFu : 0xFFFFu))
          << count << " " << i;
    }
  }
}

TEST_P(DeltaKernelsTest, SumOfFiniteValuesStaysFinite) {
  const std::vector<float> restored(9, kLargest);
  const std::vector<uint16_t> record(9, 0x7F7F);
  const std::vector<float> record32(9, kLargest);
  std::vector<uint16_t> next(9);
  std::vector<float> next32(9);

  AddToRecord(record.data(), restored.data(), next.data(), 9);
  AddToRecord(record32.data(), restored.data(), next32.data(), 9);

  EXPECT_THAT(next, testing::Each(0x7F7F));
  EXPECT_THAT(next32, testing::Each(kLargest));
}

TEST_P(DeltaKernelsTest, ReceiverFormsStoreTheSameAndUseWhatTheyStored) {
  for (const int64_t count : kCounts) {
    const std::vector<uint16_t> record = Records(count, 4);
    const std::vector<float> restored = Values(count, 5);
    std::vector<uint16_t> sender(record.size());
    std::vector<uint16_t> receiver(record.size());
    std::vector<float> used = restored;
    std::vector<float> loaded(record.size());

    AddToRecord(record.data(), restored.data(), sender.data(), count);
    AddToRecordAndUse(record.data(), used.data(), receiver.data(), count);
    LoadRecord(sender.data(), loaded.data(), count);
    EXPECT_TRUE(SameBytes(sender, receiver)) << count;
    EXPECT_TRUE(SameBytes(used, loaded)) << count;

    used = restored;
    StoreRecord(restored.data(), sender.data(), count);
    StoreRecordAndUse(used.data(), receiver.data(), count);
    LoadRecord(sender.data(), loaded.data(), count);
    EXPECT_TRUE(SameBytes(sender, receiver)) << count;
    EXPECT_TRUE(SameBytes(used, loaded)) << count;
  }
}

TEST_P(DeltaKernelsTest, SubtractGivesDifferencesAndNorms) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (const int64_t count : kCounts) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    std::vector<uint16_t> record(values.size());
    StoreRecord(values.data(), record.data(), count);
    for (float& value : values) value += 0.1f * normal(random);
    std::vector<float> difference(values.size());

    const SquaredNorms norms =
        SubtractRecord(values.data(), record.data(), difference.data(), count);

    double expected_difference = 0;
    double expected_value = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const float d = values[i] - BFloat16ToFloat(record[i]);
      ASSERT_EQ(difference[i], d);
      expected_difference += double{d} * d;
      expected_value += double{values[i]} * values[i];
    }
    EXPECT_NEAR(norms.difference, expected_difference,
                1e-12 * expected_difference);
    EXPECT_NEAR(norms.value, expected_value, 1e-12 * expected_value);
  }
}

TEST_P(DeltaKernelsTest, NormsAreExactWhereFloatSquaresWouldNotBe) {
  const std::vector<float> tiny(16, 1e-30f);
  const std::vector<float> huge(16, 1e30f);
  const std::vector<float> zeros(16, 0.0f);
  std::vector<float> difference(16);

  EXPECT_NEAR(
      SubtractRecord(tiny.data(), zeros.data(), difference.data(), 16).value,
      16e-60, 1e-65);
  EXPECT_NEAR(
      SubtractRecord(huge.data(), zeros.data(), difference.data(), 16).value,
      16e60, 1e55);
}

TEST_P(DeltaKernelsTest, EstimatedNormsAreWithinTheirError) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (const int64_t count : {0, 1, 31, 32, 1000, 4096}) {
      for (const float size : {1e-14f, 1.0f, 1e15f}) {
        SCOPED_TRACE(::testing::Message() << "seed " << seed << ", " << count
                                          << " values of size " << size);
        std::vector<float> value(count), record(count), expected(count);
        for (int64_t i = 0; i < count; ++i) {
          value[i] = size * normal(random);
          record[i] = value[i] + (i % 3 == 0 ? 0.01f * size : 0);
        }
        const SquaredNorms norms =
            SubtractRecord(value.data(), record.data(), expected.data(), count);
        std::vector<float> difference(count);
        SquaredNorms estimate;

        SubtractRecordAndEstimate(value.data(), record.data(),
                                  difference.data(), count, &estimate);

        EXPECT_EQ(difference, expected);
        const double error =
            kNormEstimateError * (norms.difference + norms.value);
        EXPECT_NEAR(estimate.difference, norms.difference, error);
        EXPECT_NEAR(estimate.value, norms.value, error);
      }
    }
  }
}

TEST_P(DeltaKernelsTest, ResidualIsWhatWasLostOrZero) {
  const std::vector<float> sent = {1.0f, kInfinity, 3.0f, std::nanf(""),
                                   kLargest};
  const std::vector<float> restored = {0.75f, 1.0f, kInfinity, 1.0f, -kLargest};
  std::vector<float> next(5);

  LeaveResidual(sent.data(), restored.data(), next.data(), 5);

  EXPECT_THAT(next, testing::ElementsAre(0.25f, 0, 0, 0, 0));
}

TEST(DeltaKernelsWidthTest, NormsHaveTheSameBitsAtEveryWidth) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (const int64_t count : kCounts) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    const std::vector<uint16_t> record(values.size(), 0x3F80);
    std::vector<float> difference(values.size());
    SetVectorBitsForTest(128);
    const SquaredNorms narrow =
        SubtractRecord(values.data(), record.data(), difference.data(), count);
    for (const int bits : {256, 512}) {
      SetVectorBitsForTest(bits);
      const SquaredNorms wide = SubtractRecord(values.data(), record.data(),
                                               difference.data(), count);

      EXPECT_EQ(narrow.difference, wide.difference) << count << ", " << bits;
      EXPECT_EQ(narrow.value, wide.value) << count << ", " << bits;
    }
  }
}

TEST_P(DeltaKernelsTest, PartsOfASampleHaveTheNormsOfTheWhole) {
  std::mt19937 random(21);
  std::normal_distribution<float> normal;
  std::vector<float> values(4099);
  for (float& value : values) value = normal(random);
  const std::vector<uint16_t> record(values.size(), 0x3F80);
  std::vector<float> whole(values.size()), parts(values.size()),
      only(values.size());
  const SquaredNorms expected =
      SubtractRecord(values.data(), record.data(), whole.data(), 4099);

  NormLanes lanes;
  for (int64_t begin = 0; begin < 4099; begin += 1032) {
    const int64_t count = std::min<int64_t>(1032, 4099 - begin);
    SubtractRecordPart(values.data() + begin, record.data() + begin,
                       parts.data() + begin, count, &lanes);
    SubtractRecordOnly(values.data() + begin, record.data() + begin,
                       only.data() + begin, count);
  }

  EXPECT_TRUE(SameBytes(parts, whole));
  EXPECT_TRUE(SameBytes(only, whole));
  const SquaredNorms norms = lanes.Sum();
  EXPECT_EQ(norms.value, expected.value);
  EXPECT_EQ(norms.difference, expected.difference);
}

}  // namespace
}  // namespace deltapipe
