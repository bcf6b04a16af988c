// `deltapipe run` from a spec to a trained model, on this machine.
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <cstring>
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
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::Gt;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Lt;
using testing::Not;
using testing::SizeIs;

TEST(RunTest, ASmallJobSucceedsAndLeavesSpecMetricsAndModel) {
  Workbench bench;

  const Outcome outcome = bench.Run({"run", "job.yaml"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(bench.Read("runs/small/spec.yaml"), HasSubstr("layers: 4"));
  EXPECT_THAT(bench.Read("runs/small/metrics.ndjson"), HasSubstr("\"loss\""));
  const std::string model = bench.Read("runs/small/model.safetensors");
  ASSERT_THAT(model, SizeIs(Gt(8)));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, model.data(), sizeof header_bytes);
  ASSERT_LT(header_bytes, model.size());
  EXPECT_TRUE(nlohmann::json::accept(model.substr(8, header_bytes)));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(RunTest, SpeaksInLinesWhereThereIsNoTerminal) {
  Workbench bench;

  const Outcome outcome = bench.Run(
      {"run", "job.yaml", "--set", "network.emulate.bandwidth=100Mbit/s"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const std::string first_line =
      outcome.output.substr(0, outcome.output.find('\n'));
  EXPECT_THAT(first_line, HasSubstr("emulated links: 100 Mbit/s"));
  EXPECT_THAT(outcome.text, ContainsRegex("step=8/8 loss=[0-9]+[.][0-9]+ "));
  EXPECT_THAT(outcome.text, Not(HasSubstr("\033[")));
}

TEST(RunTest, JsonHasEveryStepAndEndsWithTheResult) {
  Workbench bench;

  const Outcome outcome = bench.Run({"run", "job.yaml", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.Events("step"), SizeIs(8)) << outcome.text;
  const std::vector<nlohmann::json> objects = outcome.Objects();
  ASSERT_THAT(objects, Not(IsEmpty()));
  const nlohmann::json& result = objects.back();
  EXPECT_EQ(result.value("event", ""), "result");
  EXPECT_EQ(result.value("state", ""), "SUCCEEDED");
  for (const char* field :
       {"steps", "train_loss", "validation_loss", "validation_accuracy",
        "tokens_per_second", "wall_seconds", "activation_raw_bytes",
        "activation_wire_bytes", "gradient_raw_bytes", "gradient_wire_bytes",
        "samples_applied"}) {
    ASSERT_TRUE(result.contains(field)) << field << " in " << result;
    EXPECT_GT(result[field].get<double>(), 0) << field;
  }
  EXPECT_TRUE(result.contains("samples_dropped")) << result;
  EXPECT_EQ(result["steps"], 8);
  EXPECT_EQ(result["samples_applied"], 8 * 16);
}

TEST(RunTest, UncompressedTrafficIsWhatTheTensorsWeighAndAFewPercent) {
  Workbench bench;

  const Outcome outcome = bench.Run({"run", "job.yaml", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const nlohmann::json result = outcome.Objects().back();
  const double raw = result["activation_raw_bytes"];
  const double wire = result["activation_wire_bytes"];
  // One boundary, both directions, 8 steps of 16 samples of 32 x 32 floats.
  EXPECT_EQ(raw, 2.0 * 8 * 16 * 32 * 32 * 4);
  EXPECT_THAT(wire / raw, AllOf(Gt(1.0), Lt(1.05)));
}

TEST(RunTest, CompressionShrinksWhatCrossesTheSockets) {
  Workbench bench;

  const Outcome outcome =
      bench.Run({"run", "job.yaml", "--json", "--set", "train.steps=40",
                 "--set", "compression.activations=delta(int(4),first=int(8))",
                 "--set", "compression.activation_gradients=int(8)", "--set",
                 "compression.gradients=auto", "--set",
                 "compression.verdict=tell", "--set",
                 "train.optimizer={kind: onebit_lamb, learning_rate: 8e-3, "
                 "compress_after_step: 10}"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const nlohmann::json result = outcome.Objects().back();
  EXPECT_LT(result["activation_wire_bytes"].get<double>(),
            0.35 * result["activation_raw_bytes"].get<double>());
  EXPECT_LT(result["gradient_wire_bytes"].get<double>(),
            0.45 * result["gradient_raw_bytes"].get<double>());
  EXPECT_LT(outcome.Losses().back(), outcome.Losses().front());
}

TEST(RunTest, EqualSeedsGiveBitwiseEqualLossesAndOtherSeedsDoNot) {
  Workbench bench;
  const std::vector<std::string> command = {
      "run",
      "job.yaml",
      "--json",
      "--set",
      "compression.activations=delta(int(4),first=int(8))",
      "--set",
      "compression.activation_gradients=int(8,round=stochastic)"};
  std::vector<std::string> other_seed = command;
  other_seed.insert(other_seed.end(), {"--set", "seed=4"});

  const Outcome first = bench.Run(command);
  const Outcome second = bench.Run(command);
  const Outcome other = bench.Run(other_seed);

  ASSERT_EQ(first.exit_code, 0) << first.text;
  ASSERT_THAT(first.Losses(), SizeIs(8));
  EXPECT_EQ(first.Losses(), second.Losses());
  EXPECT_NE(first.Losses(), other.Losses());
  const nlohmann::json results[] = {first.Objects().back(),
                                    second.Objects().back()};
  EXPECT_EQ(results[0]["validation_loss"], results[1]["validation_loss"]);
}

TEST(RunTest, RecordsOnDiskChangeNoLoss) {
  Workbench bench;
  const std::vector<std::string> run = {
      "run", "job.yaml", "--json", "--set",
      "compression.activations=delta(int(4),first=int(8))"};
  std::vector<std::string> on_disk = run;
  on_disk.insert(on_disk.end(), {"--set", "compression.state_on=disk"});

  const Outcome first = bench.Run(run);
  const Outcome second = bench.Run(on_disk);

  ASSERT_EQ(first.exit_code, 0) << first.text;
  ASSERT_EQ(second.exit_code, 0) << second.text;
  EXPECT_EQ(first.Losses(), second.Losses());
}

TEST(RunTest, SharedOutStateChangesNoLoss) {
  Workbench bench;
  const std::vector<std::string> run = {"run", "job.yaml", "--json", "--set",
                                        "train.clip_norm=0"};
  std::vector<std::string> shared = run;
  shared.insert(shared.end(),
                {"--set", "train.optimizer.shard_state=on", "--set",
                 "train.optimizer.groups=[{match: '*.bias', "
                 "learning_rate_scale: 1}]"});

  const Outcome whole = bench.Run(run);
  const Outcome sharded = bench.Run(shared);

  ASSERT_EQ(whole.exit_code, 0) << whole.text;
  ASSERT_EQ(sharded.exit_code, 0) << sharded.text;
  EXPECT_THAT(whole.Losses(), SizeIs(8));
  EXPECT_EQ(sharded.Losses(), whole.Losses());
}

// The last losses of fp32, bf16 and fp16 differ by rounding.
TEST(RunTest, SixteenBitsTrainInAPipeline) {
  Workbench bench;
  std::vector<double> last;
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    const Outcome outcome =
        bench.Run({"run", "job.yaml", "--json", "--set",
                   std::string("train.precision=") + precision});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
    const std::vector<double> losses = outcome.Losses();
    ASSERT_THAT(losses, SizeIs(8));
    EXPECT_LT(losses.back(), losses.front());
    last.push_back(losses.back());
  }

  EXPECT_NE(last[1], last[0]);
  EXPECT_NEAR(last[1], last[0], 0.02 * last[0]);
  EXPECT_NE(last[2], last[0]);
  EXPECT_NEAR(last[2], last[0], 0.01 * last[0]);
}

TEST(RunTest, SavedActivationsAreKeptAsTheSpecSays) {
  Workbench bench;
  const auto run = [&](const std::string& policy) {
    return bench.Run({"run", "job.yaml", "--json", "--set",
                      "compression.saved_activations=" + policy, "--set",
                      "train.optimizer.kind=adamw", "--set",
                      "compression.saved_probe_every=4", "--set",
                      "compression.gradients=none"});
  };

  const Outcome plain = run("none");
  const Outcome packed = run("fixed(int(8))");
  const Outcome recomputed = run("recompute(every=1)");

  for (const Outcome* outcome : {&plain, &packed, &recomputed}) {
    ASSERT_EQ(outcome->exit_code, 0) << outcome->text;
    ASSERT_THAT(outcome->Losses(), SizeIs(8));
  }
  // The forward pass is not touched.
  EXPECT_EQ(packed.Losses()[0], plain.Losses()[0]);
  EXPECT_NEAR(packed.Losses()[7], plain.Losses()[7], 0.01);
  EXPECT_EQ(recomputed.Losses(), plain.Losses());
  const nlohmann::json result = packed.Objects().back();
  EXPECT_LT(result["saved_stored_bytes"],
            0.5 * result["saved_raw_bytes"].get<double>());
  EXPECT_EQ(plain.Objects().back()["saved_raw_bytes"], 0);
}

TEST(RunTest, APolicyThatIsNoneIsNamedBeforeAnythingStarts) {
  Workbench bench;

  const Outcome outcome =
      bench.Run({"run", "job.yaml", "--set",
                 "compression.saved_activations=actn(bits=2)"});

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.text, HasSubstr("did you mean 'actnn'"));
}

TEST(RunTest, AGroupOfNoParameterIsNamed) {
  Workbench bench;

  const Outcome outcome =
      bench.Run({"run", "job.yaml", "--set",
                 "train.optimizer.groups=[{match: '*.gain'}]"});

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.text,
              HasSubstr("train.optimizer.groups[0].match: '*.gain' matches no "
                        "parameter of the model"));
}

TEST(RunTest, ASecondRunOfTheSameNameKeepsTheFirst) {
  Workbench bench;
  ASSERT_EQ(bench.Run({"run", "job.yaml"}).exit_code, 0);
  const std::string first = bench.Read("runs/small/model.safetensors");

  const Outcome outcome = bench.Run({"run", "job.yaml", "--set", "seed=9"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_EQ(bench.Read("runs/small/model.safetensors"), first);
}

TEST(RunTest, TheModelWritesText) {
  Workbench bench;
  ASSERT_EQ(bench.Run({"run", "job.yaml"}).exit_code, 0);

  const Outcome outcome =
      bench.Run({"sample", "small", "--prompt", "The river ", "--bytes", "30"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.output, HasSubstr("The river "));
  EXPECT_THAT(outcome.output, SizeIs(Gt(30)));

  const Outcome json = bench.Run(
      {"sample", "small", "--prompt", "The river ", "--bytes", "30", "--json"});

  EXPECT_EQ(json.exit_code, 0) << json.text;
  const std::vector<nlohmann::json> objects = json.Objects();
  ASSERT_THAT(objects, SizeIs(1)) << json.text;
  EXPECT_EQ(objects[0].value("schema", ""), "deltapipe.cli.Sample");
  EXPECT_EQ(objects[0].value("prompt", ""), "The river ");
  EXPECT_THAT(objects[0].value("run_folder", ""), HasSubstr("runs/small"));
  EXPECT_THAT(objects[0].value("text", ""), HasSubstr("The river "));
}

TEST(RunTest, SamplingFromNothingNamesWhatThereIs) {
  Workbench bench;

  const Outcome outcome = bench.Run({"sample", "nobody", "--prompt", "x"});

  EXPECT_EQ(outcome.exit_code, 3) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("nobody"));
}

// 16,384 elements a sample and 200,000 parameters a stage, so that headers and
// tables weigh little beside what they describe.
constexpr char kSynthetic[] = R"yaml(name: synthetic
model:
  kind: synthetic
  layers: 2
  context: 64
  width: 256
  synthetic:
    {forward_time: 1ms, backward_time: 1ms, drift: 0.1, samples: 16, parameters_per_stage: 200000}
train:
  steps: 8
  batch: 16
  microbatch: 1
  optimizer: {kind: onebit_lamb, learning_rate: 0, compress_after_step: 3}
parallel: {stages: 2, replicas: 2, device: cpu}
compression: {activations: "delta(int(4),first=int(8))", activation_gradients: "int(8)"}
)yaml";

TEST(RunTest, CompressedTrafficIsWhatTheCodecsSayAndThreePercent) {
  Workbench bench;
  bench.Write("synthetic.yaml", kSynthetic);

  const Outcome outcome = bench.Run({"run", "synthetic.yaml", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const std::vector<nlohmann::json> steps = outcome.Events("step");
  ASSERT_THAT(steps, SizeIs(8)) << outcome.text;
  // From here on every sample has come before and gradients are compressed.
  const nlohmann::json& early = steps[3];
  const nlohmann::json& late = steps[7];
  EXPECT_TRUE(late["compressed"].get<bool>());
  const auto growth = [&](const char* field) {
    return (late[field].get<double>() - early[field].get<double>()) / 4;
  };
  const double elements = 16.0 * 64 * 256;
  EXPECT_EQ(growth("activation_raw_bytes"), 2 * elements * 4);
  // 4 bits forward and 8 backward, and a scale of 8 bits for each 64 of them.
  const double activation_bits = 8 * growth("activation_wire_bytes") / elements;
  EXPECT_THAT(activation_bits, AllOf(Gt(12.25), Lt(1.03 * 12.25)));
  const double parameters = 2 * 200000;
  const double gradient_bits =
      8 * growth("gradient_wire_bytes") / (2 * parameters);
  EXPECT_THAT(gradient_bits, AllOf(Gt(1.0), Lt(2.1)));
}

TEST(RunTest, WhetherCompressionHelpsIsMeasuredAndSaid) {
  Workbench bench;
  bench.Write("synthetic.yaml", kSynthetic);

  const Outcome outcome =
      bench.Run({"run", "synthetic.yaml", "--set", "train.steps=40", "--set",
                 "network.emulate.bandwidth=20Mbit/s"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  // 200,000 parameters: 10 ms in a bit, 160 ms in bf16.
  EXPECT_THAT(outcome.text, HasSubstr("compression helps: gradients take 10"));
  EXPECT_THAT(outcome.text, HasSubstr("at 20 Mbit/s"));
}

TEST(RunTest, PlanSaysWhatWouldRunWithoutRunningIt) {
  Workbench bench;

  const Outcome outcome = bench.Run({"plan", "job.yaml", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.output, HasSubstr("predicted_step_seconds"));
  EXPECT_FALSE(bench.Has("runs/small"));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(RunTest, CompareRunsTheThreeArms) {
  Workbench bench;

  const Outcome outcome = bench.Run(
      {"compare", "job.yaml", "--set", "network.emulate.bandwidth=100Mbit/s",
       "--set", "compression.activations=delta(int(4),first=int(8))"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.output, HasSubstr("uncompressed"));
  EXPECT_THAT(outcome.output, HasSubstr("bf16"));
  EXPECT_THAT(outcome.output, HasSubstr("\ncompressed"));
}

TEST(RunTest, CompareMeasuresTimeBytesAndLossOfEachArm) {
  Workbench bench;

  const Outcome outcome =
      bench.Run({"compare", "job.yaml", "--json", "--set",
                 "compression.activations=delta(int(4),first=int(8))"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  std::vector<std::string> names;
  for (const nlohmann::json& arm : outcome.Events("arm")) {
    names.push_back(arm.value("arm", ""));
    for (const char* field :
         {"steps", "seconds_per_step", "activation_bytes_per_step",
          "gradient_bytes_per_step", "loss"}) {
      EXPECT_GT(arm.value(field, 0.0), 0) << field << " in " << arm;
    }
  }
  EXPECT_THAT(names, ElementsAre("uncompressed", "bf16", "compressed"));
  const std::vector<nlohmann::json> results = outcome.Events("result");
  ASSERT_THAT(results, SizeIs(1));
  EXPECT_THAT(results[0]["arms"], SizeIs(3));
}

TEST(RunTest, DrawsABarOnATerminalAndClosesWithTheTable) {
  Workbench bench;
  auto run =
      bench.StartOnTerminal({bench.program("deltapipe"), "run", "job.yaml"});

  const Outcome outcome = bench.Finish(run.get(), seconds(60));

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const std::string erase_line = "\r\033[K";
  const size_t bar = outcome.output.find(erase_line + "small  [");
  const size_t full_bar = outcome.output.find("] 8/8");
  const size_t table = outcome.output.find("state            SUCCEEDED");
  EXPECT_LT(bar, full_bar) << outcome.text;
  EXPECT_LT(full_bar, table) << outcome.text;
  EXPECT_NE(table, std::string::npos) << outcome.text;
  EXPECT_THAT(outcome.output, Not(HasSubstr("step=")));
}

TEST(RunTest, AFullDiskIsNamedWithTheFileAndTheRemedy) {
  Workbench bench;
  // A limit on file sizes fails the write of the model half-way, as a full disk
  // does: of 6 MB, where the weights take 13 and all else less than 5.
  auto run = bench.StartProgram(
      {"/bin/sh", "-c", "trap '' XFSZ; ulimit -f 12000; exec \"$@\"", "sh",
       bench.program("deltapipe"), "run", "job.yaml", "--set",
       "model.width=256", "--set", "train.steps=2"});

  const Outcome outcome = bench.Finish(run.get(), seconds(60));

  EXPECT_EQ(outcome.exit_code, 1) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("model.safetensors: File too large"));
  EXPECT_THAT(outcome.errors, HasSubstr("ulimit -f"));
  EXPECT_FALSE(bench.Has("runs/small/model.safetensors"));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(RunTest, VersionAndHelpStartInWellUnderASecond) {
  Workbench bench;

  auto process = bench.Start({"version"});
  const Outcome outcome = bench.Finish(process.get(), seconds(1));

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.output, ContainsRegex("[0-9]+[.][0-9]+"));
  EXPECT_EQ(bench.Run({"--help"}).exit_code, 0);
}

}  // namespace
}  // namespace deltapipe
