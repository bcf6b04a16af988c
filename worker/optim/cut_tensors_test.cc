#include "worker/optim/cut_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/optim/sharded_state.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CutTensorsTest, CountsTensorsOfSeveralRanksInTheOrderOfTheLayout) {
  const ParameterLayout layout = LayoutOf({10, 4, 0, 30, 5});
  // As a ring shares out: rank 0 has the second share.
  const std::vector<ElementRange> ranges = {{14, 20}, {20, 49}, {0, 14}};

  const CutTensors first = CutTensors::Of(layout, ranges, 0);
  const CutTensors second = CutTensors::Of(layout, ranges, 1);
  const CutTensors third = CutTensors::Of(layout, ranges, 2);

  EXPECT_EQ(first.count, 1);
  EXPECT_EQ(second.count, 1);
  EXPECT_EQ(third.count, 1);
  EXPECT_THAT(first.of_segments, ElementsAre(0));
  EXPECT_THAT(second.of_segments, ElementsAre(0, -1));
  EXPECT_THAT(third.of_segments, ElementsAre(-1, -1));
  EXPECT_EQ(LayoutOfRange(layout, ranges[1]).segments.size(), 2u);
}

TEST(CutTensorsTest, SharesMayBeSmallerThanATensorOrEmpty) {
  const ParameterLayout layout = LayoutOf({3});
  const std::vector<ElementRange> ranges = {{0, 1}, {1, 2}, {2, 3}, {3, 3}};

  EXPECT_THAT(CutTensors::Of(layout, ranges, 1).of_segments, ElementsAre(0));
  EXPECT_THAT(CutTensors::Of(layout, ranges, 3).of_segments, IsEmpty());
  EXPECT_EQ(CutTensors::Of(layout, ranges, 3).count, 1);
  EXPECT_EQ(CutTensors::Of(layout, {{0, 3}}, 0).count, 0);
}

}  // namespace
}  // namespace deltapipe
