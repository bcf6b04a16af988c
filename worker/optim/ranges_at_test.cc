#include "worker/optim/ranges_at.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(RangesAtTest, CutsRangesWhereThePartBeginsAndEnds) {
  const std::vector<ElementRange> ranges = {{4, 6}, {0, 3}, {8, 9}};

  EXPECT_THAT(
      RangesAt(ranges, 0, 6),
      ElementsAre(ElementRange{4, 6}, ElementRange{0, 3}, ElementRange{8, 9}));
  EXPECT_THAT(RangesAt(ranges, 1, 3),
              ElementsAre(ElementRange{5, 6}, ElementRange{0, 1}));
  EXPECT_THAT(RangesAt(ranges, 3, 4), ElementsAre(ElementRange{1, 2}));
  EXPECT_THAT(RangesAt(ranges, 2, 2), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
