// However a model is cut and copied, it trains as one: the losses of every
// partition agree with those of one worker. fp32, no compression.
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using testing::SizeIs;

struct Rule {
  const char* optimizer;  // in the spec's YAML
  double tolerance;       // relative
};

const std::map<std::string, Rule>& Rules() {
  static const auto* rules = new std::map<std::string, Rule>{
      {"sgd", {"{kind: sgd, learning_rate: 0.1, momentum: 0.9}", 1e-5}},
      {"adamw", {"{kind: adamw, learning_rate: 3e-3}", 1e-4}},
  };
  return *rules;
}

/// Whose head is a matrix of its own, or that of the embedding.
enum class Head { kOwn, kTied };

Outcome Train(Workbench* bench, const std::string& optimizer, Head head,
              int stages, int replicas) {
  return bench->Run(
      {"run", "job.yaml", "--json", "--set", "train.steps=20", "--set",
       std::string("train.optimizer=") + Rules().at(optimizer).optimizer,
       "--set", head == Head::kTied ? "model.tied=on" : "model.tied=off",
       "--set", "parallel.stages=" + std::to_string(stages), "--set",
       "parallel.replicas=" + std::to_string(replicas)});
}

/// The losses of one worker, trained once for each optimizer and head.
const std::vector<double>& WholeLosses(const std::string& optimizer,
                                       Head head) {
  static auto* known =
      new std::map<std::pair<std::string, Head>, std::vector<double>>;
  auto found = known->find({optimizer, head});
  if (found == known->end()) {
    Workbench bench;
    const Outcome whole = Train(&bench, optimizer, head, 1, 1);
    EXPECT_EQ(whole.exit_code, 0) << whole.text;
    found = known->emplace(std::pair(optimizer, head), whole.Losses()).first;
  }
  return found->second;
}

void ExpectNear(const std::vector<double>& losses,
                const std::vector<double>& whole, double tolerance) {
  ASSERT_THAT(losses, SizeIs(20));
  ASSERT_THAT(whole, SizeIs(20));
  for (size_t step = 0; step < losses.size(); ++step) {
    EXPECT_NEAR(losses[step], whole[step], tolerance * std::abs(whole[step]))
        << "step " << step + 1;
  }
  EXPECT_LT(losses.back(), 0.98 * losses.front()) << "nothing was learnt";
}

using Shape = std::tuple<const char*, int, int>;  // optimizer, stages, replicas

std::string NameOf(const testing::TestParamInfo<Shape>& info) {
  return std::string(std::get<0>(info.param)) + "_" +
         std::to_string(std::get<1>(info.param)) + "Stages" +
         std::to_string(std::get<2>(info.param)) + "Replicas";
}

class SplitEqualsWholeTest : public testing::TestWithParam<Shape> {};

TEST_P(SplitEqualsWholeTest, LossesAgreeOverTwentySteps) {
  const auto [optimizer, stages, replicas] = GetParam();
  Workbench bench;

  const Outcome split = Train(&bench, optimizer, Head::kOwn, stages, replicas);

  ASSERT_EQ(split.exit_code, 0) << split.text;
  ExpectNear(split.Losses(), WholeLosses(optimizer, Head::kOwn),
             Rules().at(optimizer).tolerance);
}

INSTANTIATE_TEST_SUITE_P(
    Partitions, SplitEqualsWholeTest,
    testing::Values(Shape{"sgd", 1, 2}, Shape{"sgd", 2, 1}, Shape{"sgd", 2, 2},
                    Shape{"sgd", 4, 1}, Shape{"sgd", 4, 2},
                    Shape{"adamw", 1, 2}, Shape{"adamw", 2, 1},
                    Shape{"adamw", 2, 2}, Shape{"adamw", 4, 1},
                    Shape{"adamw", 4, 2}),
    NameOf);

class TiedEqualsWholeTest : public testing::TestWithParam<Shape> {};

TEST_P(TiedEqualsWholeTest, LossesAgreeAndTheModelHasTheTensorOnce) {
  const auto [optimizer, stages, replicas] = GetParam();
  Workbench bench;

  const Outcome split = Train(&bench, optimizer, Head::kTied, stages, replicas);
  const Outcome sample =
      bench.Run({"sample", "small", "--prompt", "The ", "--bytes", "20"});

  ASSERT_EQ(split.exit_code, 0) << split.text;
  ExpectNear(split.Losses(), WholeLosses(optimizer, Head::kTied),
             Rules().at(optimizer).tolerance);
  EXPECT_NE(split.Losses(), WholeLosses(optimizer, Head::kOwn));
  EXPECT_EQ(sample.exit_code, 0) << sample.text;
  const auto model =
      SafetensorsFile::Read(bench.folder() + "/runs/small/model.safetensors");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->FloatValues("embedding.token.weight").ok());
  EXPECT_FALSE(model->FloatValues("head.output.weight").ok());
}

INSTANTIATE_TEST_SUITE_P(Partitions, TiedEqualsWholeTest,
                         testing::Values(Shape{"sgd", 2, 2}, Shape{"sgd", 4, 1},
                                         Shape{"adamw", 3, 1},
                                         Shape{"adamw", 4, 2}),
                         NameOf);

}  // namespace
}  // namespace deltapipe
