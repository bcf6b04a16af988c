#include "worker/engine/own_norm.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

/// Segments of these sizes.
ParameterLayout Layout(const std::vector<int64_t>& sizes) {
  ParameterLayout layout;
  for (const int64_t size : sizes) {
    ParameterSegment segment;
    segment.offset = layout.num_elements;
    segment.num_elements = size;
    layout.segments.push_back(segment);
    layout.num_elements += size;
  }
  return layout;
}

TEST(OwnNormTest, HasTheSameBitsWheneverSegmentsBecomeFinal) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const ParameterLayout layout = Layout({300, 7, 41, 1000, 1});
  std::vector<float> gradient(static_cast<size_t>(layout.num_elements));
  for (float& value : gradient) value = normal(random);
  const double expected = OwnNorm(layout, gradient, {}).Sum();
  // Segments 3, then 0 and 1, then 4; the order says nothing of 2.
  const std::vector<ElementRange> order = {{348, 1348}, {0, 307}, {1348, 1349}};

  for (int trial = 0; trial < 20; ++trial) {
    OwnNorm norm(layout, gradient, order);
    for (int64_t n = 0; n < 1308; n += static_cast<int64_t>(random() % 700)) {
      norm.Add(n);
    }
    EXPECT_EQ(norm.Sum(), expected);
  }
}

// What was told is overwritten by the mean; what was not is still to come.
TEST(OwnNormTest, ReadsASegmentWhenItIsFinalAndOnlyThen) {
  const ParameterLayout layout = Layout({2, 2, 2});
  std::vector<float> gradient = {9, 9, 9, 9, 1, 2};
  const std::vector<ElementRange> order = {{4, 6}, {0, 4}};
  OwnNorm norm(layout, gradient, order);

  norm.Add(2);
  gradient = {3, 4, 9, 9, 0, 0};
  norm.Add(5);  // of the last segment one element
  gradient = {0, 0, 5, 6, 0, 0};

  EXPECT_EQ(norm.Sum(), 1 + 4 + 9 + 16 + 25 + 36);
}

TEST(OwnNormTest, TermsOfTiedTensorsCountOncePerOwner) {
  ParameterLayout layout = Layout({1, 1});
  layout.num_tied = 1;
  layout.tied_stages = {0, 3};
  const std::vector<float> gradient = {2, 3};

  EXPECT_EQ(OwnNorm(layout, gradient, {}).Sum(), 4 + 2 * 9);
}

}  // namespace
}  // namespace deltapipe
