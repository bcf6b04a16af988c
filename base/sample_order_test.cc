#include "base/sample_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace deltapipe {
namespace {

using testing::ElementsAre;
using testing::Lt;

SampleOrderOptions Options() {
  SampleOrderOptions options;
  options.num_samples = 1000;
  options.num_slots = 7;
  options.microbatch = 3;
  options.seed = 0x123456789abcdef;
  return options;
}

TEST(SampleOrderTest, OrderIsFixedForGood) {
  // A resumed job, and the losses in the documents, depend on it.
  SampleOrder order(Options());

  EXPECT_EQ(order.steps_per_epoch(), 47);
  EXPECT_THAT(order.Indices(0, 0), ElementsAre(455, 924, 280));
  EXPECT_THAT(order.Indices(0, 6), ElementsAre(342, 496, 188));
  EXPECT_THAT(order.Indices(46, 6), ElementsAre(356, 909, 580));
  EXPECT_THAT(order.Indices(47, 0), ElementsAre(350, 126, 105));
  EXPECT_THAT(order.Indices(1000000, 6), ElementsAre(615, 461, 321));
  uint64_t hash = 0;
  for (int64_t step = 0; step < 141; ++step) {
    for (int64_t slot = 0; slot < 7; ++slot) {
      for (const int64_t index : order.Indices(step, slot)) {
        hash = hash * 1099511628211u + static_cast<uint64_t>(index) + 1;
      }
    }
  }
  EXPECT_EQ(hash, 8811797497641514918u);
}

TEST(SampleOrderTest, EachEpochIsAPermutationOfEachShard) {
  SampleOrder order(Options());

  for (int64_t slot = 0; slot < 7; ++slot) {
    std::vector<uint32_t> first = order.ShardOrder(0, slot);
    std::vector<uint32_t> second = order.ShardOrder(1, slot);
    EXPECT_EQ(static_cast<int64_t>(first.size()), order.shard_size(slot));
    EXPECT_NE(first, second);
    std::sort(first.begin(), first.end());
    std::sort(second.begin(), second.end());
    EXPECT_EQ(first, second);
    for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i], i);
  }
}

TEST(SampleOrderTest, AnEpochHasNoSampleTwice) {
  SampleOrder order(Options());

  std::set<int64_t> seen;
  for (int64_t step = 47; step < 94; ++step) {
    for (int64_t slot = 0; slot < 7; ++slot) {
      for (const int64_t index : order.Indices(step, slot)) {
        EXPECT_TRUE(seen.insert(index).second) << index;
        EXPECT_THAT(index, Lt(1000));
        EXPECT_EQ(index % 7, slot);
      }
    }
  }
  EXPECT_EQ(seen.size(), 47 * 21);
}

TEST(SampleOrderTest, ShardsShareTheSamplesOut) {
  const SampleOrder order(Options());

  int64_t total = 0;
  for (int64_t slot = 0; slot < 7; ++slot) total += order.shard_size(slot);

  EXPECT_EQ(total, 1000);
  EXPECT_EQ(order.shard_size(0), 143);
  EXPECT_EQ(order.shard_size(6), 142);
}

TEST(SampleOrderTest, TooFewSamplesAreNoStep) {
  SampleOrderOptions options = Options();
  options.num_samples = 20;

  EXPECT_EQ(SampleOrder(options).steps_per_epoch(), 0);
}

}  // namespace
}  // namespace deltapipe
