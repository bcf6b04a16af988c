// Bookmarks of WatchJob, on a control plane without network or workers. The
// streams here run on the test's thread: `is_cancelled`, asked before every
// wait, is where time passes and events come.
#include "coordinator/rpc/watch_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/version.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Events = std::vector<v1::JobEvent>;

class WatchJobTest : public ::testing::Test {
 protected:
  WatchJobTest() {
    ControlPlaneOptions options;
    options.store = std::make_unique<MemoryJobStore>();
    options.roster.version = kVersion;
    options.clock = &clock_;
    options.plan = [](const PlanRequest&) { return PlanAnswer(); };
    options.check_spec = [](const v1::JobSpec&) {
      return std::vector<std::string>();
    };
    plane_ = *ControlPlane::Create(std::move(options));
    NewJob job;  // that no runner drives
    job.spec.set_name("text");
    id_ = plane_->store()->CreateJob(job)->job.id();
    request_.set_id(id_);
    request_.set_allow_bookmarks(true);
    options_.bookmark_interval = milliseconds(10);
  }
  void RecordEvent(const std::string& text) {
    v1::JobEvent event;
    event.set_kind("worker");
    event.set_text(text);
    ASSERT_TRUE(plane_->events()
                    ->Record({id_, std::nullopt, std::nullopt, event})
                    .ok());
  }
  void PublishSteps(size_t count) {
    v1::JobEvent event;
    event.set_kind("step");
    for (size_t i = 0; i < count; ++i) plane_->events()->Publish(id_, event);
  }
  Events Stored(int64_t after_sequence = 0) {
    return *plane_->store()->ReadEvents(id_, after_sequence, 1000);
  }
  /// What a watch gets that goes on until `is_cancelled`.
  Events Watch(const v1::WatchJobRequest& request,
               const std::function<bool()>& is_cancelled) {
    Events events;
    const absl::Status status = WatchJob(
        plane_.get(), request,
        [&](const v1::JobEvent& event) {
          events.push_back(event);
          return true;
        },
        is_cancelled, options_);
    EXPECT_TRUE(status.ok()) << status;
    return events;
  }
  static std::vector<std::string> KindsOf(const Events& events) {
    std::vector<std::string> kinds;
    for (const v1::JobEvent& event : events) kinds.push_back(event.kind());
    return kinds;
  }
  static std::vector<int64_t> SequencesOf(const Events& events) {
    std::vector<int64_t> sequences;
    for (const v1::JobEvent& event : events) {
      sequences.push_back(event.sequence());
    }
    return sequences;
  }

  FakeClock clock_;
  std::unique_ptr<ControlPlane> plane_;
  std::string id_;
  v1::WatchJobRequest request_;
  WatchOptions options_;
};

TEST_F(WatchJobTest, ABookmarkSaysThatAllStoredEventsWereSent) {
  RecordEvent("a");
  request_.set_stored_only(true);

  const Events events = Watch(request_, [] { return false; });

  EXPECT_THAT(KindsOf(events), ElementsAre("state", "worker", "bookmark"));
  EXPECT_EQ(events.back().sequence(), Stored().back().sequence());
}

TEST_F(WatchJobTest, WhoDoesNotAskGetsNone) {
  request_.set_allow_bookmarks(false);
  int num_turns = 0;

  const Events events = Watch(request_, [&] {
    clock_.Advance(milliseconds(100));
    PublishSteps(1);
    RecordEvent("a");
    return ++num_turns > 3;
  });

  EXPECT_THAT(KindsOf(events),
              ElementsAre("state", "worker", "worker", "worker"));
}

TEST_F(WatchJobTest, AnIdleStreamGetsOneEveryInterval) {
  RecordEvent("a");
  const int64_t last = Stored().back().sequence();
  request_.set_after_sequence(last);
  int num_turns = 0;

  const Events events = Watch(request_, [&] {
    clock_.Advance(milliseconds(4));
    return ++num_turns > 9;
  });

  // At once; then as soon as 10 ms have passed, seen every 4 ms.
  std::vector<int64_t> millis;
  for (const v1::JobEvent& event : events) {
    millis.push_back(event.time_millis());
  }
  EXPECT_THAT(KindsOf(events), Each("bookmark"));
  EXPECT_THAT(SequencesOf(events), Each(last));
  EXPECT_THAT(millis, ElementsAre(0, 12, 24, 36));
  EXPECT_EQ(Stored().size(), 2u) << "bookmarks were stored";
}

TEST_F(WatchJobTest, TheIntervalIsTenSecondsUnlessSaidOtherwise) {
  EXPECT_EQ(WatchOptions().bookmark_interval, std::chrono::seconds(10));
}

TEST_F(WatchJobTest, WhatFollowsABookmarkIsWhatAWatchFromThereOnGets) {
  request_.set_include_steps(true);
  int num_turns = 0;
  const Events events = Watch(request_, [&] {
    clock_.Advance(milliseconds(6));
    if (num_turns % 3 == 0) RecordEvent("a");
    PublishSteps(1);
    return ++num_turns > 20;
  });

  int num_bookmarks = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].kind() != "bookmark") continue;
    ++num_bookmarks;
    std::vector<int64_t> expected;
    for (size_t j = i; j < events.size(); ++j) {
      if (events[j].kind() == "worker") {
        expected.push_back(events[j].sequence());
      }
    }
    std::vector<int64_t> resumed = SequencesOf(Stored(events[i].sequence()));
    // The first watch ended before the last events reached it.
    ASSERT_GE(resumed.size(), expected.size());
    resumed.resize(expected.size());
    EXPECT_EQ(resumed, expected) << "after bookmark " << num_bookmarks;
  }
  EXPECT_GT(num_bookmarks, 5);
}

TEST_F(WatchJobTest, BookmarksTakeNoRoomInASlowReadersQueue) {
  request_.set_include_steps(true);
  size_t num_steps = 0;
  int num_bookmarks = 0;
  const absl::Status status = WatchJob(
      plane_.get(), request_,
      [&](const v1::JobEvent& event) {
        num_steps += event.kind() == "step";
        if (event.kind() != "bookmark") return true;
        // While it takes this one, a thousand more fall due and as many steps
        // as its queue holds are made.
        if (++num_bookmarks == 1) {
          PublishSteps(EventLog::kMaxQueuedEvents);
          clock_.Advance(1000 * options_.bookmark_interval);
        }
        return true;
      },
      [&] { return num_steps == EventLog::kMaxQueuedEvents; }, options_);

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_steps, EventLog::kMaxQueuedEvents);
  EXPECT_EQ(num_bookmarks, 1) << "the next one is an interval later";
}

TEST_F(WatchJobTest, AReaderThatIsCutAtABookmarkIsToldSo) {
  request_.set_include_steps(true);
  const absl::Status status = WatchJob(
      plane_.get(), request_,
      [&](const v1::JobEvent& event) {
        if (event.kind() == "bookmark") {
          PublishSteps(EventLog::kMaxQueuedEvents + 1);
        }
        return true;
      },
      [] { return false; }, options_);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was cut"));
}

TEST_F(WatchJobTest, AReaderThatTakesNoBookmarkHasGone) {
  int num_sent = 0;
  const absl::Status status = WatchJob(
      plane_.get(), request_,
      [&](const v1::JobEvent& event) {
        ++num_sent;
        return event.kind() != "bookmark";
      },
      [] { return false; }, options_);

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_sent, 2);
}

}  // namespace
}  // namespace deltapipe
