#include "coordinator/background/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/thread.h"
#include "coordinator/background/log_book.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::JobEvent EventOf(const std::string& kind, const std::string& text) {
  v1::JobEvent event;
  event.set_kind(kind);
  event.set_text(text);
  return event;
}

class EventLogTest : public ::testing::Test {
 protected:
  EventLogTest() {
    NewJob job;
    job.spec.set_name("text");
    store_.CreateJob(job).IgnoreError();  // "text-1"
    store_.CreateJob(job).IgnoreError();  // "text-2"
  }
  absl::Status Record(const std::string& id, const std::string& text) {
    return log_.Record(
        {id, std::nullopt, std::nullopt, EventOf("worker", text)});
  }
  static std::vector<std::string> Drain(EventLog::Subscription* watch) {
    std::vector<std::string> texts;
    for (;;) {
      const auto next = watch->Next(Deadline::After(Nanos(0)));
      if (!next.ok() || !next->has_value()) return texts;
      texts.push_back((*next)->text());
    }
  }

  FakeClock clock_;
  MemoryJobStore store_;
  EventLog log_{&store_, &clock_};
};

TEST_F(EventLogTest, WatcherSeesItsJobsEventsInOrder) {
  const auto watch = log_.Subscribe("text-1", true);

  ASSERT_TRUE(Record("text-1", "a").ok());
  ASSERT_TRUE(Record("text-2", "other").ok());
  log_.Publish("text-1", EventOf("step", "s"));
  ASSERT_TRUE(Record("text-1", "b").ok());

  EXPECT_THAT(Drain(watch.get()), ElementsAre("a", "s", "b"));
}

TEST_F(EventLogTest, StepsAreForThoseWhoAskedForThem) {
  const auto watch = log_.Subscribe("text-1", false);

  log_.Publish("text-1", EventOf("step", "s"));
  ASSERT_TRUE(Record("text-1", "a").ok());

  EXPECT_THAT(Drain(watch.get()), ElementsAre("a"));
}

TEST_F(EventLogTest, StoredEventsCarrySequenceAndTime) {
  const auto watch = log_.Subscribe("text-1", false);
  clock_.Advance(std::chrono::milliseconds(77));

  ASSERT_TRUE(Record("text-1", "a").ok());

  const auto event = *watch->Next(Deadline::After(Nanos(0)));
  EXPECT_EQ(event->time_millis(), 77);
  EXPECT_EQ(event->sequence(),
            store_.ReadEvents("text-1", 0, 9)->back().sequence());
}

TEST_F(EventLogTest, WhatCouldNotBeStoredIsNotPublished) {
  const auto watch = log_.Subscribe("text-1", false);
  store_.FailCommits(absl::ResourceExhaustedError("disk full"));

  EXPECT_EQ(Record("text-1", "a").code(), absl::StatusCode::kResourceExhausted);

  EXPECT_THAT(Drain(watch.get()), ElementsAre());
}

TEST_F(EventLogTest, SlowReaderIsCutWithAReasonAndOthersAreNot) {
  const auto slow = log_.Subscribe("text-1", true);
  const auto quick = log_.Subscribe("text-1", true);
  size_t num_read = 0;

  for (size_t i = 0; i < EventLog::kMaxQueuedEvents + 1; ++i) {
    log_.Publish("text-1", EventOf("step", "s"));
    num_read += Drain(quick.get()).size();
  }

  const auto cut = slow->Next(Deadline::After(Nanos(0)));
  EXPECT_EQ(cut.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(cut.status().message()), HasSubstr("watch again"));
  EXPECT_EQ(num_read, EventLog::kMaxQueuedEvents + 1);
}

TEST_F(EventLogTest, TheLongestQueueIsTheSlowestReaders) {
  EXPECT_EQ(log_.LongestQueue(), 0);
  const auto slow = log_.Subscribe("text-1", true);
  const auto quick = log_.Subscribe("text-1", true);
  for (int i = 0; i < 3; ++i) log_.Publish("text-1", EventOf("step", "s"));
  Drain(quick.get());

  EXPECT_EQ(log_.LongestQueue(), 3);

  Drain(slow.get());
  EXPECT_EQ(log_.LongestQueue(), 0);
}

TEST_F(EventLogTest, WaitingReaderIsWokenByAnEventAndByTheEnd) {
  const auto watch = log_.Subscribe("text-1", true);
  std::vector<std::string> texts;
  absl::Status end;
  Thread reader("reader", [&] {
    for (;;) {
      const auto next = watch->Next(Deadline::Infinite());
      if (!next.ok()) {
        end = next.status();
        return;
      }
      texts.push_back((*next)->text());
    }
  });

  ASSERT_TRUE(Record("text-1", "a").ok());
  log_.Close("maintenance");
  reader.Join();

  EXPECT_THAT(texts, ElementsAre("a"));
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(end.message()), HasSubstr("maintenance"));
}

TEST_F(EventLogTest, LongLogLineIsCutBetweenCharacters) {
  LogBook book(&store_);
  v1::LogLine line;
  // Two bytes a character, so that the limit falls into the middle of one.
  std::string text = "x";
  while (text.size() < LogBook::kMaxLineBytes + 10) text += "\xC3\xA9";
  line.set_text(text);

  ASSERT_TRUE(book.Append("text-1", line).ok());

  LogQuery query;
  query.job_id = "text-1";
  const auto lines = *book.Read(query);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].line.text(),
            absl::StrCat(text.substr(0, LogBook::kMaxLineBytes - 1),
                         " [cut from ", text.size(), " bytes]"));
}

TEST_F(EventLogTest, FollowerOfLogsIsWokenByALine) {
  LogBook book(&store_);
  const int64_t seen = book.Revision();
  absl::Status woken = absl::UnknownError("not yet");
  Thread follower("follower",
                  [&] { woken = book.Await(seen, Deadline::Infinite()); });
  v1::LogLine line;
  line.set_text("x");

  ASSERT_TRUE(book.Append("text-1", line).ok());
  follower.Join();

  EXPECT_TRUE(woken.ok()) << woken;
  book.Close("maintenance");
  EXPECT_EQ(book.Await(book.Revision(), Deadline::Infinite()).code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace deltapipe
