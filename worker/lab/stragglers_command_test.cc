#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/latency_model.h"
#include "base/safetensors.h"
#include "base/tensor_view.h"
#include "nlohmann/json.hpp"
#include "worker/lab/testing_lab.h"

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::StartsWith;
using Json = nlohmann::json;

/// What was printed with --json, by policy.
std::map<std::string, Json> ByPolicy(const LabOutcome& outcome) {
  std::map<std::string, Json> found;
  for (const Json& object : outcome.objects()) {
    found[object.value("policy", "")] = object;
  }
  return found;
}

LabOutcome RunCommand(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "stragglers");
  return RunLabProgram(arguments);
}

/// Writes a recording and returns its path.
std::string Recorded(const std::string& name, std::vector<int64_t> shape,
                     std::vector<float> values) {
  const std::string path = LabPath(name + ".safetensors");
  SafetensorsWriter writer;
  writer.Add("seconds", TensorView(DType::kFloat32, shape, values.data()));
  EXPECT_TRUE(writer.WriteTo(path, {}).ok());
  return path;
}

TEST(StragglersCommandTest, ATableNamesEveryPolicyAndTheOracle) {
  const LabOutcome outcome = RunCommand(
      {"--inject", "lognormal:1.0", "--steps", "100", "--replicas", "4"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(
      outcome.lines(),
      ElementsAre(AllOf(StartsWith("policy"), EndsWith("realised")),
                  AllOf(StartsWith("none "), HasSubstr(" 1.000  0.00 %")),
                  AllOf(StartsWith("detect "), HasSubstr(" 1.000  0.00 %")),
                  StartsWith("drop "), StartsWith("rebalance "),
                  StartsWith("auto "), StartsWith("oracle ")));
}

TEST(StragglersCommandTest, ThePublishedNoiseGainsWhatItShould) {
  const LabOutcome outcome = RunCommand(
      {"--inject", "lognormal:1.0", "--replicas", "8", "--microbatches", "12",
       "--rest", "90ms", "--steps", "1000", "--seed", "3", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::map<std::string, Json> objects = ByPolicy(outcome);
  const Json& drop = objects.at("drop");

  EXPECT_EQ(drop["schema"], "deltapipe.lab.StragglerResult");
  EXPECT_THAT(drop["speedup"].get<double>(),
              AllOf(Ge(1.06), Le(objects.at("oracle")["speedup"])));
  EXPECT_THAT(drop["drop_share"].get<double>(), Le(0.1));
  EXPECT_NEAR(drop["realised_drop_share"].get<double>(),
              drop["predicted_drop_share"].get<double>(), 0.02);
  EXPECT_THAT(drop["realised_speedup"].get<double>(),
              Ge(0.9 * drop["predicted_speedup"].get<double>()));
  EXPECT_EQ(drop["state"], "dropping");
  EXPECT_TRUE(objects.at("none")["predicted_drop_share"].is_null());
}

TEST(StragglersCommandTest, AutoMovesMicrobatchesOfARecordedSlowReplica) {
  std::vector<float> seconds;
  for (int step = 0; step < 120; ++step) {
    for (int r = 0; r < 8; ++r) {
      for (int m = 0; m < 16; ++m) seconds.push_back(r == 3 ? 1.5F : 1.0F);
    }
  }
  const LabOutcome outcome =
      RunCommand({"--latencies", Recorded("slow", {120, 8, 16}, seconds),
                  "--rest", "2s", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::map<std::string, Json> objects = ByPolicy(outcome);

  EXPECT_EQ(objects.at("auto")["rebalances"], 1);
  EXPECT_EQ(objects.at("auto")["drop_share"], 0);
  EXPECT_EQ(objects.at("auto")["step_seconds_p50"], 19);
  EXPECT_NEAR(objects.at("oracle")["speedup"].get<double>(), 1.368, 0.001);
}

TEST(StragglersCommandTest, ARecordingIsReplayedAsItWasGenerated) {
  const absl::StatusOr<LatencyModel> model =
      LatencyModel::Parse("lognormal:1.0", 7);
  ASSERT_TRUE(model.ok());
  std::vector<float> seconds;
  for (int step = 0; step < 100; ++step) {
    for (int r = 0; r < 3; ++r) {
      for (int m = 0; m < 5; ++m) {
        seconds.push_back(
            static_cast<float>(2 + model->ExtraSeconds(r, step, m, 2)));
      }
    }
  }

  const std::map<std::string, Json> recorded = ByPolicy(RunCommand(
      {"--latencies", Recorded("noise", {100, 3, 5}, seconds), "--json"}));
  const std::map<std::string, Json> generated = ByPolicy(
      RunCommand({"--inject", "lognormal:1.0", "--seed", "7", "--replicas", "3",
                  "--microbatches", "5", "--forward", "1s", "--backward", "1s",
                  "--steps", "100", "--json"}));

  for (const char* policy : {"none", "drop", "oracle"}) {
    EXPECT_NEAR(recorded.at(policy)["step_seconds_p99"].get<double>(),
                generated.at(policy)["step_seconds_p99"].get<double>(), 1e-4);
  }
}

TEST(StragglersCommandTest, APipelineIsSimulatedStageByStage) {
  const std::map<std::string, Json> objects = ByPolicy(
      RunCommand({"--inject", "slow:rank=0,x=1", "--stages", "4", "--replicas",
                  "2", "--microbatches", "16", "--steps", "10", "--json"}));

  // (16 + 4 - 1) forwards and backwards of 45 and 135 ms.
  EXPECT_NEAR(objects.at("none")["step_seconds_p50"].get<double>(), 19 * 0.18,
              1e-9);
}

// Whatever the policy leaves out, it was read.
TEST(StragglersCommandTest, ReadingTakesTimeBeforeTheFirstMicrobatch) {
  for (const char* stages : {"1", "3"}) {
    const std::map<std::string, Json> objects = ByPolicy(RunCommand(
        {"--inject", "input:rank=1,by=50ms", "--stages", stages, "--replicas",
         "2", "--microbatches", "16", "--steps", "10", "--json"}));

    EXPECT_NEAR(objects.at("none")["step_seconds_p50"].get<double>(),
                (16 + std::stoi(stages) - 1) * 0.18 + 16 * 0.05, 1e-9);
  }
}

TEST(StragglersCommandTest, BadInputIsOneSentenceAndExitCodeTwo) {
  const std::string flat = Recorded("flat", {2, 3}, std::vector<float>(6, 1));
  const std::string empty = Recorded("empty", {0, 3, 2}, {});
  const std::string nan = Recorded("nan", {1, 2, 2}, {1, 1, 1, NAN});
  const std::string zero = Recorded("zero", {1, 2, 2}, {1, 0, 1, 1});
  const std::string good = Recorded("good", {1, 2, 2}, {1, 1, 1, 1});
  const struct {
    std::vector<std::string> arguments;
    const char* why;
  } cases[] = {
      {{}, "nothing is slow: give --latencies, --inject or both"},
      {{"--inject", "lognormal:1", "--max-drop", "0"},
       "expected more than 0 and at most 1"},
      {{"--inject", "lognormal:1", "--max-drop", "1.5"},
       "expected more than 0 and at most 1"},
      {{"--inject", "slow:rank=8,x=2"},
       "injected latency names replica 8 of 8"},
      {{"--inject", "gamma:1"}, "unknown kind 'gamma'"},
      {{"--inject", "input:rank=8,by=1ms"},
       "injected latency names replica 8 of 8"},
      {{"--inject", "input:rank=0,by=1"}, "input:rank=0,by=1"},
      {{"--inject", "lognormal:nan"}, "factor is not a number"},
      {{"--inject", "lognormal:1", "--forward", "45"}, "--forward: "},
      {{"--inject", "lognormal:1", "--forward", "0"}, "longer than 0"},
      {{"--inject", "lognormal:1", "--rest", "soon"}, "--rest: "},
      {{"--inject", "lognormal:1", "--replicas", "0"}, "got 0 replicas"},
      {{"--inject", "lognormal:1", "--microbatches", "-1"}, "-1 micro-batches"},
      {{"--inject", "lognormal:1", "--steps", "-5"}, "-5 steps"},
      {{"--inject", "lognormal:1", "--replicas", "10000"}, "too many"},
      {{"--latencies", flat}, "has shape 2x3, expected [steps, replicas, "},
      {{"--latencies", empty}, "none of them 0"},
      {{"--latencies", nan},
       "has nan at step 0, replica 1, micro-batch 1: expected seconds"},
      {{"--latencies", zero}, "has 0 at step 0, replica 0, micro-batch 1"},
      {{"--latencies", good, "--steps", "2"}, "holds 1 steps, 2 were asked"},
      {{"--latencies", good, "--inject", "slow:rank=2,x=2"},
       "names replica 2 of 2"},
      {{"--latencies", "/no/such/file"}, "/no/such/file"},
      {{"--latencies", good, "--replicas", "2"}, "excludes"},
  };
  for (const auto& one : cases) {
    const LabOutcome outcome = RunCommand(one.arguments);
    EXPECT_EQ(outcome.exit_code, 2) << one.why;
    EXPECT_THAT(outcome.err, HasSubstr(one.why));
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_LE(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
  }
}

}  // namespace
}  // namespace deltapipe
