#include "worker/data/slot_cursors.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

TEST(SlotCursorsTest, AnyCountsGiveEachSlotOneOwnerAndMoveNoMoreThanTheyMust) {
  constexpr uint64_t kSeed = 18;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937_64 random(kSeed);
  for (const bool may_leave_out : {false, true}) {
    SlotCursors cursors({4, 6, may_leave_out});
    for (int64_t step = 0; step < 500; ++step) {
      std::vector<int> counts(4, 1);
      for (int given = 4; given < 24; ++given) ++counts[random() % 4];
      ASSERT_TRUE(cursors.SetCounts(counts).ok());
      std::vector<int64_t> slots;
      int num_moved = 0;
      int num_surplus = 0;
      for (int replica = 0; replica < 4; ++replica) {
        num_surplus += std::max(0, counts[static_cast<size_t>(replica)] - 6);
        for (int mb = 0; mb < counts[static_cast<size_t>(replica)]; ++mb) {
          slots.push_back(cursors.Slot(step, replica, mb));
          num_moved += slots.back() / 6 != replica ? 1 : 0;
        }
      }
      std::sort(slots.begin(), slots.end());
      for (int64_t slot = 0; slot < 24; ++slot) {
        ASSERT_EQ(slots[static_cast<size_t>(slot)], slot) << "step " << step;
      }
      EXPECT_EQ(num_moved, num_surplus);
    }
  }
}

TEST(SlotCursorsTest, EvenCountsAreThoseOfTheBeginning) {
  for (const bool may_leave_out : {false, true}) {
    const SlotCursors plain({2, 4, may_leave_out});
    SlotCursors again({2, 4, may_leave_out});
    ASSERT_TRUE(again.SetCounts({6, 2}).ok());
    ASSERT_TRUE(again.SetCounts({4, 4}).ok());
    for (int64_t step = 0; step < 5; ++step) {
      for (int mb = 0; mb < 8; ++mb) {
        EXPECT_EQ(again.Slot(step, mb / 4, mb % 4),
                  plain.Slot(step, mb / 4, mb % 4));
      }
    }
  }
}

TEST(SlotCursorsTest, RefusesCountsThatAreNoDivisionOfTheSlots) {
  SlotCursors cursors({2, 4});
  ASSERT_TRUE(cursors.SetCounts({6, 2}).ok());

  EXPECT_FALSE(cursors.SetCounts({4, 3}).ok());
  EXPECT_FALSE(cursors.SetCounts({8, 0}).ok());
  EXPECT_FALSE(cursors.SetCounts({8}).ok());
  EXPECT_EQ(cursors.Slot(0, 0, 5), 7) << "as before";
}

// Positions belong to slots, whoever has them.
TEST(SlotCursorsTest, WhatWasLeftOutComesNextToWhoeverHasTheSlot) {
  SlotCursors cursors({2, 4, true, /*comes_again=*/true});
  std::mt19937_64 random(19);
  std::map<int64_t, int64_t> next;  // by slot
  for (int64_t step = 0; step < 200; ++step) {
    const int first = 2 + static_cast<int>(random() % 5);
    const std::vector<int> counts = {first, 8 - first};
    ASSERT_TRUE(cursors.SetCounts(counts).ok());
    std::vector<int> executed;
    for (int replica = 0; replica < 2; ++replica) {
      const int count = counts[static_cast<size_t>(replica)];
      executed.push_back(1 + static_cast<int>(random() % count));
      for (int mb = 0; mb < executed.back(); ++mb) {
        const int64_t slot = cursors.Slot(step, replica, mb);
        EXPECT_EQ(cursors.Position(step, slot), next[slot]++)
            << "slot " << slot;
      }
    }
    cursors.Advance(step, executed);
  }
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
