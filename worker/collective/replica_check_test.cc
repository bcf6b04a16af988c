#include "worker/collective/replica_check.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

ParameterLayout TwoTensors() {
  ParameterLayout layout;
  layout.segments = {{"bias", {3}, 0, 3, false, 1, {}},
                     {"weight", {2, 4}, 3, 8, true, 1, {}}};
  layout.num_elements = 11;
  return layout;
}

std::vector<absl::Status> CheckAll(
    const std::vector<std::vector<float>>& weights) {
  LoopbackRanks ranks =
      *LoopbackRanks::Create(static_cast<int>(weights.size()));
  std::vector<absl::Status> statuses(weights.size());
  ranks.Run([&](int rank) {
    const size_t i = static_cast<size_t>(rank);
    statuses[i] =
        CheckReplicas(ranks.group(rank), 118, 7, TwoTensors(), weights[i],
                      Deadline::After(std::chrono::seconds(20)));
  });
  return statuses;
}

TEST(ReplicaCheckTest, AcceptsEqualWeights) {
  const std::vector<float> weights(11, 0.5f);

  for (const absl::Status& status : CheckAll({weights, weights, weights})) {
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(ReplicaCheckTest, NamesTensorAndRankOfOneFlippedBit) {
  const std::vector<float> weights(11, 0.5f);
  std::vector<float> damaged = weights;
  damaged[10] = std::nextafter(0.5f, 1.0f);

  for (const absl::Status& status : CheckAll({weights, damaged, weights})) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(status.ToString(),
                AllOf(HasSubstr("after step 119"), HasSubstr("\"weight\""),
                      HasSubstr("replicas 0, 2 against replica 1"),
                      Not(HasSubstr("bias"))));
  }
}

TEST(ReplicaCheckTest, TellsZeroFromMinusZero) {
  const std::vector<float> weights(11, 0.0f);
  std::vector<float> negative = weights;
  negative[0] = -0.0f;

  const std::vector<absl::Status> statuses = CheckAll({weights, negative});

  EXPECT_THAT(statuses[0].ToString(), HasSubstr("\"bias\""));
}

TEST(ReplicaCheckTest, RefusesWeightsOfAnotherSize) {
  LoopbackRanks ranks = *LoopbackRanks::Create(1);

  const absl::Status status =
      CheckReplicas(ranks.group(0), 1, 1, TwoTensors(), std::vector<float>(10),
                    Deadline::Infinite());

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
