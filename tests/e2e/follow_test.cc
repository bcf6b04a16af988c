// Verbs that follow a job while its coordinator is killed and started again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// The numbers of stored events, and those of steps, in the order in which they
/// were printed as JSON.
struct Told {
  std::vector<int64_t> events;
  std::vector<int64_t> steps;
};

Told ToldIn(const std::string& output) {
  Outcome outcome;
  outcome.output = output;
  Told told;
  for (const nlohmann::json& event : outcome.Objects()) {
    if (event.value("kind", "") == "step") {
      told.steps.push_back(event["step"].value("step", int64_t{-1}));
    } else if (event.value("sequence", int64_t{0}) > 0) {
      told.events.push_back(event["sequence"].get<int64_t>());
    }
  }
  return told;
}

template <typename Number>
bool IsRising(const std::vector<Number>& numbers) {
  return std::adjacent_find(numbers.begin(), numbers.end(),
                            std::greater_equal<Number>()) == numbers.end();
}

bool AwaitText(Process* process, const std::string& text) {
  return process->WaitForOutput(
      [&](const std::string& all) {
        return all.find(text) != std::string::npos;
      },
      seconds(30));
}

class FollowTest : public testing::Test {
 protected:
  void StartCoordinator() {
    coordinator_ = bench_.Start(
        {"coordinator", "--listen",
         address_.empty() ? std::string("127.0.0.1:0") : address_});
    address_ = AwaitListening(coordinator_.get());
    ASSERT_NE(address_, "") << coordinator_->all();
  }
  void KillCoordinator() {
    coordinator_->Signal(SIGKILL);
    ASSERT_EQ(coordinator_->WaitForExit(seconds(5)), 128 + SIGKILL);
  }
  std::vector<std::string> WithAddress(std::vector<std::string> words) {
    words.insert(words.end(), {"--coordinator", address_});
    return words;
  }
  Outcome Ask(const std::vector<std::string>& words) {
    return bench_.Run(WithAddress(words));
  }
  std::unique_ptr<Process> Start(const std::vector<std::string>& words) {
    return bench_.Start(WithAddress(words));
  }
  /// A job of one worker that does not end by itself.
  static std::vector<std::string> Submission() {
    return {"submit", "job.yaml",
            "--set",  "parallel.stages=1",
            "--set",  "parallel.replicas=1",
            "--set",  "train.steps=1000000"};
  }

  Workbench bench_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
};

TEST_F(FollowTest, GoesOnWithTheNextCoordinator) {
  StartCoordinator();
  auto worker = bench_.StartProgram(
      {bench_.program("deltapipe-worker"), "--coordinator", address_});
  std::vector<std::string> submission = Submission();
  submission.push_back("-d");
  ASSERT_EQ(Ask(submission).exit_code, 0);
  auto events = Start({"events", "small-1", "-w", "--steps", "--json"});
  const auto awaits_steps = [&](size_t count) {
    return events->WaitForOutput(
        [&](const std::string& text) {
          return ToldIn(text).steps.size() >= count;
        },
        seconds(40));
  };
  ASSERT_TRUE(awaits_steps(5)) << events->all();
  auto top = bench_.StartOnTerminal(
      WithAddress({bench_.program("deltapipe"), "top", "small-1"}));
  ASSERT_TRUE(AwaitText(top.get(), "RUNNING")) << top->all();

  KillCoordinator();
  const bool is_gone = AwaitText(events.get(), "is gone; trying again for 1 m");
  const bool is_gone_in_top = AwaitText(top.get(), "is gone; trying again");
  StartCoordinator();
  const bool is_back = AwaitText(events.get(), address_ + " is back");
  const bool is_back_in_top = AwaitText(top.get(), address_ + " is back");
  const bool goes_on = awaits_steps(ToldIn(events->output()).steps.size() + 10);
  const Outcome cancelled = Ask({"cancel", "small-1"});
  const Outcome followed = bench_.Finish(events.get(), seconds(30));
  const Outcome stored = Ask({"events", "small-1", "--json"});

  EXPECT_TRUE(is_gone && is_back && goes_on) << events->errors();
  EXPECT_TRUE(is_gone_in_top && is_back_in_top) << top->all();
  EXPECT_EQ(cancelled.exit_code, 0) << cancelled.text;
  EXPECT_EQ(followed.exit_code, 0) << followed.errors;
  EXPECT_EQ(top->WaitForExit(seconds(20)), 0) << top->all();
  EXPECT_EQ(followed.errors,
            "coordinator at " + address_ +
                " is gone; trying again for 1 min\ncoordinator at " + address_ +
                " is back\n");
  const Told told = ToldIn(followed.output);
  EXPECT_EQ(told.events, ToldIn(stored.output).events) << followed.output;
  EXPECT_TRUE(IsRising(told.events)) << followed.output;
  EXPECT_TRUE(IsRising(told.steps)) << followed.output;
}

TEST_F(FollowTest, GivesUpAfterItsLimitAndEndsAtOnceOnCtrlC) {
  StartCoordinator();
  std::vector<std::string> submission = Submission();
  submission.insert(submission.end(), {"--reconnect-for", "0"});
  auto attached = Start(submission);
  ASSERT_TRUE(AwaitText(attached.get(), "small-1 = ")) << attached->all();
  auto hasty = Start({"events", "small-1", "-w", "--reconnect-for", "500ms"});
  ASSERT_TRUE(AwaitText(hasty.get(), "submitted")) << hasty->all();
  auto patient = Start({"events", "small-1", "-w"});
  ASSERT_TRUE(AwaitText(patient.get(), "submitted")) << patient->all();

  KillCoordinator();
  EXPECT_TRUE(AwaitText(patient.get(), "is gone")) << patient->all();
  patient->Signal(SIGINT);

  EXPECT_EQ(patient->WaitForExit(seconds(2)), 130) << patient->all();
  EXPECT_EQ(hasty->WaitForExit(seconds(20)), 5) << hasty->all();
  EXPECT_THAT(hasty->errors(),
              AllOf(HasSubstr("is gone; trying again for 500 ms\n"),
                    HasSubstr("error: the coordinator did not come back within "
                              "500 ms (--reconnect-for): cannot reach")));
  EXPECT_EQ(attached->WaitForExit(seconds(20)), 5) << attached->all();
  EXPECT_THAT(attached->errors(), AllOf(HasSubstr("cannot reach a coordinator"),
                                        Not(HasSubstr("trying again"))));
}

}  // namespace
}  // namespace deltapipe
