#include "coordinator/metrics/trace_collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/thread.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using ::testing::HasSubstr;

const std::function<bool()> kNeverCancelled = [] { return false; };

v1::StepTrace Trace(int spans) {
  v1::StepTrace trace;
  for (int i = 0; i < spans; ++i) trace.add_spans();
  return trace;
}

v1::Job Job(v1::JobState state) {
  v1::Job job;
  job.set_id("text-1");
  job.set_state(state);
  job.set_reason("enough");
  return job;
}

TEST(TraceCollectorTest, WaitsUntilAllHaveCome) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");
  Thread worker("worker", [&] {
    collector.Traced("other-2", 0, 0, Trace(1));
    collector.Traced("text-1", 0, 1, Trace(1));
    collector.JobChanged(Job(v1::JOB_STATE_RUNNING));
    collector.Traced("text-1", 1, 0, Trace(2));
  });

  const auto traces =
      gathering->Await(2, Deadline::After(minutes(1)), kNeverCancelled);

  ASSERT_TRUE(traces.ok()) << traces.status();
  ASSERT_EQ(traces->size(), 2u);
  EXPECT_EQ((*traces)[1].stage, 1);
  EXPECT_EQ((*traces)[1].trace.spans_size(), 2);
}

TEST(TraceCollectorTest, SaysHowManyCameInTime) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");
  collector.Traced("text-1", 0, 0, Trace(1));

  const auto traces =
      gathering->Await(2, Deadline::After(milliseconds(1)), kNeverCancelled);

  EXPECT_EQ(traces.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(traces.status().message()),
              HasSubstr("only 1 of 2 traces of job 'text-1' came in time"));
}

TEST(TraceCollectorTest, AJobThatEndsMeanwhileIsNotWaitedFor) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");
  collector.JobChanged(Job(v1::JOB_STATE_CANCELLED));

  const auto traces =
      gathering->Await(1, Deadline::After(minutes(1)), kNeverCancelled);

  EXPECT_EQ(traces.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(std::string(traces.status().message()),
            "job 'text-1' became CANCELLED (enough) while it was traced");
}

TEST(TraceCollectorTest, ANewGenerationEndsTheTrace) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");
  v1::Job job = Job(v1::JOB_STATE_RUNNING);
  job.set_generation(9);
  collector.JobStarted(job, v1::Plan());

  const auto traces =
      gathering->Await(1, Deadline::After(minutes(1)), kNeverCancelled);

  EXPECT_EQ(traces.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(traces.status().message()),
              HasSubstr("began generation 9 while it was traced"));
}

TEST(TraceCollectorTest, WhoGoesAwayIsNotKept) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");

  const auto traces =
      gathering->Await(1, Deadline::Infinite(), [] { return true; });

  EXPECT_EQ(traces.status().code(), absl::StatusCode::kCancelled);
}

TEST(TraceCollectorTest, MoreSpansThanAreHeldAreAnError) {
  TraceCollector collector;
  const auto gathering = collector.Gather("text-1");
  const v1::StepTrace trace = Trace(1000);
  for (int64_t i = 0; i <= TraceCollector::kMaxSpans / 1000; ++i) {
    collector.Traced("text-1", 0, 0, trace);
  }

  const auto traces =
      gathering->Await(5000, Deadline::After(minutes(1)), kNeverCancelled);

  EXPECT_EQ(traces.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(traces.status().message()),
              HasSubstr("ask for fewer steps"));
}

}  // namespace
}  // namespace deltapipe
