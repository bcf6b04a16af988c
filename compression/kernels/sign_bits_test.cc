#include "compression/kernels/sign_bits.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/kernels/reference/sign_bits.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

constexpr size_t kSizes[] = {0, 1, 7, 8, 15, 16, 17, 63, 64, 100, 4099, 9001};

// One element is skipped, so that nothing is aligned.
class Unaligned {
 public:
  Unaligned(size_t count, uint32_t seed) : storage_(count + 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < storage_.size(); ++i) {
      storage_[i] = i % 11 == 3   ? -0.0f
                    : i % 13 == 5 ? 0.0f
                    : i % 97 == 8 ? std::numeric_limits<float>::quiet_NaN()
                                  : normal(generator) * 1e20f;
    }
  }
  absl::Span<float> span() { return absl::MakeSpan(storage_).subspan(1); }

 private:
  std::vector<float> storage_;
};

bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(SignBitsTest, BitsAreLeastSignificantFirstAndZeroIsPositive) {
  const float values[] = {1, -1, 0.0f, -0.0f, -5, 1e-45f, -1e-45f, 3, -2, 2};
  uint8_t bits[2] = {0xFF, 0xFF};

  PackSigns(values, absl::MakeSpan(bits));

  EXPECT_THAT(bits, ElementsAre(0b10101101, 0b00000010));
}

TEST(SignBitsTest, ResidualIsWhatTheSignsLose) {
  float values[] = {3, -1, 0};
  uint8_t bits[1];

  PackSignsWithResidual(absl::MakeSpan(values), 2.0f, absl::MakeSpan(bits));

  EXPECT_THAT(values, ElementsAre(1, 1, -2));
  EXPECT_THAT(bits, ElementsAre(0b101));
}

TEST(SignBitsTest, AFiniteResidualLeavesWhatIsNotFiniteAsZero) {
  const float kInfinity = std::numeric_limits<float>::infinity();
  // As many as a vector and some single ones.
  std::vector<float> values(20, 3.0f);
  values[1] = values[17] = kInfinity;
  values[2] = values[18] = std::numeric_limits<float>::quiet_NaN();
  std::vector<uint8_t> bits(SignBytes(values.size()));

  PackSignsWithFiniteResidual(absl::MakeSpan(values), 2.0f,
                              absl::MakeSpan(bits));

  for (const size_t i : {1, 2, 17, 18}) EXPECT_EQ(values[i], 0) << i;
  EXPECT_EQ(values[0], 1);
  EXPECT_EQ(values[19], 1);
}

TEST(SignBitsTest, AccumulateAddsTheScaleWithItsSign) {
  float sums[] = {10, 20, 30};
  const uint8_t bits[] = {0b010};

  UnpackSignsAccumulate(bits, 0.5f, absl::MakeSpan(sums));

  EXPECT_THAT(sums, ElementsAre(9.5f, 20.5f, 29.5f));
}

TEST(SignBitsTest, SumOfSquaresOfTheLargestFloatsIsFinite) {
  const std::vector<float> values(100, std::numeric_limits<float>::max());

  EXPECT_TRUE(std::isfinite(SumOfSquares(values)));
  EXPECT_TRUE(std::isfinite(SumOfMagnitudes(values)));
}

TEST(SignBitsTest, VectorKernelsPackTheReferenceBits) {
  for (const size_t count : kSizes) {
    SCOPED_TRACE(count);
    std::vector<uint8_t> expected(SignBytes(count));
    Unaligned residual(count, 1);
    reference::PackSignsWithResidual(residual.span(), 1e19f,
                                     absl::MakeSpan(expected));
    ForEachVectorTarget([&] {
      std::vector<uint8_t> bits(SignBytes(count), 0xAA);
      Unaligned values(count, 1);
      PackSigns(values.span(), absl::MakeSpan(bits));
      ASSERT_EQ(bits, expected);
      bits.assign(bits.size(), 0x55);
      PackSignsWithResidual(values.span(), 1e19f, absl::MakeSpan(bits));
      ASSERT_EQ(bits, expected);
      ASSERT_TRUE(SameBits(values.span(), residual.span()));
    });
    Unaligned finite(count, 1);
    reference::PackSignsWithFiniteResidual(finite.span(), 1e19f,
                                           absl::MakeSpan(expected));
    ForEachVectorTarget([&] {
      std::vector<uint8_t> bits(SignBytes(count), 0xAA);
      Unaligned values(count, 1);
      PackSignsWithFiniteResidual(values.span(), 1e19f, absl::MakeSpan(bits));
      ASSERT_EQ(bits, expected);
      ASSERT_TRUE(SameBits(values.span(), finite.span()));
    });
  }
}

TEST(SignBitsTest, VectorKernelsUnpackTheReferenceValues) {
  std::mt19937 generator(2);
  for (const size_t count : kSizes) {
    SCOPED_TRACE(count);
    std::vector<uint8_t> bits(SignBytes(count));
    for (uint8_t& byte : bits) byte = static_cast<uint8_t>(generator());
    std::vector<float> expected(count);
    reference::UnpackSigns(bits, 0.3f, absl::MakeSpan(expected));
    Unaligned expected_sum(count, 3);
    reference::UnpackSignsAccumulate(bits, 0.3f, expected_sum.span());
    ForEachVectorTarget([&] {
      Unaligned values(count, 3);
      UnpackSignsAccumulate(bits, 0.3f, values.span());
      ASSERT_TRUE(SameBits(values.span(), expected_sum.span()));
      UnpackSigns(bits, 0.3f, values.span());
      ASSERT_TRUE(SameBits(values.span(), expected));
    });
  }
}

TEST(SignBitsTest, VectorSumsHaveTheReferenceBits) {
  for (const size_t count : kSizes) {
    SCOPED_TRACE(count);
    std::mt19937 generator(4);
    std::normal_distribution<float> normal;
    std::vector<float> values(count), addend(count);
    for (float& value : values) value = normal(generator);
    for (float& value : addend) value = normal(generator);
    std::vector<float> expected = values;
    const double first = reference::SumOfSquares(values);
    const double magnitudes = reference::SumOfMagnitudes(values);
    const double second =
        reference::AddAndSumOfSquares(absl::MakeSpan(expected), addend);
    ForEachVectorTarget([&] {
      std::vector<float> sums = values;
      ASSERT_EQ(SumOfSquares(values), first);
      ASSERT_EQ(SumOfMagnitudes(values), magnitudes);
      ASSERT_EQ(AddAndSumOfSquares(absl::MakeSpan(sums), addend), second);
      ASSERT_TRUE(SameBits(sums, expected));
    });
  }
}

}  // namespace
}  // namespace deltapipe
