// deltapipe-lab optimizer, from command line and files to files and output.
#include "worker/lab/optimizer_experiment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "base/tensor_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/lab/testing_lab.h"
#include "worker/optim/testing/onebit_lamb_transcription.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr uint32_t kSeed = 508;
constexpr int64_t kSteps = 12;

class OptimizerExperimentTest : public ::testing::Test {
 protected:
  OptimizerExperimentTest() { RecordProperty("seed", int{kSeed}); }

  static std::vector<float> Normal(std::mt19937* random, int64_t count,
                                   float size) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = size * normal(*random);
    return values;
  }

  /// "bias" of 17, "weight" of rows x 11, and gradients for them.
  void WriteFiles(int num_ranks, int64_t num_steps = kSteps,
                  int64_t rows = 23) {
    std::mt19937 random(kSeed);
    const std::map<std::string, Shape> shapes = {{"weight", {rows, 11}},
                                                 {"bias", {17}}};
    for (const auto& [name, shape] : shapes) {
      shapes_[name] = shape;
      parameters_[name] = Normal(&random, NumElements(shape), 1);
      Shape all = {num_steps, num_ranks};
      all.insert(all.end(), shape.begin(), shape.end());
      gradient_shapes_[name] = all;
      gradients_[name] = Normal(&random, NumElements(all), 0.1f);
      // Not zero in the mean, so that momenta build up.
      for (float& value : gradients_[name]) value += 0.05f;
    }
    Write();
  }
  void Write() {
    SafetensorsWriter weights, gradients;
    for (auto& [name, values] : parameters_) {
      weights.Add(name,
                  TensorView(DType::kFloat32, shapes_[name], values.data()));
    }
    for (auto& [name, values] : gradients_) {
      gradients.Add(name, TensorView(DType::kFloat32, gradient_shapes_[name],
                                     values.data()));
    }
    ASSERT_TRUE(weights.WriteTo(LabPath("w.safetensors"), {}).ok());
    ASSERT_TRUE(gradients.WriteTo(LabPath("g.safetensors"), {}).ok());
  }

  LabOutcome Run(const std::string& algorithm, int num_ranks,
                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"optimizer",
                                      "--algorithm",
                                      algorithm,
                                      "--ranks",
                                      absl::StrCat(num_ranks),
                                      "--gradients",
                                      LabPath("g.safetensors"),
                                      "--parameters",
                                      LabPath("w.safetensors"),
                                      "--out",
                                      LabPath("out.safetensors"),
                                      "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return RunLabProgram(words);
  }

  std::vector<float> ReadOutput(const std::string& tensor) const {
    auto file = SafetensorsFile::Read(LabPath("out.safetensors"));
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return {};
    auto values = file->FloatValues(tensor);
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? *values : std::vector<float>();
  }

  /// The mean gradient of element i of a tensor.
  double MeanGradient(const std::string& name, int64_t step, int num_ranks,
                      size_t i) const {
    const size_t size = parameters_.at(name).size();
    double sum = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const size_t at =
          (static_cast<size_t>(step) * num_ranks + static_cast<size_t>(rank)) *
              size +
          i;
      sum += double{gradients_.at(name)[at]};
    }
    return sum / num_ranks;
  }

  std::map<std::string, Shape> shapes_, gradient_shapes_;
  std::map<std::string, std::vector<float>> parameters_, gradients_;
};

// One element's weight after all steps, for its mean gradients.
using Loop = std::function<double(double weight, double decay,
                                  const std::vector<double>& gradients)>;

double SgdLoop(double w, double decay, const std::vector<double>& gradients) {
  double m = 0;
  for (const double gradient : gradients) {
    m = 0.5 * m + gradient + decay * w;
    w -= 0.01 * m;
  }
  return w;
}

double AdamLoop(double w, double decay, bool is_decoupled,
                const std::vector<double>& gradients) {
  double m = 0, v = 0, t = 0;
  for (const double gradient : gradients) {
    const double g = gradient + (is_decoupled ? 0 : decay * w);
    ++t;
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const double step = m / (1 - std::pow(0.9, t)) /
                        (std::sqrt(v / (1 - std::pow(0.999, t))) + 1e-8);
    w -= 0.01 * (step + (is_decoupled ? decay * w : 0));
  }
  return w;
}

TEST_F(OptimizerExperimentTest, PlainAlgorithmsEqualAStraightforwardLoop) {
  WriteFiles(3);
  const std::map<std::string, Loop> loops = {
      {"sgd", SgdLoop},
      {"adam",
       [](double w, double decay, const std::vector<double>& gradients) {
         return AdamLoop(w, decay, false, gradients);
       }},
      {"adamw",
       [](double w, double decay, const std::vector<double>& gradients) {
         return AdamLoop(w, decay, true, gradients);
       }},
  };
  for (const auto& [algorithm, loop] : loops) {
    const LabOutcome outcome =
        Run(algorithm, 3,
            {"--set", "learning_rate=0.01", "--set", "momentum=0.5", "--set",
             "weight_decay=0.02"});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    for (const auto& [name, start] : parameters_) {
      const double decay = name == "weight" ? 0.02 : 0;
      const std::vector<float> got = ReadOutput(name);
      ASSERT_EQ(got.size(), start.size());
      for (size_t i = 0; i < got.size(); ++i) {
        std::vector<double> gradients;
        for (int64_t step = 0; step < kSteps; ++step) {
          gradients.push_back(MeanGradient(name, step, 3, i));
        }
        ASSERT_NEAR(got[i], loop(start[i], decay, gradients), 2e-6)
            << algorithm << " " << name << " " << i;
      }
    }
    EXPECT_EQ(outcome.json()["compressed_steps"], 0);
    EXPECT_EQ(outcome.json()["relative_distance"], 0);
  }
}

TEST_F(OptimizerExperimentTest, GroupsHoldForTheTensorsTheyMatch) {
  WriteFiles(2);
  for (const char* algorithm : {"adamw", "onebit_lamb", "zero_one_adam"}) {
    const std::vector<std::string> groups = {"--set", "groups[0].match=b*",
                                             "--set",
                                             "groups[0].learning_rate_scale=0"};

    ASSERT_EQ(Run(algorithm, 2).exit_code, 0);
    const std::vector<float> weight = ReadOutput("weight");
    const LabOutcome outcome = Run(algorithm, 2, groups);

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(ReadOutput("bias"), parameters_["bias"]) << algorithm;
    EXPECT_EQ(ReadOutput("weight"), weight) << algorithm;
  }
}

TEST_F(OptimizerExperimentTest, OneBitLambEqualsItsTranscription) {
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    WriteFiles(num_ranks);
    OptimizerOptions options;
    options.weight_decay = 0.01;
    options.compress_after_step = 5;
    options.max_coefficient = 0.5;
    ParameterLayout layout;
    std::vector<double> start;
    for (const auto& [name, values] : parameters_) {  // "bias", "weight"
      ParameterSegment segment;
      segment.name = name;
      segment.offset = layout.num_elements;
      segment.num_elements = static_cast<int64_t>(values.size());
      segment.has_weight_decay = name == "weight";
      layout.num_elements += segment.num_elements;
      layout.segments.push_back(segment);
      start.insert(start.end(), values.begin(), values.end());
    }
    OneBitLambTranscription oracle(options, layout, num_ranks, start);
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<std::vector<double>> gradients;
      for (int rank = 0; rank < num_ranks; ++rank) {
        gradients.emplace_back();
        for (const auto& [name, values] : parameters_) {
          const auto from =
              gradients_[name].begin() +
              (step * num_ranks + rank) * static_cast<int64_t>(values.size());
          gradients.back().insert(gradients.back().end(), from,
                                  from + static_cast<int64_t>(values.size()));
        }
      }
      oracle.Step(gradients, 0.01, 0.25);
    }

    const LabOutcome outcome =
        Run("onebit_lamb", num_ranks,
            {"--set", "learning_rate=0.01", "compress_after_step=5", "--set",
             "max_coefficient=0.5", "--clip-norm", "0.25"});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    std::vector<float> got = ReadOutput("bias");
    const std::vector<float> weight = ReadOutput("weight");
    got.insert(got.end(), weight.begin(), weight.end());
    const std::vector<double> expected = oracle.Weights();
    double difference = 0, squares = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      difference += std::pow(double{got[i]} - expected[i], 2);
      squares += expected[i] * expected[i];
    }
    EXPECT_LE(std::sqrt(difference / squares), 1e-5) << num_ranks << " ranks";
    EXPECT_EQ(outcome.json()["compressed_steps"], kSteps - 5);
  }
}

TEST_F(OptimizerExperimentTest, CompressingKindsReportBytesResidualsDistance) {
  WriteFiles(4, kSteps, /*rows=*/1000);
  for (const char* algorithm :
       {"onebit_adam", "onebit_lamb", "zero_one_adam"}) {
    const LabOutcome outcome =
        Run(algorithm, 4, {"--set", "compress_after_step=25%"});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, IsEmpty());
    const Json json = outcome.json();
    EXPECT_EQ(json["schema"], "deltapipe.lab.OptimizerResult");
    EXPECT_EQ(json["parameters"], 11017);
    EXPECT_EQ(json["steps"], kSteps);
    EXPECT_EQ(json["compressed_steps"], 9);
    EXPECT_EQ(json["steps_in_output"], kSteps);
    // Two bits but for the own shard, and scales.
    EXPECT_GT(json["bits_per_parameter"].get<double>(), 1.45);
    EXPECT_LE(json["bits_per_parameter"].get<double>(), 2.05);
    EXPECT_GT(json["relative_distance"].get<double>(), 0);
    EXPECT_LT(json["relative_distance"].get<double>(), 0.1);
    ASSERT_EQ(json["ranks"].size(), 4);
    for (const Json& rank : json["ranks"]) {
      EXPECT_GT(rank["worker_residual_norm"].get<double>(), 0);
      EXPECT_GT(rank["server_residual_norm"].get<double>(), 0);
      EXPECT_GT(rank["sent_bytes"].get<int64_t>(),
                rank["compressed_sent_bytes"].get<int64_t>());
    }
  }
}

TEST_F(OptimizerExperimentTest, IdentityHasNeitherResidualNorDistance) {
  WriteFiles(2);

  const LabOutcome outcome =
      Run("onebit_adam", 2,
          {"--set", "compress_after_step=4", "--codec", "identity"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["relative_distance"], 0);
  EXPECT_EQ(outcome.json()["ranks"][0]["worker_residual_norm"], 0);
  EXPECT_EQ(outcome.json()["compressed_steps"], kSteps - 4);
}

TEST_F(OptimizerExperimentTest, NodesSendLessThanTheirRanksWould) {
  WriteFiles(4, kSteps, /*rows=*/1000);
  std::map<int, int64_t> egress;
  std::map<int, double> per_parameter;
  for (const int num_nodes : {1, 2, 4}) {
    const LabOutcome outcome = Run(
        "onebit_adam", 4,
        {"--set", "compress_after_step=2", "--nodes", absl::StrCat(num_nodes)});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json json = outcome.json();
    ASSERT_EQ(json["nodes"].size(), num_nodes);
    EXPECT_EQ(json["ranks"][3]["node"], num_nodes - 1);
    for (const Json& node : json["nodes"]) {
      egress[num_nodes] += node["egress_bytes"].get<int64_t>();
    }
    per_parameter[num_nodes] = json["node_bytes_per_parameter"].get<double>();
  }

  EXPECT_EQ(per_parameter[1], 0);
  EXPECT_GT(per_parameter[2], 0.12);
  EXPECT_LE(per_parameter[2], 0.26);
  EXPECT_EQ(egress[1], 0);
  EXPECT_GT(egress[2], 0);
  // Two nodes exchange what two ranks would; four ranks on their own more.
  EXPECT_LT(egress[2], 0.5 * static_cast<double>(egress[4]));
}

TEST_F(OptimizerExperimentTest, InsideNodesGradientsMayBeSummedInHalves) {
  WriteFiles(4, kSteps, /*rows=*/1000);
  std::vector<int64_t> sent;
  std::vector<int64_t> egress;
  for (const char* codec : {"none", "cast(bf16)"}) {
    const LabOutcome outcome = Run("onebit_adam", 4,
                                   {"--set", "compress_after_step=2", "--nodes",
                                    "2", "--node-codec", codec});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    sent.push_back(outcome.json()["ranks"][0]["sent_bytes"].get<int64_t>());
    egress.push_back(outcome.json()["nodes"][0]["egress_bytes"].get<int64_t>());
  }

  EXPECT_EQ(egress[1], egress[0]);
  EXPECT_LT(sent[1], sent[0]);
}

TEST_F(OptimizerExperimentTest, RowsWithoutGradientsStayAndWakeWithOne) {
  WriteFiles(4);
  // Rows 0 to 16 of 23 have no gradient; but row 2 one, on rank 3 in step 8.
  std::vector<float>& gradients = gradients_["weight"];
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int rank = 0; rank < 4; ++rank) {
      const auto begin = gradients.begin() + (step * 4 + rank) * 23 * 11;
      std::fill(begin, begin + 17 * 11, 0.0f);
      if (step == 8 && rank == 3) std::fill_n(begin + 2 * 11, 11, 0.25f);
    }
  }
  Write();
  for (const char* algorithm :
       {"onebit_adam", "onebit_lamb", "zero_one_adam"}) {
    for (const char* nodes : {"2", "4"}) {
      const LabOutcome outcome = Run(algorithm, 4,
                                     {"--set", "compress_after_step=5",
                                      "weight_decay=0", "--nodes", nodes});

      ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
      const std::vector<float> weights = ReadOutput("weight");
      for (size_t i = 0; i < 23 * 11; ++i) {
        const bool rests = i < 17 * 11 && i / 11 != 2;
        ASSERT_EQ(weights[i] == parameters_["weight"][i], rests)
            << algorithm << ", " << nodes << " nodes, element " << i;
      }
    }
  }
}

TEST_F(OptimizerExperimentTest, LocalStepsSendNothing) {
  WriteFiles(2);

  const LabOutcome outcome =
      Run("zero_one_adam", 2,
          {"--set", "compress_after_step=3", "--set", "local_step_scaler=1",
           "--set", "local_step_clipper=4"});

  // Synchronisation points after steps 4, 8 and the last.
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["compressed_steps"], 3);
  EXPECT_EQ(outcome.json()["local_steps"], 6);
  EXPECT_EQ(outcome.json()["steps_in_output"], kSteps);
}

TEST_F(OptimizerExperimentTest, AStepThatIsNotFiniteIsSkippedOnAllRanks) {
  WriteFiles(2);
  for (const char* algorithm : {"adamw", "onebit_lamb", "zero_one_adam"}) {
    const std::vector<float> intact = gradients_["bias"];
    // Rank 1 in step 7, in a local step of 0/1 Adam.
    gradients_["bias"][(7 * 2 + 1) * 17 + 3] =
        std::numeric_limits<float>::infinity();
    Write();

    const LabOutcome outcome =
        Run(algorithm, 2,
            {"--set", "compress_after_step=2", "--set", "local_step_scaler=1"});

    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.json()["skipped_steps"], 1) << algorithm;
    for (const float weight : ReadOutput("bias")) {
      EXPECT_TRUE(std::isfinite(weight)) << algorithm;
    }
    gradients_["bias"] = intact;
  }
}

// Synchronisation points after steps 4, 8 and, but for the infinity, 12.
TEST_F(OptimizerExperimentTest, ASkippedLastStepLeavesTheLastCommonWeights) {
  const std::vector<std::string> settings = {"--set", "compress_after_step=3",
                                             "local_step_scaler=1",
                                             "local_step_clipper=4"};
  WriteFiles(2);
  gradients_["bias"][(11 * 2 + 1) * 17] =
      std::numeric_limits<float>::infinity();
  Write();
  const LabOutcome outcome = Run("zero_one_adam", 2, settings);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["skipped_steps"], 1);
  EXPECT_EQ(outcome.json()["steps_in_output"], 8);
  const std::vector<float> weights = ReadOutput("bias");

  for (auto& [name, shape] : gradient_shapes_) {
    shape[0] = 8;
    gradients_[name].resize(static_cast<size_t>(NumElements(shape)));
  }
  Write();
  ASSERT_EQ(Run("zero_one_adam", 2, settings).exit_code, 0);

  EXPECT_EQ(weights, ReadOutput("bias"));
}

TEST_F(OptimizerExperimentTest, AutoSaysWhatDecided) {
  WriteFiles(2, /*num_steps=*/60);

  const LabOutcome outcome = Run("onebit_adam", 2,
                                 {"--set", "compress_after_step=auto", "--set",
                                  "beta2=0.9", "--set", "learning_rate=1e-4"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  ASSERT_EQ(outcome.json()["decisions"].size(), 1) << outcome.out;
  EXPECT_THAT(outcome.json()["decisions"][0].get<std::string>(),
              HasSubstr("compression goes on after step"));
  EXPECT_GT(outcome.json()["compressed_steps"], 0);
}

TEST_F(OptimizerExperimentTest, TextNamesRunRanksAndNodes) {
  WriteFiles(2);
  OptimizerExperiment experiment;
  experiment.algorithm = "onebit_adam";
  experiment.ranks = 2;
  experiment.settings = {"compress_after_step=4"};
  experiment.parameters_path = LabPath("w.safetensors");
  experiment.gradients_path = LabPath("g.safetensors");
  experiment.output_path = LabPath("out.safetensors");

  const auto result = RunOptimizerExperiment(experiment);

  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(OptimizerResultText(experiment, *result),
              AllOf(HasSubstr("algorithm=onebit_adam codec=sign(block=0) "
                              "ranks=2 nodes=2 parameters=270 steps=12 "
                              "compressed_steps=8"),
                    HasSubstr("rank=1 node=1 sent_bytes="),
                    HasSubstr("node=1 egress_bytes=")));
}

TEST_F(OptimizerExperimentTest, MistakesAreOneSentenceAndExitCode2) {
  WriteFiles(2);
  const auto expect = [&](const LabOutcome& outcome, const auto& matcher) {
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, matcher);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
  };

  expect(Run("onebit_lam", 2), HasSubstr("did you mean 'onebit_lamb'?"));
  expect(Run("adamw", 3),
         HasSubstr("tensor bias: expected shape stepsx3x17 (steps x 3 ranks x "
                   "the parameter's shape), got 12x2x17"));
  expect(Run("adamw", 0), HasSubstr("--ranks: expected at least 1, got 0"));
  expect(Run("adamw", 2, {"--nodes", "3"}),
         HasSubstr("--nodes: expected a number that divides the 2 ranks"));
  expect(Run("adamw", 2, {"--nodes", "4"}), HasSubstr("got 4"));
  expect(Run("adamw", 2, {"--nodes", "0"}), HasSubstr("--nodes"));
  expect(Run("adamw", 2, {"--node-codec", "int(8)"}),
         HasSubstr("--node-codec: expected none or cast(bf16)"));
  expect(Run("adamw", 2, {"--node-codec", "cast(bf16)"}),
         HasSubstr("on each of two or more nodes, got 0"));
  expect(Run("adamw", 2, {"--set", "beta1=2"}), HasSubstr("field beta1"));
  expect(Run("adamw", 2, {"--set", "betta1=0"}),
         HasSubstr("did you mean 'beta1'?"));
  expect(Run("adamw", 2, {"--set", "beta1"}),
         HasSubstr("expected field=value, got \"beta1\""));
  expect(Run("adamw", 2, {"--set", "kind=sgd"}), HasSubstr("--algorithm"));
  expect(Run("onebit_adam", 2, {"--set", "compress_after_step=13"}),
         HasSubstr("field compress_after_step: 13 lies beyond the run of 12 "
                   "steps"));
  expect(Run("adamw", 2, {"--set", "groups[0].match=*.bias"}),
         HasSubstr("groups[0]: '*.bias' matches no parameter of the model, "
                   "which has parameters such as bias, weight"));
  expect(Run("adamw", 2, {"--clip-norm", "-1"}), HasSubstr("--clip-norm"));
  expect(Run("onebit_adam", 2, {"--codec", "sing"}), HasSubstr("sing"));
}

TEST_F(OptimizerExperimentTest, FilesThatDoNotFitAreNamed) {
  WriteFiles(2);
  const auto error = [&] {
    Write();
    const LabOutcome outcome = Run("adamw", 2);
    EXPECT_EQ(outcome.exit_code, 2);
    return outcome.err;
  };

  const auto intact = gradients_;
  gradients_.erase("bias");
  EXPECT_THAT(error(), HasSubstr("tensor bias is missing"));

  gradients_ = intact;
  gradients_["extra"] = {1.0f};
  gradient_shapes_["extra"] = {1};
  EXPECT_THAT(error(), HasSubstr("tensor extra is not among the parameters"));

  gradients_ = intact;
  gradient_shapes_["weight"] = {kSteps, 2, 11, 23};
  EXPECT_THAT(error(), HasSubstr("tensor weight: expected shape 12x2x23x11 "
                                 "(steps x 2 ranks x the parameter's shape), "
                                 "got 12x2x11x23"));

  gradient_shapes_["weight"] = {0, 2, 23, 11};
  gradient_shapes_["bias"] = {0, 2, 17};
  EXPECT_THAT(error(), HasSubstr("expected at least 1 step, got 0"));
}

TEST_F(OptimizerExperimentTest, OtherTypesAreNamed) {
  WriteFiles(2);
  HostTensor half(DType::kFloat16, {17});
  SafetensorsWriter writer;
  writer.Add("bias", half.view());
  ASSERT_TRUE(writer.WriteTo(LabPath("w.safetensors"), {}).ok());

  EXPECT_THAT(Run("adamw", 2).err,
              HasSubstr("tensor bias: expected dtype F32, got F16"));
}

}  // namespace
}  // namespace deltapipe
