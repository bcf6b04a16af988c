#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using Matrix = std::vector<double>;  // row after row

// Column k of the orthonormal cosine basis of `size` dimensions.
double Basis(size_t size, size_t i, size_t k) {
  const double norm = std::sqrt((k == 0 ? 1.0 : 2.0) / size);
  return norm * std::cos(M_PI * (i + 0.5) * k / size);
}

constexpr size_t kRows = 60, kColumns = 40;

// A matrix of known singular values: s_k at the bases' columns k.
std::vector<float> MatrixOf(const std::vector<double>& singular_values) {
  std::vector<float> m(kRows * kColumns);
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t j = 0; j < kColumns; ++j) {
      double sum = 0;
      for (size_t k = 0; k < singular_values.size(); ++k) {
        sum += singular_values[k] * Basis(kRows, i, k) * Basis(kColumns, j, k);
      }
      m[i * kColumns + j] = static_cast<float>(sum);
    }
  }
  return m;
}

// Singular values that fall slowly; what is beyond the first `rank` of them.
std::vector<double> SlowDecay() {
  std::vector<double> values;
  for (size_t k = 0; k < kColumns; ++k) values.push_back(10 * std::pow(0.8, k));
  return values;
}

double BestRelativeError(const std::vector<double>& values, size_t rank) {
  double all = 0, beyond = 0;
  for (size_t k = 0; k < values.size(); ++k) {
    all += values[k] * values[k];
    if (k >= rank) beyond += values[k] * values[k];
  }
  return std::sqrt(beyond / all);
}

TEST(LowRankTest, MatricesOfThatRankComeBack) {
  for (const size_t rank : {1, 2, 5}) {
    std::vector<double> values;
    for (size_t k = 0; k < rank; ++k) values.push_back(3.0 + k);
    const std::vector<float> x = MatrixOf(values);

    EXPECT_LE(
        RelativeRmsError(
            x, RoundTrip(absl::StrCat("lowrank(", rank, ",columns=40)"), x)),
        0.01);
    EXPECT_LE(
        RelativeRmsError(
            x,
            RoundTrip(absl::StrCat("lowrank(", rank + 3, ",columns=40)"), x)),
        0.01)
        << "columns beyond the rank";
  }
}

TEST(LowRankTest, WithMemoryItNearsTheBestFactorsThereAre) {
  const std::vector<double> values = SlowDecay();
  const std::vector<float> x = MatrixOf(values);
  const double best = BestRelativeError(values, 4);
  std::vector<float> memory;
  const double first = RelativeRmsError(
      x, RoundTrip("lowrank(4,columns=40)", x, {RandomKey(), &memory}));
  double last = 0;
  for (uint32_t step = 1; step < 15; ++step) {
    RandomKey key;
    key.step = step;
    last = RelativeRmsError(
        x, RoundTrip("lowrank(4,columns=40)", x, {key, &memory}));
  }

  EXPECT_GE(first, 1.05 * best);
  EXPECT_LE(last, 1.005 * best);
  // What iterations do at once.
  EXPECT_LE(
      RelativeRmsError(x, RoundTrip("lowrank(4,columns=40,iterations=15)", x)),
      1.005 * best);
}

// Algorithm 1 of the paper, one worker, in double throughout.
Matrix PowerSgd(const std::vector<float>& m, Matrix q, size_t rank) {
  Matrix p(kRows * rank, 0);
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t k = 0; k < rank; ++k) {
      for (size_t j = 0; j < kColumns; ++j) {
        p[i * rank + k] += m[i * kColumns + j] * q[j * rank + k];
      }
    }
  }
  for (size_t k = 0; k < rank; ++k) {
    for (size_t other = 0; other <= k; ++other) {
      double dot = 0;
      for (size_t i = 0; i < kRows; ++i) {
        dot += p[i * rank + k] * p[i * rank + other];
      }
      for (size_t i = 0; i < kRows; ++i) {
        if (other == k) {
          p[i * rank + k] /= std::sqrt(dot);
        } else {
          p[i * rank + k] -= dot * p[i * rank + other];
        }
      }
    }
  }
  q.assign(q.size(), 0);
  Matrix product(kRows * kColumns, 0);
  for (size_t j = 0; j < kColumns; ++j) {
    for (size_t k = 0; k < rank; ++k) {
      for (size_t i = 0; i < kRows; ++i) {
        q[j * rank + k] += m[i * kColumns + j] * p[i * rank + k];
      }
      for (size_t i = 0; i < kRows; ++i) {
        product[i * kColumns + j] += p[i * rank + k] * q[j * rank + k];
      }
    }
  }
  return product;
}

TEST(LowRankTest, OneStepIsThePapersFromTheFactorInMemory) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 60 * 40, 61);
  std::vector<float> memory;
  RoundTrip("lowrank(3,columns=40)",
            MakeTestData(TestData::kNormal, 60 * 40, 62),
            {RandomKey(), &memory});
  // The factor is the end of the memory.
  const Matrix start(memory.end() - 3 * kColumns, memory.end());

  const std::vector<float> y =
      RoundTrip("lowrank(3,columns=40)", x, {RandomKey(), &memory});

  const Matrix expected = PowerSgd(x, start, 3);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], expected[i], 0.02);
}

TEST(LowRankTest, TheStartDependsOnTheTensorAndNotOnTheStep) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 60 * 40, 63);
  const auto encoded = [&x](uint32_t tensor_id, uint32_t step) {
    std::vector<float> memory;
    return RoundTrip("lowrank(2,columns=40)", x,
                     {RandomKey{1, tensor_id, step, step, 2}, &memory});
  };

  EXPECT_EQ(encoded(1, 5), encoded(1, 6));
  EXPECT_NE(encoded(1, 5), encoded(2, 5));
}

TEST(LowRankTest, ADirectionThatWasNotThereCanCome) {
  const std::vector<float> first = MatrixOf({1});
  const std::vector<float> second = MatrixOf({0, 0, 1, 2});
  std::vector<float> memory;
  RoundTrip("lowrank(2,columns=40)", first, {RandomKey(), &memory});
  RoundTrip("lowrank(2,columns=40)", std::vector<float>(first.size(), 0),
            {RandomKey(), &memory});

  RoundTrip("lowrank(2,columns=40)", second, {RandomKey(), &memory});
  const std::vector<float> y =
      RoundTrip("lowrank(2,columns=40)", second, {RandomKey(), &memory});

  EXPECT_LE(RelativeRmsError(second, y), 0.02);
}

TEST(LowRankTest, SizesAreThoseOfTheFactors) {
  EXPECT_EQ((*MakeCodec("lowrank(4,columns=1024)"))->MaxPayloadBytes(1 << 20),
            4 + 2 * 4 * 2048);
  EXPECT_EQ((*MakeCodec("lowrank(4)"))->MaxPayloadBytes(1 << 20),
            4 + 2 * 4 * 2048);
  EXPECT_EQ((*MakeCodec("lowrank(64)"))->MaxPayloadBytes(10),
            4 + 2 * 3 * (3 + 4));
  EXPECT_EQ(*BindTensorShape("lowrank(4)", {16, 1024, 1600}),
            "lowrank(4,columns=1600)");
}

}  // namespace
}  // namespace deltapipe
