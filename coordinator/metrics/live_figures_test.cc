#include "coordinator/metrics/live_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/thread.h"
#include "coordinator/metrics/fan_out_sink.h"
#include "coordinator/metrics/testing/demo_job.h"

namespace deltapipe {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class LiveFiguresTest : public ::testing::Test {
 protected:
  LiveFiguresTest() { clock_.Advance(seconds(1000)); }
  FakeClock clock_;
  LiveFigures figures_{&clock_};
};

TEST_F(LiveFiguresTest, AJobThatHasNotTrainedHasNoFigures) {
  v1::Job job;
  job.set_id("text-1");
  figures_.JobChanged(job);
  figures_.StepCompleted("text-1", v1::StepSummary());

  EXPECT_FALSE(figures_.Get("text-1").has_value());
  EXPECT_EQ(figures_.LastEvent("text-1"), 0);
}

TEST_F(LiveFiguresTest, HoldsWhatAJobTells) {
  DemoJob job("text-1", 2, 2, &figures_);
  job.Start();
  clock_.Advance(seconds(1));
  job.Step(1);
  job.Checkpoint();

  const v1::JobMetrics metrics = *figures_.Get("text-1");
  EXPECT_EQ(metrics.ranks_size(), 4);
  EXPECT_EQ(metrics.links_size(), 4);
  EXPECT_EQ(metrics.steps(), 1);
  EXPECT_EQ(metrics.tokens(), 32 * 128);
  EXPECT_EQ(metrics.checkpoint().step(), 1);
  EXPECT_EQ(metrics.checkpoint().time_millis(), 1001000);
  EXPECT_DOUBLE_EQ(metrics.lost().checkpoint(), 0.01);
}

TEST_F(LiveFiguresTest, AnEndedJobIsListedForTheGraceOnly) {
  DemoJob job("text-1", 1, 1, &figures_);
  job.Start();
  job.Change(v1::JOB_STATE_SUCCEEDED, "done");
  EXPECT_EQ(figures_.List(minutes(5)).size(), 1u);

  clock_.Advance(minutes(5));

  EXPECT_EQ(figures_.List(minutes(5)).size(), 0u);
  EXPECT_TRUE(figures_.Get("text-1").has_value());
}

TEST_F(LiveFiguresTest, OfMoreThanAFewEndedJobsTheFirstToEndGo) {
  for (int i = 0; i < LiveFigures::kMaxEnded + 2; ++i) {
    DemoJob job(absl::StrCat("text-", i), 1, 1, &figures_);
    job.Start();
    clock_.Advance(seconds(1));
    job.Change(v1::JOB_STATE_SUCCEEDED, "done");
  }

  EXPECT_FALSE(figures_.Get("text-1").has_value());
  EXPECT_TRUE(figures_.Get("text-2").has_value());
}

TEST_F(LiveFiguresTest, JobsMayTellAndOthersAskAtOnce) {
  Thread asking("ask", [this] {
    for (int i = 0; i < 200; ++i) figures_.List(minutes(1));
  });
  DemoJob job("text-1", 2, 1, &figures_);
  job.Start();
  for (int i = 0; i < 200; ++i) job.Step(0.05);
  asking.Join();

  EXPECT_EQ(figures_.Get("text-1")->steps(), 200);
}

TEST_F(LiveFiguresTest, EverySinkOfAFanOutGetsEveryCall) {
  LiveFigures other(&clock_);
  FanOutSink sinks({&figures_, nullptr, &other});
  DemoJob job("text-1", 2, 2, &sinks);
  job.Start();
  for (int i = 0; i < 100; ++i) job.Step(0.05);
  job.FindStraggler();
  job.Step(0.05);
  job.Checkpoint();
  job.Change(v1::JOB_STATE_SUCCEEDED, "done");

  const v1::JobMetrics metrics = *figures_.Get("text-1");
  EXPECT_EQ(metrics.SerializeAsString(),
            other.Get("text-1")->SerializeAsString());
  EXPECT_EQ(metrics.steps(), 101);
  EXPECT_EQ(metrics.stragglers().stragglers_size(), 1);
  EXPECT_EQ(metrics.dropping().tau_seconds(), 0.045);
  EXPECT_EQ(metrics.samples_dropped(), 4);
  EXPECT_EQ(metrics.samples(), 101 * 32 - 4);
  EXPECT_NE(metrics.validation_loss(), 0);
}

}  // namespace
}  // namespace deltapipe
