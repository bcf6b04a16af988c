#include "worker/data/slot_cursors.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

TEST(SlotCursorsTest, WithoutAPolicyPositionsAreSteps) {
  SlotCursors cursors({2, 4});
  cursors.Advance(0, {4, 4});

  EXPECT_EQ(cursors.Slot(7, 1, 2), 6);
  EXPECT_EQ(cursors.Position(7, 6), 7);
  EXPECT_TRUE(cursors.positions().empty());
}

TEST(SlotCursorsTest, EverySlotTakesTheLastPlaceInTurn) {
  SlotCursors cursors({2, 4, /*may_leave_out=*/true});
  std::vector<int64_t> last;
  for (int64_t step = 0; step < 4; ++step) {
    last.push_back(cursors.Slot(step, 1, 3));
    std::vector<int64_t> slots;
    for (int mb = 0; mb < 4; ++mb) slots.push_back(cursors.Slot(step, 1, mb));
    std::sort(slots.begin(), slots.end());
    EXPECT_THAT(slots, ElementsAre(4, 5, 6, 7));
  }
  std::sort(last.begin(), last.end());
  EXPECT_THAT(last, ElementsAre(4, 5, 6, 7));
}

TEST(SlotCursorsTest, WhatWasLeftOutComesNextAndNothingIsLostOrDoneTwice) {
  SlotCursors cursors({2, 4, true, /*comes_again=*/true});
  std::mt19937_64 random(17);
  std::map<int64_t, std::vector<int64_t>> done;  // by slot
  for (int64_t step = 0; step < 200; ++step) {
    std::vector<int> executed;
    for (int replica = 0; replica < 2; ++replica) {
      executed.push_back(1 + static_cast<int>(random() % 4));
      for (int mb = 0; mb < executed.back(); ++mb) {
        const int64_t slot = cursors.Slot(step, replica, mb);
        done[slot].push_back(cursors.Position(step, slot));
      }
    }
    cursors.Advance(step, executed);
  }

  int64_t least = 200;
  int64_t most = 0;
  for (const auto& [slot, positions] : done) {
    for (size_t i = 0; i < positions.size(); ++i) {
      EXPECT_EQ(positions[i], static_cast<int64_t>(i)) << "slot " << slot;
    }
    least = std::min<int64_t>(least, static_cast<int64_t>(positions.size()));
    most = std::max<int64_t>(most, static_cast<int64_t>(positions.size()));
  }
  // 2.5 of 4 are done on average, of every slot alike.
  EXPECT_GE(least, 105);
  EXPECT_LE(most, 145);
}

TEST(SlotCursorsTest, GoesOnFromACheckpoint) {
  SlotCursors cursors({1, 2, true, true});
  cursors.Advance(0, {1});
  SlotCursors again({1, 2, true, true});

  ASSERT_TRUE(again.Restore(1, cursors.positions()).ok());

  EXPECT_EQ(again.positions(), cursors.positions());
  EXPECT_FALSE(again.Restore(1, {1, 2, 3}).ok());
  ASSERT_TRUE(again.Restore(9, {}).ok());
  EXPECT_THAT(again.positions(), Each(9));
}

}  // namespace
}  // namespace deltapipe
