#include "worker/collective/sync_probe.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

TEST(SyncProbeTest, CodecsAreTriedAsTheyTravel) {
  for (const auto& [codec, bits] :
       std::vector<std::pair<std::string, double>>{{"sign(block=0)", 1},
                                                   {"cast(bf16)", 16},
                                                   {"int(4)", 4.125},
                                                   {"identity", 32}}) {
    const auto cost = ProbeSyncCost(codec, 1 << 16, 4);
    ASSERT_TRUE(cost.ok()) << cost.status();
    EXPECT_NEAR(cost->bits_per_element, bits, 0.01) << codec;
    EXPECT_GT(cost->kernel_seconds, 0) << codec;
    EXPECT_LT(cost->kernel_seconds, 10) << codec;
  }
}

TEST(SyncProbeTest, LargeVectorsAreScaledFromASample) {
  const auto small = ProbeSyncCost("int(8,round=stochastic)", 1 << 18, 2);
  const auto large =
      ProbeSyncCost("int(8,round=stochastic)", int64_t{1} << 40, 2);

  ASSERT_TRUE(small.ok() && large.ok());
  EXPECT_GT(large->kernel_seconds, 1000 * small->kernel_seconds);
}

TEST(SyncProbeTest, OddSizesAndSingleRanks) {
  for (const int64_t count : {1, 3, 63, 1001}) {
    EXPECT_TRUE(ProbeSyncCost("sign(block=0)", count, 3).ok()) << count;
  }
  EXPECT_EQ(ProbeSyncCost("sign(block=0)", 0, 3)->kernel_seconds, 0);
  EXPECT_EQ(ProbeSyncCost("sign(block=0)", 100, 1)->kernel_seconds, 0);
  EXPECT_EQ(ProbeSyncCost("sgn", 100, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SyncProbeTest, RanksMeasureALatency) {
  LoopbackRanks ranks = *LoopbackRanks::Create(3);

  ranks.Run([&](int rank) {
    const auto latency = MeasureLatency(ranks.group(rank), 0, 7, Soon());
    ASSERT_TRUE(latency.ok()) << latency.status();
    EXPECT_GT(*latency, 0);
    EXPECT_LT(*latency, 10);
  });
}

}  // namespace
}  // namespace deltapipe
