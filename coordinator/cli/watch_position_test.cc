#include "coordinator/cli/watch_position.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

constexpr auto kNews = WatchedEvent::kNews;
constexpr auto kNewsAfterGap = WatchedEvent::kNewsAfterGap;
constexpr auto kKnown = WatchedEvent::kKnown;

v1::JobEvent Event(const std::string& kind, int64_t sequence) {
  v1::JobEvent event;
  event.set_kind(kind);
  event.set_sequence(sequence);
  return event;
}

std::vector<WatchedEvent> AddSteps(const std::vector<int>& steps,
                                   WatchPosition* position) {
  std::vector<WatchedEvent> answers;
  for (const int step : steps) {
    v1::JobEvent event = Event("step", 0);
    event.set_state(v1::JOB_STATE_RUNNING);
    event.mutable_step()->set_step(step);
    answers.push_back(position->Add(event));
  }
  return answers;
}

TEST(WatchPositionTest, TheNextStreamBeginsAfterTheLastEventOrBookmark) {
  WatchPosition position(4);

  const WatchedEvent event = position.Add(Event("worker", 7));
  const int64_t after_event = position.after_sequence();
  const WatchedEvent bookmark = position.Add(Event("bookmark", 9));

  EXPECT_EQ(event, kNews);
  EXPECT_EQ(after_event, 7);
  EXPECT_EQ(bookmark, kKnown);
  EXPECT_EQ(position.after_sequence(), 9);
}

TEST(WatchPositionTest, WhatIsNotAfterThePositionIsKnown) {
  WatchPosition position(4);
  position.Add(Event("worker", 7));
  position.BreakOff();

  EXPECT_EQ(position.Add(Event("worker", 4)), kKnown);
  EXPECT_EQ(position.Add(Event("worker", 7)), kKnown);
  EXPECT_EQ(position.Add(Event("worker", 8)), kNews);
  EXPECT_EQ(position.after_sequence(), 8);
}

TEST(WatchPositionTest, AnEventWithoutASequenceIsNewsAndMovesNothing) {
  WatchPosition position(4);

  EXPECT_EQ(position.Add(Event("state", 0)), kNews);
  EXPECT_EQ(position.after_sequence(), 4);
}

TEST(WatchPositionTest, StepsThatComeAgainFromTheNextCoordinatorAreKnown) {
  WatchPosition position(0);
  AddSteps({5, 6, 7}, &position);
  position.BreakOff();
  position.Add(Event("worker", 3));  // "the coordinator is back"

  EXPECT_THAT(AddSteps({6, 7, 8, 9}, &position),
              ElementsAre(kKnown, kKnown, kNews, kNews));
}

TEST(WatchPositionTest, StepsThatWereMissedLeaveAGapThatIsToldOnce) {
  WatchPosition position(0);
  AddSteps({5, 6}, &position);
  position.BreakOff();

  EXPECT_THAT(AddSteps({9, 10}, &position), ElementsAre(kNewsAfterGap, kNews));
}

TEST(WatchPositionTest, StepsThatAreMadeAnewAreNews) {
  WatchPosition position(0);
  AddSteps({5, 6, 7}, &position);
  position.BreakOff();
  position.Add(Event("restart", 3));

  EXPECT_THAT(AddSteps({2, 3}, &position), ElementsAre(kNews, kNews));
}

TEST(WatchPositionTest, SoAreThoseOfAJobThatStartsAgain) {
  WatchPosition position(0);
  AddSteps({5, 6, 7}, &position);
  v1::JobEvent pending = Event("state", 3);
  pending.set_state(v1::JOB_STATE_PENDING);
  position.BreakOff();
  position.Add(pending);

  EXPECT_THAT(AddSteps({2, 9}, &position), ElementsAre(kNews, kNews));
}

TEST(WatchPositionTest, AJobThatGoesBackWithinAStreamIsFollowed) {
  WatchPosition position(0);

  EXPECT_THAT(AddSteps({5, 6, 2, 3}, &position),
              ElementsAre(kNews, kNews, kNews, kNews));
}

TEST(WatchPositionTest, TheFirstStepEverLeavesNoGap) {
  WatchPosition position(0);
  position.BreakOff();

  EXPECT_THAT(AddSteps({40, 41}, &position), ElementsAre(kNews, kNews));
}

}  // namespace
}  // namespace deltapipe
