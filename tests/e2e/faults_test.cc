// Processes that die: the job says so within the detection budget, and nothing
// is left behind.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::ContainsRegex;
using testing::IsEmpty;
using testing::SizeIs;

/// A job that would run for hours, past its third step, and is not started
/// again when a worker is lost.
std::unique_ptr<Process> StartLongJob(Workbench* bench) {
  auto run =
      bench->Start({"run", "job.yaml", "--json", "--set", "train.steps=1000000",
                    "--set", "failure.max_restarts=0"});
  const bool is_training = run->WaitForOutput(
      [](const std::string& text) { return CountEvents(text, "step") >= 3; },
      seconds(60));
  EXPECT_TRUE(is_training) << run->all();
  return run;
}

class KilledWorkerTest : public testing::TestWithParam<int> {};

TEST_P(KilledWorkerTest, FailsTheJobWithinTheBudgetAndNamesTheWorker) {
  Workbench bench;
  auto run = StartLongJob(&bench);
  const std::vector<RunningProcess> workers = bench.Workers();
  ASSERT_THAT(workers, SizeIs(4));

  kill(workers[static_cast<size_t>(GetParam())].pid, SIGKILL);
  const Outcome outcome = bench.Finish(run.get(), seconds(12));

  EXPECT_EQ(outcome.exit_code, 1) << outcome.text;
  EXPECT_THAT(outcome.errors,
              ContainsRegex("worker-[0-9]+ .*stage [01], replica [01].* step "
                            "[0-9]+"))
      << outcome.text;
  const std::vector<nlohmann::json> results = outcome.Events("result");
  ASSERT_THAT(results, SizeIs(1)) << outcome.text;
  EXPECT_EQ(results[0].value("state", ""), "FAILED");
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(EachOfFour, KilledWorkerTest, testing::Range(0, 4));

TEST(FaultsTest, AStoppedWorkerIsDeclaredDeadAfterTheBudget) {
  Workbench bench;
  auto run = bench.Start(
      {"run", "job.yaml", "--json", "--set", "train.steps=1000000", "--set",
       "failure.detection_budget=3s", "--set", "failure.max_restarts=0"});
  ASSERT_TRUE(run->WaitForOutput(
      [](const std::string& text) { return CountEvents(text, "step") >= 3; },
      seconds(60)))
      << run->all();
  const std::vector<RunningProcess> workers = bench.Workers();
  ASSERT_THAT(workers, SizeIs(4));

  kill(workers[2].pid, SIGSTOP);
  const Outcome outcome = bench.Finish(run.get(), seconds(8));

  EXPECT_EQ(outcome.exit_code, 1) << outcome.text;
  EXPECT_THAT(outcome.errors, ContainsRegex("stage [01], replica [01]"));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(FaultsTest, AKilledRunLeavesNoWorker) {
  Workbench bench;
  auto run = StartLongJob(&bench);

  run->Signal(SIGKILL);

  EXPECT_EQ(run->WaitForExit(seconds(2)), 128 + SIGKILL);
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(5)), IsEmpty());
}

enum class To { kProgram, kGroup };

class InterruptTest : public testing::TestWithParam<To> {};

TEST_P(InterruptTest, EndsEverythingInTwoSecondsAndLeavesTheModel) {
  Workbench bench;
  auto run = StartLongJob(&bench);

  if (GetParam() == To::kGroup) {
    run->SignalGroup(SIGINT);
  } else {
    run->Signal(SIGINT);
  }
  const auto left = WaitForNoneMarked(bench.mark(), seconds(2));
  const Outcome outcome = bench.Finish(run.get(), seconds(1));

  EXPECT_THAT(left, IsEmpty()) << left.front().command;
  EXPECT_EQ(outcome.exit_code, 130) << outcome.text;
  EXPECT_TRUE(bench.Has("runs/small/model.safetensors")) << outcome.text;
  EXPECT_TRUE(bench.Has("runs/small/spec.yaml"));
  EXPECT_TRUE(bench.Has("runs/small/metrics.ndjson"));
}

INSTANTIATE_TEST_SUITE_P(Receivers, InterruptTest,
                         testing::Values(To::kProgram, To::kGroup),
                         [](const testing::TestParamInfo<To>& info) {
                           return info.param == To::kGroup ? "TheGroup"
                                                           : "TheProgram";
                         });

TEST(FaultsTest, AnInterruptBeforeTheFirstStepEndsEverything) {
  Workbench bench;
  auto run = bench.Start(
      {"run", "job.yaml", "--json", "--set", "train.steps=1000000"});
  ASSERT_TRUE(run->WaitForOutput(
      [](const std::string& text) { return !text.empty(); }, seconds(30)));

  run->SignalGroup(SIGINT);

  EXPECT_EQ(run->WaitForExit(seconds(3)), 130) << run->all();
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(FaultsTest, AnInterruptedComparisonLeavesNothingBehind) {
  Workbench bench;
  auto compare = bench.StartProgram(
      {"/bin/sh", "-c", "export TMPDIR=\"$PWD\"; exec \"$@\"", "sh",
       bench.program("deltapipe"), "compare", "job.yaml", "--set",
       "train.steps=1000000"});
  ASSERT_TRUE(compare->WaitForOutput(
      [](const std::string& text) {
        return text.find("step=") != std::string::npos;
      },
      seconds(60)))
      << compare->all();

  compare->Signal(SIGINT);

  EXPECT_EQ(compare->WaitForExit(seconds(2)), 130) << compare->all();
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
  for (const auto& entry :
       std::filesystem::directory_iterator(bench.folder())) {
    EXPECT_THAT(entry.path().filename().string(),
                testing::Not(testing::StartsWith("deltapipe-compare-")));
  }
}

}  // namespace
}  // namespace deltapipe
