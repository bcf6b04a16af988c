#include "coordinator/cli/top_frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::JobMetrics Metrics() {
  v1::JobMetrics metrics;
  metrics.set_id("text-1");
  metrics.set_state(v1::JOB_STATE_RUNNING);
  metrics.mutable_step()->set_step(339);
  metrics.mutable_step()->set_total_steps(1000);
  metrics.mutable_step()->set_loss(2.013);
  metrics.mutable_step()->set_tokens_per_second(12345);
  metrics.set_eta_seconds(105);
  metrics.set_goodput_ratio(0.98);
  for (int stage = 0; stage < 2; ++stage) {
    v1::RankMetrics* rank = metrics.add_ranks();
    rank->set_stage(stage);
    rank->set_worker_id("worker-" + std::to_string(stage));
    rank->set_step_seconds(0.1);
    rank->set_compute_seconds(stage == 0 ? 0.05 : 0.1);
    rank->set_reduce_seconds(stage == 0 ? 0.025 : 0);
    rank->set_straggler_score(stage == 0 ? 1 : 0.6);
    v1::LinkMetrics* link = metrics.add_links();
    link->set_is_gradient(stage == 1);
    link->set_codec(stage == 0 ? "int(4)" : "int(8)");
    link->set_busy_ratio(stage == 0 ? 0.2 : 0.9);
    link->set_bytes_per_second(1e6);
    link->set_compression_ratio(7.9);
  }
  v1::JobEvent* event = metrics.add_events();
  event->set_kind("tuning");
  event->set_text("activations: int(4) -> int(2)");
  return metrics;
}

TEST(TopFrameTest, HasJobPipelineLinksStragglersAndEvents) {
  const std::string frame = TopFrame(Metrics(), {120, 0});

  EXPECT_THAT(frame, StartsWith("text-1  RUNNING  340/1000  loss 2.0130  "
                                "12,345 tok/s  ETA 1:45  goodput 98 %\n"));
  EXPECT_THAT(frame, HasSubstr("############======......"));
  EXPECT_THAT(frame, ContainsRegex("worker-1 +1 +0 +60 %"));
  EXPECT_THAT(frame, HasSubstr("tuning  activations: int(4) -> int(2)"));
}

TEST(TopFrameTest, BusiestLinkAndSlowestWorkerComeFirst) {
  const std::string frame = TopFrame(Metrics(), {120, 0});

  EXPECT_LT(frame.find("int(8)"), frame.find("int(4)"));
  EXPECT_LT(frame.find("worker-1  "), frame.rfind("worker-0"));
}

TEST(TopFrameTest, StragglersThatWereFoundReplaceTheSlowest) {
  v1::JobMetrics metrics = Metrics();
  v1::Straggler* found = metrics.mutable_stragglers()->add_stragglers();
  found->set_stage(1);
  found->set_worker_id("worker-1");
  found->set_cause("compute");
  found->set_slowdown(1.5);
  metrics.set_samples_dropped(3);

  const std::string frame = TopFrame(metrics, {120, 0});

  EXPECT_THAT(frame, AllOf(ContainsRegex("stage 1, replica 0 +compute +1.50 x"),
                           HasSubstr("left out: 3 samples\n"),
                           Not(HasSubstr("SLOWEST"))));
}

TEST(TopFrameTest, NarrowAndLowTerminalsGetLess) {
  const std::string frame = TopFrame(Metrics(), {40, 9});

  for (const absl::string_view line : absl::StrSplit(frame, '\n')) {
    EXPECT_LE(TextWidth(std::string(line)), 40);
  }
  EXPECT_LE(std::count(frame.begin(), frame.end(), '\n'), 9);
  EXPECT_THAT(frame, AllOf(HasSubstr("STAGE"), Not(HasSubstr("EVENTS"))));
}

TEST(TopFrameTest, JobWithoutStepsHasItsLine) {
  v1::JobMetrics metrics;
  metrics.set_id("text-1");
  metrics.set_state(v1::JOB_STATE_STARTING);

  EXPECT_EQ(TopFrame(metrics, {80, 0}),
            "text-1  STARTING  no step has been made yet\n");
}

TEST(TopFrameTest, SavedActivationsAreALineOfThePipelineWherePacked) {
  v1::JobMetrics metrics = Metrics();
  EXPECT_THAT(TopFrame(metrics, {120, 0}), Not(HasSubstr("saved ")));

  v1::SavedReport* saved = metrics.mutable_ranks(1)->mutable_saved();
  saved->set_unique_bytes(1'200'000'000);
  saved->set_packed_bytes(160'000'000);
  saved->set_peak_bytes(40'000'000);

  EXPECT_THAT(
      TopFrame(metrics, {120, 0}),
      HasSubstr("worker-1\nsaved 1.2 GB -> 160 MB (0.13), peak 40 MB on stage "
                "1\n\nLINK"));
}

}  // namespace
}  // namespace deltapipe
