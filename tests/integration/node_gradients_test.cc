// compression.node_gradients in the engine: gradients are summed in bf16 inside
// a node, and cross the network as the optimizer calls for.
#include <gmock/gmock.h>

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

struct Setting {
  std::string name;
  std::vector<std::string> overrides;
};

void PrintTo(const Setting& setting, std::ostream* out) {
  *out << setting.name;
}

/// Four replicas on two nodes; compressed from step 3 on.
RunResult RunWith(std::vector<std::string> overrides,
                  const std::vector<std::string>& more) {
  const std::vector<std::string> nested = {
      "parallel.nodes=2",     "train.steps=10",
      "train.verify_every=1", "train.optimizer.learning_rate=0.01",
      "train.clip_norm=0",    "train.optimizer.compress_after_step=3"};
  overrides.insert(overrides.begin(), nested.begin(), nested.end());
  overrides.insert(overrides.end(), more.begin(), more.end());
  return Job(1, 4, overrides).Run();
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  }
  return std::sqrt(sum);
}

void ExpectReplicasAreEqual(const RunResult& result) {
  for (const auto& [rank, weights] : result.weights) {
    EXPECT_EQ(weights, result.weights.at(0)) << "rank " << rank;
  }
}

class NodeGradientsTest : public ::testing::TestWithParam<Setting> {};

// A rank's gradient is rounded once, to within 2^-9 of it. A mean over ranks
// whose gradients partly cancel is off by more of itself, and Adam divides by
// what early gradients were: eight times that leaves room for both.
TEST_P(NodeGradientsTest, IsOffByTheRoundingOfGradientsOnly) {
  const std::vector<std::string>& overrides = GetParam().overrides;

  const RunResult exact = RunWith(overrides, {});
  const RunResult rounded =
      RunWith(overrides, {"compression.node_gradients=cast(bf16)"});
  const RunResult start = RunWith(
      overrides,
      {"train.optimizer.learning_rate=0", "train.optimizer.weight_decay=0"});

  ExpectSuccess(exact);
  ExpectSuccess(rounded);
  ExpectSuccess(start);
  ExpectReplicasAreEqual(rounded);
  const double moved = Distance(exact.weights.at(0), start.weights.at(0));
  const double off = Distance(rounded.weights.at(0), exact.weights.at(0));
  EXPECT_GT(moved, 0);
  EXPECT_GT(off, 0) << "nothing was rounded";
  EXPECT_LE(off, 8 * std::ldexp(moved, -9));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, NodeGradientsTest,
    ::testing::Values(Setting{"Plain", {"train.optimizer.kind=adamw"}},
                      Setting{"CompressedByIdentity",
                              {"train.optimizer.kind=onebit_adam",
                               "compression.gradients=identity"}},
                      Setting{"LambByIdentity",
                              {"train.optimizer.kind=onebit_lamb",
                               "compression.gradients=identity"}}),
    [](const auto& info) { return info.param.name; });

// Signs that are close to a tie may fall otherwise, and of few parameters a
// sign moves the loss: the bits of replicas are the same, and it is learned as
// well.
TEST(NodeGradientsTest, OneBitAcrossNodesKeepsReplicasEqualToTheBit) {
  for (const char* kind : {"onebit_adam", "onebit_lamb"}) {
    SCOPED_TRACE(kind);
    const std::vector<std::string> overrides = {
        std::string("train.optimizer.kind=") + kind, "train.steps=20",
        "compression.gradients=sign(block=0)"};

    const RunResult exact = RunWith(overrides, {});
    const RunResult rounded =
        RunWith(overrides, {"compression.node_gradients=cast(bf16)"});

    ExpectSuccess(exact);
    ExpectSuccess(rounded);
    ExpectReplicasAreEqual(rounded);
    EXPECT_NE(rounded.weights.at(0), exact.weights.at(0));
    EXPECT_LT(rounded.losses.back(), rounded.losses.front());
    EXPECT_LT(rounded.losses.back(), 1.25 * exact.losses.back());
  }
}

}  // namespace
}  // namespace deltapipe
