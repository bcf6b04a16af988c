#include "worker/stage/gradient_watch.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Segments of one element, in the order of names.
ParameterLayout Layout(const std::vector<std::string>& names) {
  ParameterLayout layout;
  for (const std::string& name : names) {
    ParameterSegment segment;
    segment.name = name;
    segment.offset = layout.num_elements++;
    segment.num_elements = 1;
    layout.segments.push_back(segment);
  }
  return layout;
}

std::vector<std::vector<int64_t>> AsPairs(
    const std::vector<ElementRange>& order) {
  std::vector<std::vector<int64_t>> pairs;
  for (const ElementRange& range : order) {
    pairs.push_back({range.begin, range.end});
  }
  return pairs;
}

class GradientWatchTest : public ::testing::Test {
 protected:
  const std::vector<std::string> parts_ = {"embedding", "blocks.1", "blocks.10",
                                           "head"};
  GradientWatch watch_{
      Layout({"blocks.1.bias", "blocks.1.weight", "blocks.10.weight",
              "embedding.token", "head.norm"}),
      parts_};
  std::vector<int64_t> told_;
};

TEST_F(GradientWatchTest, OrdersFromTheLastPartToTheFirst) {
  EXPECT_THAT(AsPairs(watch_.order()),
              ElementsAre(ElementsAre(4, 5), ElementsAre(2, 3),
                          ElementsAre(0, 2), ElementsAre(3, 4)));
}

TEST_F(GradientWatchTest, TellsOfPartsThatAreWhole) {
  watch_.Begin([&](int64_t n) { told_.push_back(n); });
  watch_.EnterSegment(0);
  watch_.Accumulated(2);  // before the head
  EXPECT_THAT(told_, IsEmpty());
  watch_.Accumulated(4);
  watch_.Accumulated(1);
  watch_.Accumulated(3);
  watch_.Accumulated(0);

  EXPECT_THAT(told_, ElementsAre(2, 5));
}

// With parts that are computed anew, the head's use of a tied embedding is
// added by a pass of its own.
TEST_F(GradientWatchTest, ATensorOfTwoPartsIsFinalWithTheFirst) {
  watch_.Begin([&](int64_t n) { told_.push_back(n); });
  watch_.EnterSegment(3);
  watch_.Accumulated(3);
  watch_.Accumulated(4);
  watch_.EnterSegment(1);
  watch_.Accumulated(2);
  watch_.Accumulated(1);
  watch_.Accumulated(0);
  EXPECT_THAT(told_, ElementsAre(1, 2, 4));
  watch_.EnterSegment(0);
  watch_.Accumulated(3);

  EXPECT_EQ(told_.back(), 5);
}

TEST_F(GradientWatchTest, TellsNothingOutsideOfAPass) {
  watch_.Accumulated(4);
  watch_.Begin([&](int64_t n) { told_.push_back(n); });
  watch_.EnterSegment(0);
  watch_.End();
  watch_.Accumulated(4);

  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(GradientWatchTest, APassBeginsWithNothingFinal) {
  for (int pass = 0; pass < 2; ++pass) {
    told_.clear();
    watch_.Begin([&](int64_t n) { told_.push_back(n); });
    watch_.EnterSegment(0);
    watch_.Accumulated(2);
    EXPECT_THAT(told_, IsEmpty());
    watch_.Accumulated(4);
    EXPECT_THAT(told_, ElementsAre(2));
    watch_.End();
  }
}

// What is tied across stages is of a part that this stage does not have.
TEST(GradientWatchOfTiedTest, SegmentsOfNoPartComeLastAndAreNotTold) {
  GradientWatch watch(Layout({"head.norm", "embedding.token"}), {"head"});
  std::vector<int64_t> told;

  watch.Begin([&](int64_t n) { told.push_back(n); });
  watch.EnterSegment(0);
  watch.Accumulated(1);
  watch.Accumulated(0);

  EXPECT_THAT(told, ElementsAre(1));
  EXPECT_THAT(AsPairs(watch.order()), ElementsAre(ElementsAre(0, 2)));
}

}  // namespace
}  // namespace deltapipe
