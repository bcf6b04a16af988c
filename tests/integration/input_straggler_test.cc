// A replica whose first stage reads slowly: what its workers trace names it.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/background/straggler_watch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::Contains;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int kStages = 2;
constexpr int kReplicas = 3;
constexpr int kRanks = kStages * kReplicas;
constexpr int kSteps = 16;

/// The traces of a job whose workers trace all steps but the first. Without a
/// flush its validations are preceded and followed by steps of which nothing is
/// begun early.
struct TracedJob {
  v1::Plan plan;
  std::map<int64_t, std::map<int, v1::StepTrace>> traces;  // by step and rank
};

TracedJob RunTraced(const std::string& inject, const std::string& schedule) {
  TracedJob traced;
  Job job(kStages, kReplicas,
          {"train.batch=24", absl::StrCat("train.steps=", kSteps),
           "train.validate_every=6", "stragglers.policy=detect",
           "parallel.schedule=" + schedule});
  job.assignment().mutable_tuning()->set_inject(inject);
  traced.plan = job.assignment().plan();
  job.takes_checkpoints = true;  // so that messages arrive
  job.on_trace = [&](int rank, const v1::StepTrace& trace) {
    traced.traces[trace.step()][rank] = trace;
  };
  job.after_step = [](int /*rank*/, int64_t /*step*/, Training* training) {
    training->RequestTrace(1);
  };
  ExpectSuccess(job.Run());
  return traced;
}

std::vector<StragglerFinding> Findings(const TracedJob& traced) {
  StragglerWatch watch;
  EXPECT_TRUE(watch.Begin(traced.plan).ok());
  int num_samples = 0;
  for (const auto& [step, by_rank] : traced.traces) {
    if (by_rank.size() != kRanks) continue;
    watch.BeginSample();
    for (const auto& [rank, trace] : by_rank) watch.AddTrace(rank, trace);
    const auto changes = watch.EndSample();
    EXPECT_TRUE(changes.ok()) << changes.status();
    ++num_samples;
  }
  EXPECT_GE(num_samples, 8);
  return watch.findings();
}

class InputStragglerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(InputStragglerTest, IsNamedWithItsCauseAndCost) {
  const TracedJob traced = RunTraced("input:rank=1,by=10ms", GetParam());

  bool is_named = false;
  for (const StragglerFinding& finding : Findings(traced)) {
    SCOPED_TRACE(finding.text());
    if (finding.cause != StragglerCause::kInput) continue;
    is_named = true;
    EXPECT_EQ(finding.scope, (WorkerScope{0, 1}));
    // Four micro-batches; nothing hides what the first stage reads.
    EXPECT_GT(finding.seconds_lost_per_step, 0.03);
  }
  EXPECT_TRUE(is_named);
}

INSTANTIATE_TEST_SUITE_P(Schedules, InputStragglerTest,
                         ::testing::Values("1f1b", "2bw"));

TEST(LoadSpansTest, EveryStageTracesWhatItReadsOnceForAMicrobatch) {
  const TracedJob traced = RunTraced("input:rank=1,by=2ms", "1f1b");

  ASSERT_FALSE(traced.traces.empty());
  for (const auto& [step, by_rank] : traced.traces) {
    for (const auto& [rank, trace] : by_rank) {
      SCOPED_TRACE(testing::Message() << "step " << step << ", rank " << rank);
      std::vector<double> millis;
      for (const v1::TraceSpan& span : trace.spans()) {
        if (span.name() != "LOAD") continue;
        EXPECT_EQ(span.microbatch(), static_cast<int>(millis.size()));
        millis.push_back(
            static_cast<double>(span.end_nanos() - span.begin_nanos()) / 1e6);
      }
      EXPECT_THAT(millis, SizeIs(4));
      if (rank != 1) continue;
      EXPECT_THAT(millis, Not(Contains(testing::Lt(2))));
    }
  }
}

}  // namespace
}  // namespace deltapipe
