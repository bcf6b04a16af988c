// However a model is cut and copied, it trains as one: the losses of every
// partition agree with those of one worker. fp32, no compression.
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <vector>

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

Outcome Train(const std::string& optimizer, int stages, int replicas) {
  Workbench bench;
  return bench.Run(
      {"run", "job.yaml", "--json", "--set", "train.steps=20", "--set",
       std::string("train.optimizer=") + Rules().at(optimizer).optimizer,
       "--set", "parallel.stages=" + std::to_string(stages), "--set",
       "parallel.replicas=" + std::to_string(replicas)});
}

/// The losses of one worker, trained once for each optimizer.
const std::vector<double>& WholeLosses(const std::string& optimizer) {
  static auto* known = new std::map<std::string, std::vector<double>>;
  auto found = known->find(optimizer);
  if (found == known->end()) {
    const Outcome whole = Train(optimizer, 1, 1);
    EXPECT_EQ(whole.exit_code, 0) << whole.text;
    found = known->emplace(optimizer, whole.Losses()).first;
  }
  return found->second;
}

using Shape = std::tuple<const char*, int, int>;  // optimizer, stages, replicas

class SplitEqualsWholeTest : public testing::TestWithParam<Shape> {};

TEST_P(SplitEqualsWholeTest, LossesAgreeOverTwentySteps) {
  const auto [optimizer, stages, replicas] = GetParam();
  const std::vector<double>& whole = WholeLosses(optimizer);

  const Outcome split = Train(optimizer, stages, replicas);

  ASSERT_EQ(split.exit_code, 0) << split.text;
  const std::vector<double> losses = split.Losses();
  ASSERT_THAT(losses, SizeIs(20)) << split.text;
  ASSERT_THAT(whole, SizeIs(20));
  for (size_t step = 0; step < losses.size(); ++step) {
    EXPECT_NEAR(losses[step], whole[step],
                Rules().at(optimizer).tolerance * std::abs(whole[step]))
        << "step " << step + 1;
  }
  EXPECT_LT(losses.back(), 0.98 * losses.front()) << "nothing was learnt";
}

INSTANTIATE_TEST_SUITE_P(
    Partitions, SplitEqualsWholeTest,
    testing::Values(Shape{"sgd", 1, 2}, Shape{"sgd", 2, 1}, Shape{"sgd", 2, 2},
                    Shape{"sgd", 4, 1}, Shape{"sgd", 4, 2},
                    Shape{"adamw", 1, 2}, Shape{"adamw", 2, 1},
                    Shape{"adamw", 2, 2}, Shape{"adamw", 4, 1},
                    Shape{"adamw", 4, 2}),
    [](const testing::TestParamInfo<Shape>& info) {
      return std::string(std::get<0>(info.param)) + "_" +
             std::to_string(std::get<1>(info.param)) + "Stages" +
             std::to_string(std::get<2>(info.param)) + "Replicas";
    });

}  // namespace
}  // namespace deltapipe
