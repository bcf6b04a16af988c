#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

// The norm of what even levels between a row's ends lose, without any rounding
// of scale and bias.
double IdealMinMaxError(const std::vector<float>& x, size_t row) {
  double sum = 0;
  for (size_t begin = 0; begin < x.size(); begin += row) {
    const auto [low, high] =
        std::minmax_element(x.begin() + begin, x.begin() + begin + row);
    const double scale = (static_cast<double>(*high) - *low) / 15;
    for (size_t i = begin; i < begin + row; ++i) {
      const double error =
          x[i] - (*low + std::nearbyint((x[i] - *low) / scale) * scale);
      sum += error * error;
    }
  }
  return std::sqrt(sum);
}

double NormOfError(const std::string& text, const std::vector<float>& x) {
  const std::vector<float> y = RoundTrip(text, x);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += (static_cast<double>(x[i]) - y[i]) * (x[i] - y[i]);
  }
  return std::sqrt(sum);
}

TEST(Rowwise4Test, GreedyIsEightPercentBetterThanMinMax) {
  for (const size_t row : {32, 64, 96, 128}) {
    for (const bool is_laplace : {false, true}) {
      SCOPED_TRACE(
          absl::StrCat("rows of ", row, is_laplace ? ", laplace" : ""));
      const size_t count = 500 * row;
      const std::vector<float> x =
          is_laplace ? LaplaceValues(count, 3)
                     : MakeTestData(TestData::kNormal, count, 3);

      const double greedy =
          NormOfError(absl::StrCat("rowwise4(search=greedy,row=", row, ")"), x);

      EXPECT_LE(greedy, 0.92 * IdealMinMaxError(x, row));
      EXPECT_LE(greedy,
                0.92 * NormOfError(absl::StrCat("rowwise4(row=", row, ")"), x));
    }
  }
}

TEST(Rowwise4Test, MinMaxCostsLittleMoreThanWithExactFields) {
  const std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 15, 4);

  EXPECT_LE(NormOfError("rowwise4", x), 1.01 * IdealMinMaxError(x, 64));
}

// The squared error of even levels from low to high, fields not rounded.
double EvenLevelsError(absl::Span<const float> row, double low, double high) {
  const double scale = (high - low) / 15;
  double sum = 0;
  for (const float value : row) {
    const double code = std::nearbyint((value - low) / scale);
    const double error = value - (low + std::clamp(code, 0.0, 15.0) * scale);
    sum += error * error;
  }
  return sum;
}

// Algorithm 1 of the paper as its authors published it: 200 bins, ratio 0.16,
// and a state counts only where both of its neighbours are worse.
double PublishedGreedyError(absl::Span<const float> row) {
  const auto [low, high] = std::minmax_element(row.begin(), row.end());
  const double step = (static_cast<double>(*high) - *low) / 200;
  double lower = *low, upper = *high;
  double loss = EvenLevelsError(row, lower, upper);
  double best = loss, last = loss;
  while (upper - lower > 0.84 * 200 * step) {
    const double raised = EvenLevelsError(row, lower + step, upper);
    const double lowered = EvenLevelsError(row, lower, upper - step);
    if (raised > last && lowered > last) best = std::min(best, last);
    if (raised < lowered) {
      lower += step;
    } else {
      upper -= step;
    }
    last = std::min(raised, lowered);
  }
  return best;
}

TEST(Rowwise4Test, GreedyIsNoWorseThanThePublishedSearch) {
  for (const size_t row : {32, 64, 128}) {
    const std::vector<float> x = LaplaceValues(500 * row, 7);
    double published = 0;
    for (size_t begin = 0; begin < x.size(); begin += row) {
      published +=
          PublishedGreedyError(absl::MakeConstSpan(x).subspan(begin, row));
    }

    const double ours =
        NormOfError(absl::StrCat("rowwise4(search=greedy,row=", row, ")"), x);

    EXPECT_LE(ours, 1.002 * std::sqrt(published)) << row;
  }
}

TEST(Rowwise4Test, CodebooksAreBetterThanEvenLevels) {
  for (const auto& [row, share] :
       std::vector<std::pair<size_t, double>>{{64, 0.88}, {256, 0.94}}) {
    const std::vector<float> x = LaplaceValues(512 * row, 5);

    const double greedy =
        NormOfError(absl::StrCat("rowwise4(search=greedy,row=", row, ")"), x);

    EXPECT_LE(
        NormOfError(absl::StrCat("rowwise4(search=codebook,row=", row, ")"), x),
        share * greedy);
    EXPECT_LE(NormOfError(
                  absl::StrCat("rowwise4(search=codebook2,row=", row, ")"), x),
              1.1 * greedy);
  }
}

// Rows of two kinds whose sizes differ a thousandfold.
TEST(Rowwise4Test, RowsOfAKindShareACodebook) {
  std::vector<float> x = MakeTestData(TestData::kNormal, 1024 * 64, 6);
  std::vector<float> small, large;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool is_large = i / 64 % 3 == 0;
    if (is_large) x[i] *= 1000;
    (is_large ? large : small).push_back(x[i]);
  }

  const std::vector<float> y = RoundTrip("rowwise4(search=codebook2)", x);

  std::vector<float> small_out, large_out;
  for (size_t i = 0; i < y.size(); ++i) {
    (i / 64 % 3 == 0 ? large_out : small_out).push_back(y[i]);
  }
  EXPECT_LE(RelativeRmsError(large, large_out), 0.13);
  EXPECT_LE(RelativeRmsError(small, small_out), 0.13);
}

TEST(Rowwise4Test, ARowOfFewValuesIsExactByItsCodebook) {
  std::vector<float> x;
  for (int i = 0; i < 200; ++i) x.push_back(static_cast<float>(i * i % 16));

  EXPECT_EQ(RoundTrip("rowwise4(search=codebook,row=200)", x), x);
}

TEST(Rowwise4Test, NothingOverflows) {
  for (const std::string search : {"minmax", "greedy", "codebook"}) {
    const std::vector<float> x = {1e38f, -1e38f, 3e38f, -3e38f, 65505, 0};

    const std::vector<float> y =
        RoundTrip(absl::StrCat("rowwise4(search=", search, ")"), x);

    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(y[i], x[i], search == "codebook" ? 1e36 : 2.5e37) << search;
    }
  }
}

TEST(Rowwise4Test, TheLengthOfARowDecidesItsSize) {
  const auto codec = MakeCodec("rowwise4(row=5)");
  ASSERT_TRUE(codec.ok());

  EXPECT_EQ((*codec)->MaxPayloadBytes(12), 2 * (4 + 3) + 4 + 1);
  EXPECT_EQ((*MakeCodec("rowwise4"))->traits().bits_per_element, 4.5);
}

TEST(Rowwise4Test, ForeignFieldsAreErrors) {
  const auto codec = MakeCodec("rowwise4(row=2)");
  ASSERT_TRUE(codec.ok());
  std::vector<float> out(2);
  const std::vector<uint8_t> infinite_scale = {0x80, 0x7F, 0, 0, 0};

  EXPECT_THAT(
      std::string(
          (*codec)->Decode(infinite_scale, absl::MakeSpan(out)).message()),
      HasSubstr("scale 7f80 and bias 0000, expected finite ones"));

  const auto tiers = MakeCodec("rowwise4(search=codebook2)");
  std::vector<uint8_t> payload(32 + 2, 0);
  payload[32] = 1;
  EXPECT_THAT(
      std::string((*tiers)->Decode(payload, absl::MakeSpan(out)).message()),
      HasSubstr("codebook 1, expected one below 1 or 255"));
}

}  // namespace
}  // namespace deltapipe
