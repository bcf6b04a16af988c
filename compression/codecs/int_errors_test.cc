// The relative errors that int(2), int(3) and int(4) are built for: medians
// over 31 tensors of 2^20 values, seeds 1 to 31, which docs/papers.md lists.
// About 12 s.
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr uint32_t kNumSeeds = 31;
constexpr size_t kNumValues = size_t{1} << 20;
// Rows of 128 channels, one of which, about 1 %, is 100 times larger.
constexpr size_t kNumChannels = 128;

struct Medians {
  double plain = 0;
  double outlier_channels = 0;
  /// The published quantizer's, a maximum for each of 1,024 channels over a
  /// sequence of 1,024.
  double published = 0;
};

double Median(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// By bits.
std::map<int, Medians> MediansOf(TestData data) {
  std::map<std::string, std::vector<double>> errors;
  const auto measure = [&](const std::string& name, const std::string& codec,
                           const std::vector<float>& x) {
    errors[name].push_back(RelativeRmsError(x, RoundTrip(codec, x)));
  };
  for (uint32_t seed = 1; seed <= kNumSeeds; ++seed) {
    const std::vector<float> x = MakeTestData(data, kNumValues, seed);
    std::vector<float> scaled = x;
    for (size_t i = 37; i < scaled.size(); i += kNumChannels) scaled[i] *= 100;
    for (const int bits : {2, 3, 4}) {
      const std::string codec = absl::StrCat("int(", bits, ")");
      measure(absl::StrCat("plain", bits), codec, x);
      measure(absl::StrCat("scaled", bits), codec, scaled);
      measure(absl::StrCat("published", bits),
              absl::StrCat("aqsgd(", bits, ",row=1024)"), x);
    }
  }
  std::map<int, Medians> medians;
  for (const int bits : {2, 3, 4}) {
    medians[bits] = {Median(errors[absl::StrCat("plain", bits)]),
                     Median(errors[absl::StrCat("scaled", bits)]),
                     Median(errors[absl::StrCat("published", bits)])};
    std::cout << absl::StreamFormat(
        "%s, %d bits: %.4f, with outlier channels %.4f, published %.4f\n",
        TestDataName(data), bits, medians[bits].plain,
        medians[bits].outlier_channels, medians[bits].published);
  }
  return medians;
}

void CheckTargets(TestData data, const std::map<int, double>& targets) {
  const std::map<int, Medians> medians = MediansOf(data);

  for (const auto& [bits, target] : targets) {
    SCOPED_TRACE(absl::StrCat(bits, " bits"));
    EXPECT_LE(medians.at(bits).plain, target);
    EXPECT_LE(medians.at(bits).outlier_channels, 1.3 * target);
    EXPECT_LT(medians.at(bits).plain, 0.85 * medians.at(bits).published);
  }
}

TEST(IntErrorsTest, MediansOnGaussianValuesAreWithinTheTargets) {
  CheckTargets(TestData::kNormal, {{2, 0.35}, {3, 0.19}, {4, 0.10}});
}

TEST(IntErrorsTest, MediansOnStudentsT3AreWithinTheTargets) {
  CheckTargets(TestData::kHeavyTailed, {{2, 0.56}, {3, 0.36}, {4, 0.20}});
}

}  // namespace
}  // namespace deltapipe
