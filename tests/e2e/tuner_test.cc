// The tuner on a job whose links are too thin for its codecs: real worker
// processes over TCP, emulated links.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A direction carries 33 kB in eight bits for each of four micro-batches, 211
// ms a step, with 60 ms of compute in each stage: half of the bits make a step
// faster, and fewer bits than four are more error than the budget allows.
constexpr char kThinLinks[] = R"yaml(name: thin
seed: 5
model: {kind: synthetic, layers: 2, context: 64, width: 256,
        synthetic: {forward_time: 5ms, backward_time: 10ms, drift: 0.1,
                    samples: 64}}
train: {steps: 1000000, batch: 8, microbatch: 2,
        optimizer: {kind: sgd, learning_rate: 0}}
parallel: {stages: 2, replicas: 1, device: cpu}
compression: {activations: int(8), activation_gradients: int(8)}
network: {emulate: {bandwidth: 5Mbit/s}}
)yaml";
constexpr double kErrorBudget = 0.2;

class TunerTest : public testing::Test {
 protected:
  void SetUp() override {
    coordinator_ = bench_.Start({"coordinator", "--listen", "127.0.0.1:0"});
    address_ = AwaitListening(coordinator_.get());
    ASSERT_NE(address_, "") << coordinator_->all();
    for (int i = 0; i < 2; ++i) {
      workers_.push_back(bench_.StartProgram(
          {bench_.program("deltapipe-worker"), "--coordinator", address_}));
    }
    bench_.Write("thin.yaml", kThinLinks);
    const Outcome submitted = Ask({"submit", "thin.yaml", "-d"});
    ASSERT_EQ(submitted.exit_code, 0) << submitted.text;
    events_ = bench_.Start({"events", "thin-1", "-w", "--steps", "--json",
                            "--coordinator", address_});
  }
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--coordinator", address_});
    return bench_.Run(arguments);
  }
  void Set(const std::string& knob) {
    const Outcome set = Ask({"set", "thin-1", knob});
    EXPECT_EQ(set.exit_code, 0) << set.text;
  }
  nlohmann::json Asked(const std::vector<std::string>& arguments) {
    const Outcome outcome = Ask(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    const auto objects = outcome.Objects();
    return objects.empty() ? nlohmann::json::object() : objects[0];
  }
  /// The next event that `is_wanted`; none if it does not come in time.
  template <typename Predicate>
  nlohmann::json Await(const Predicate& is_wanted) {
    nlohmann::json found;
    EXPECT_TRUE(events_->WaitForOutput(
        [&](const std::string& text) {
          size_t end;
          while ((end = text.find('\n', read_)) != std::string::npos) {
            const auto event = nlohmann::json::parse(
                text.substr(read_, end - read_), nullptr, false);
            read_ = end + 1;
            if (!event.is_object() || !is_wanted(event)) continue;
            found = event;
            return true;
          }
          return false;
        },
        seconds(60)))
        << coordinator_->all();
    return found;
  }
  nlohmann::json AwaitTuner() {
    return Await([](const nlohmann::json& event) {
      return event.value("kind", "") == "tuning" &&
             event.value("text", "").rfind("the tuner", 0) == 0;
    });
  }
  /// Bytes that activations and their gradients have sent up to a step from
  /// now, and that step.
  std::pair<int64_t, int64_t> AwaitStep(int64_t at_least) {
    const auto event = Await([at_least](const nlohmann::json& event) {
      return event.value("kind", "") == "step" &&
             event["step"].value("step", int64_t{0}) >= at_least;
    });
    if (!event.is_object()) return {at_least, 0};
    return {event["step"].value("step", int64_t{0}),
            event["step"].value("activation_wire_bytes", int64_t{0})};
  }
  double BytesPerStep(int64_t from) {
    const auto begin = AwaitStep(from);
    const auto end = AwaitStep(begin.first + 5);
    return static_cast<double>(end.second - begin.second) /
           static_cast<double>(end.first - begin.first);
  }

  Workbench bench_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<Process> events_;
  size_t read_ = 0;
};

TEST_F(TunerTest, ProposesFirstAndAppliesOnceItMay) {
  const double before = BytesPerStep(3);
  Set("tuner.error_budget=" + std::to_string(kErrorBudget));
  Set("tuner.mode=propose");

  const auto proposed = AwaitTuner();
  EXPECT_THAT(proposed.value("text", ""), HasSubstr("the tuner proposes"));
  EXPECT_FALSE(proposed.contains("tuning")) << proposed;
  auto held = Asked({"set", "thin-1", "--json"})["boundaries"][0];
  EXPECT_EQ(held.value("activations", ""), "int(8)");
  EXPECT_THAT(held.value("activation_gradients", ""), StartsWith("int(8"));

  Set("tuner.mode=apply");
  const auto applied = AwaitTuner();
  EXPECT_THAT(applied.value("text", ""), HasSubstr("the tuner set"));
  ASSERT_TRUE(applied.contains("tuning")) << applied;
  EXPECT_EQ(applied["tuning"].value("principal", ""), "the tuner");
  held = Asked({"set", "thin-1", "--json"})["boundaries"][0];
  EXPECT_THAT(held.value("activations", ""), StartsWith("int(4"));
  EXPECT_THAT(held.value("activation_gradients", ""), StartsWith("int(4"));

  const double after =
      BytesPerStep(applied["tuning"].value("effective_step", int64_t{0}) + 1);
  EXPECT_LT(after, 0.7 * before);
  const auto links = Asked({"metrics", "thin-1", "--json"})["links"];
  ASSERT_EQ(links.size(), 2u) << links;
  for (const auto& link : links) {
    EXPECT_THAT(link.value("codec", ""), StartsWith("int(4")) << link;
    EXPECT_GT(link.value("relative_error", 0.0), 0) << link;
    EXPECT_LE(link.value("relative_error", 1.0), kErrorBudget) << link;
  }
}

}  // namespace
}  // namespace deltapipe
