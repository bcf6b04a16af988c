// A budget of bytes per step, set on a job that trains: real worker processes
// over TCP, and bytes as the step events count them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;

/// What the issue of budgets promises: met so many steps after the change
/// holds, and by this much at most above.
constexpr int64_t kStepsToSettle = 5;
constexpr double kMostAbove = 0.03;
/// Bits are whole numbers and blocks have few sizes: what is sent may lie below
/// the budget by as much as the next finer choice would exceed it. The
/// allocation comes within the same 3 % of it from below where directions are
/// as many and as large as here; less would be bits given away.
constexpr double kMostBelow = 0.03;
/// Steps that are looked at after that.
constexpr int64_t kStepsSeen = 40;

class BudgetTest : public testing::Test {
 protected:
  void Begin(int stages, int replicas, const std::string& activations) {
    coordinator_ = bench_.Start({"coordinator", "--listen", "127.0.0.1:0"});
    address_ = AwaitListening(coordinator_.get());
    ASSERT_NE(address_, "") << coordinator_->all();
    for (int i = 0; i < stages * replicas; ++i) {
      workers_.push_back(bench_.StartProgram(
          {bench_.program("deltapipe-worker"), "--coordinator", address_}));
    }
    std::vector<std::string> arguments = {"submit", "job.yaml", "-d"};
    for (const std::string& setting :
         {std::string("model.layers=3"), std::string("train.steps=1000000"),
          // Bodies of kilobytes: acknowledgements, which come by time, are
          // noise of a few per cent where messages are as small as that.
          std::string("model.width=64"), std::string("train.batch=32"),
          std::string("train.microbatch=8"),
          "parallel.stages=" + std::to_string(stages),
          "parallel.replicas=" + std::to_string(replicas),
          "compression.activations=" + activations,
          std::string("compression.activation_gradients=int(8)")}) {
      arguments.insert(arguments.end(), {"--set", setting});
    }
    const Outcome submitted = Ask(arguments);
    ASSERT_EQ(submitted.exit_code, 0) << submitted.text;
    events_ = bench_.Start({"events", "small-1", "-w", "--steps", "--json",
                            "--coordinator", address_});
  }
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--coordinator", address_});
    return bench_.Run(arguments);
  }
  /// Waits until `step` (from 0) is told of; bytes that each step sent over
  /// all boundaries and replicas, both directions, framing included.
  std::map<int64_t, int64_t> BytesByStep(int64_t until) {
    std::map<int64_t, int64_t> totals;
    size_t read = 0;
    EXPECT_TRUE(events_->WaitForOutput(
        [&](const std::string& text) {
          size_t end;
          while ((end = text.find('\n', read)) != std::string::npos) {
            const auto event = nlohmann::json::parse(
                text.substr(read, end - read), nullptr, false);
            read = end + 1;
            if (!event.is_object() || event.value("kind", "") != "step") {
              continue;
            }
            totals[event["step"].value("step", int64_t{0})] =
                event["step"].value("activation_wire_bytes", int64_t{0});
          }
          return !totals.empty() && totals.rbegin()->first >= until;
        },
        seconds(100)))
        << coordinator_->all();
    std::map<int64_t, int64_t> bytes;
    for (auto next = totals.begin(); next != totals.end(); ++next) {
      if (next == totals.begin()) continue;
      const auto former = std::prev(next);
      if (next->first != former->first + 1) continue;
      bytes[next->first] = next->second - former->second;
    }
    return bytes;
  }
  /// Sets the budget, sees what is sent once it holds.
  void ExpectKept(int64_t budget) {
    const Outcome set =
        Ask({"budget", "small-1", std::to_string(budget) + "B/step", "--json"});
    ASSERT_EQ(set.exit_code, 0) << set.text;
    const auto objects = set.Objects();
    ASSERT_EQ(objects.size(), 1u) << set.text;
    const int64_t effective = objects[0].value("effective_step", int64_t{-1});
    ASSERT_GE(effective, 0) << set.text;
    const auto bytes = BytesByStep(effective + kStepsToSettle + kStepsSeen);
    std::ostringstream steps;
    for (auto step = bytes.lower_bound(effective - 3); step != bytes.end();
         ++step) {
      steps << "  " << step->first - effective << ": " << step->second;
    }
    SCOPED_TRACE("budget " + std::to_string(budget) +
                 ", by steps since it holds:" + steps.str());
    int num_seen = 0;
    for (auto step = bytes.lower_bound(effective + kStepsToSettle);
         step != bytes.end(); ++step) {
      ++num_seen;
      const double ratio =
          static_cast<double>(step->second) / static_cast<double>(budget);
      EXPECT_LE(ratio, 1 + kMostAbove) << "step " << step->first;
      EXPECT_GE(ratio, 1 - kMostBelow) << "step " << step->first;
    }
    EXPECT_GE(num_seen, kStepsSeen / 2);
  }

  Workbench bench_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<Process> events_;
};

TEST_F(BudgetTest, ThreeStagesKeepIt) {
  Begin(3, 1, "int(8)");
  const auto before = BytesByStep(20);
  ASSERT_FALSE(before.empty());
  const int64_t unbounded = before.rbegin()->second;

  for (const int percent : {60, 35, 80}) ExpectKept(unbounded * percent / 100);
}

// In the first epoch a delta sends what it has no record of in full, whatever
// the budget says of later ones: of 30 kB in samples of 32, some 55 steps.
TEST_F(BudgetTest, DeltasOfTwoReplicasKeepItFromTheSecondEpochOn) {
  Begin(2, 2, "delta(int(8),first=int(8))");
  const auto before = BytesByStep(130);
  ASSERT_FALSE(before.empty());
  const int64_t unbounded = before.rbegin()->second;

  for (const int percent : {60, 80}) ExpectKept(unbounded * percent / 100);
}

}  // namespace
}  // namespace deltapipe
