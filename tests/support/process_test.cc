#include "tests/support/process.h"

#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(ProcessTest, CollectsBothStreamsAndTheExitCode) {
  Workbench bench;
  auto shell =
      bench.StartProgram({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"});

  const Outcome outcome = bench.Finish(shell.get(), seconds(10));

  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.output, "out\n");
  EXPECT_EQ(outcome.errors, "err\n");
}

TEST(ProcessTest, SaysWhyAProgramDidNotStart) {
  Workbench bench;
  auto nothing = bench.StartProgram({"/no/such/program"});

  const Outcome outcome = bench.Finish(nothing.get(), seconds(10));

  EXPECT_EQ(outcome.exit_code, 127);
  EXPECT_THAT(outcome.errors, HasSubstr("No such file"));
}

TEST(ProcessTest, ATerminalIsAllThreeStreams) {
  Workbench bench;
  auto shell = bench.StartOnTerminal(
      {"/bin/sh", "-c",
       "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo out && echo $TERM >&2 && "
       "stty size"});

  const Outcome outcome = bench.Finish(shell.get(), seconds(10));

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.output, "out\r\nxterm\r\n25 100\r\n");
  EXPECT_EQ(outcome.errors, "");
}

TEST(ProcessTest, ASignalIsReportedAsShellsDo) {
  Workbench bench;
  auto sleeper = bench.StartProgram({"/bin/sleep", "1000"});

  sleeper->Signal(SIGTERM);

  EXPECT_EQ(sleeper->WaitForExit(seconds(10)), 128 + SIGTERM);
}

TEST(ProcessTest, WaitEndsWhileTheProgramRuns) {
  Workbench bench;
  auto sleeper = bench.StartProgram({"/bin/sleep", "1000"});

  EXPECT_EQ(sleeper->WaitForExit(milliseconds(20)), std::nullopt);
  EXPECT_FALSE(sleeper->WaitForOutput([](const std::string&) { return true; },
                                      milliseconds(20)));
}

TEST(ProcessTest, FindsOrphansByTheirMarkAndSeesThemEnd) {
  Workbench bench;
  auto shell = bench.StartProgram(
      {"/bin/sh", "-c", "sleep 1000 & echo started; exec sleep 1000"});
  ASSERT_TRUE(shell->WaitForOutput(
      [](const std::string& text) { return text == "started\n"; },
      seconds(10)));

  shell->Signal(SIGKILL);
  ASSERT_EQ(shell->WaitForExit(seconds(10)), 128 + SIGKILL);

  // A shell that is just becoming a sleep shows neither mark nor command.
  const auto give_up = std::chrono::steady_clock::now() + seconds(10);
  while (MarkedProcesses(bench.mark(), "sleep 1000").empty() &&
         std::chrono::steady_clock::now() < give_up) {
    std::this_thread::yield();
  }
  ASSERT_THAT(MarkedProcesses(bench.mark(), "sleep 1000"), SizeIs(1));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), milliseconds(20)), SizeIs(1));
  EXPECT_THAT(MarkedProcesses(bench.mark() + "0"), IsEmpty());
  shell->SignalGroup(SIGKILL);
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(10)), IsEmpty());
}

TEST(WorkbenchTest, ReadsEventsOutOfMixedOutput) {
  Outcome outcome;
  outcome.output =
      "text\n{\"event\":\"step\",\"loss\":2.5}\n{broken\n"
      "{\"event\": \"step\", \"loss\": 1.5}\n{\"event\":\"result\"}\n";

  EXPECT_THAT(outcome.Losses(), testing::ElementsAre(2.5, 1.5));
  EXPECT_THAT(outcome.Events("result"), SizeIs(1));
  EXPECT_EQ(CountEvents(outcome.output, "step"), 2);
}

}  // namespace
}  // namespace deltapipe
