// GradientSync whose ranks keep a shard of the mean each (keeps_shard).
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/shards.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 1910;

GradientSyncOptions Sharded(const std::string& plain_codec = "none") {
  GradientSyncOptions options;
  options.keeps_shard = true;
  options.plain_codec = plain_codec;
  // So that shards travel in several chunks.
  options.max_message_bytes = 256;
  return options;
}

/// The mean on the ranks that own it; the rest of each vector is made NaN, so
/// that nobody relies on it.
void ReduceToShards(SyncedRanks* synced, uint32_t step, Vectors* values) {
  synced->ranks().Run([&](int rank) {
    std::vector<float>& mine = (*values)[static_cast<size_t>(rank)];
    GradientSync& sync = synced->sync(rank);
    SyncRequest request;
    request.values = absl::MakeSpan(mine);
    ASSERT_TRUE(sync.Begin(step, request).ok());
    const absl::Status status = sync.Wait(Soon());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
    const ElementRange owned = sync.owned_by(rank);
    for (int64_t i = 0; i < static_cast<int64_t>(mine.size()); ++i) {
      if (i >= owned.begin && i < owned.end) continue;
      mine[static_cast<size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
    }
  });
}

void Gather(SyncedRanks* synced, uint32_t step, Vectors* values) {
  synced->ranks().Run([&](int rank) {
    const absl::Status status = synced->sync(rank).Gather(
        step, absl::MakeSpan((*values)[static_cast<size_t>(rank)]), Soon());
    ASSERT_TRUE(status.ok()) << status;
  });
}

using Case = std::tuple<int, int64_t>;  // ranks, elements

class ShardSyncTest : public ::testing::TestWithParam<Case> {
 protected:
  const int num_ranks_ = std::get<0>(GetParam());
  const int64_t num_elements_ = std::get<1>(GetParam());
};

TEST_P(ShardSyncTest, EveryElementHasOneOwner) {
  SyncedRanks ranks(num_ranks_, num_elements_, Sharded());
  std::vector<int> owners(static_cast<size_t>(num_elements_));

  for (int rank = 0; rank < num_ranks_; ++rank) {
    const ElementRange owned = ranks.sync(rank).owned_by(rank);
    for (int64_t i = owned.begin; i < owned.end; ++i) {
      ++owners[static_cast<size_t>(i)];
    }
  }

  EXPECT_THAT(owners, ::testing::Each(1));
}

// The same order of summation as the ring's all-reduce, so the same bits.
TEST_P(ShardSyncTest, ScatterAndGatherAreTheBitsOfTheRing) {
  RecordProperty("seed", static_cast<int>(kSeed));
  SyncedRanks whole(num_ranks_, num_elements_);
  SyncedRanks sharded(num_ranks_, num_elements_, Sharded());

  for (uint32_t step = 0; step < 3; ++step) {
    Vectors expected = RandomVectors(num_ranks_, num_elements_, kSeed + step);
    Vectors values = expected;
    whole.Synchronize(step, SyncFormat::kPlain, &expected);

    ReduceToShards(&sharded, step, &values);
    Gather(&sharded, step, &values);

    for (const std::vector<float>& vector : values) {
      EXPECT_TRUE(SameBits(vector, expected[0])) << "step " << step;
    }
  }
}

// What is sent is rounded once, 2^-9 relative; what stays is not.
TEST_P(ShardSyncTest, BFloat16RoundsWhatTravelsOnce) {
  SyncedRanks ranks(num_ranks_, num_elements_, Sharded("cast(bf16)"));
  Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed);
  std::vector<double> expected(static_cast<size_t>(num_elements_));
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const ElementRange owned = ranks.sync(rank).owned_by(rank);
    for (int64_t i = owned.begin; i < owned.end; ++i) {
      for (int other = 0; other < num_ranks_; ++other) {
        const float value =
            values[static_cast<size_t>(other)][static_cast<size_t>(i)];
        expected[static_cast<size_t>(i)] +=
            (other == rank ? value : BFloat16ToFloat(FloatToBFloat16(value))) /
            double(num_ranks_);
      }
    }
  }

  ReduceToShards(&ranks, 0, &values);
  Gather(&ranks, 0, &values);

  for (const std::vector<float>& vector : values) {
    ExpectNear(vector, expected, 1e-6);
  }
}

TEST_P(ShardSyncTest, SendsWhatTheRingSends) {
  SyncedRanks whole(num_ranks_, num_elements_);
  SyncedRanks sharded(num_ranks_, num_elements_, Sharded());
  SyncedRanks rounded(num_ranks_, num_elements_, Sharded("cast(bf16)"));
  Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed);
  whole.Synchronize(0, SyncFormat::kPlain, &values);
  for (SyncedRanks* ranks : {&sharded, &rounded}) {
    values = RandomVectors(num_ranks_, num_elements_, kSeed);
    ReduceToShards(ranks, 0, &values);
    Gather(ranks, 0, &values);
  }

  int64_t of_ring = 0, of_shards = 0, of_rounded = 0;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    of_ring += whole.sync(rank).counters().payload_bytes;
    of_shards += sharded.sync(rank).counters().payload_bytes;
    of_rounded += rounded.sync(rank).counters().payload_bytes;
  }

  EXPECT_EQ(of_shards, of_ring);
  // Gradients in two bytes, weights in four; and a scale with each message.
  const int64_t messages = int64_t{num_ranks_} * (num_ranks_ - 1);
  EXPECT_LE(of_rounded, of_ring * 3 / 4 + 4 * messages);
}

INSTANTIATE_TEST_SUITE_P(RanksElements, ShardSyncTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 7),
                                            ::testing::Values(0, 1, 9, 64,
                                                              1003)),
                         [](const auto& info) {
                           return absl::StrCat("Ranks", std::get<0>(info.param),
                                               "Elements",
                                               std::get<1>(info.param));
                         });

TEST(ShardSyncErrorsTest, AValueThatIsNotFiniteReachesItsOwner) {
  for (const char* codec : {"none", "cast(bf16)"}) {
    SyncedRanks ranks(3, 100, Sharded(codec));
    Vectors values = RandomVectors(3, 100, kSeed);
    for (std::vector<float>& vector : values) vector[0] = 1;
    values[1][50] = std::numeric_limits<float>::infinity();

    ReduceToShards(&ranks, 0, &values);

    bool is_seen = false;
    for (int rank = 0; rank < 3; ++rank) {
      const ElementRange owned = ranks.sync(rank).owned_by(rank);
      const std::vector<float>& mine = values[static_cast<size_t>(rank)];
      for (int64_t i = owned.begin; i < owned.end; ++i) {
        is_seen |= !std::isfinite(mine[static_cast<size_t>(i)]);
      }
    }
    EXPECT_TRUE(is_seen) << codec;
  }
}

TEST(ShardSyncErrorsTest, CompressedTransactionsAreRefused) {
  SyncedRanks ranks(1, 8, Sharded());
  std::vector<float> values(8);
  SyncRequest request;
  request.values = absl::MakeSpan(values);
  request.format = SyncFormat::kCompressed;

  const absl::Status status = ranks.sync(0).Begin(0, request);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("keeps a shard only"));
}

TEST(ShardSyncErrorsTest, NodesAreRefused) {
  auto ranks = *LoopbackRanks::Create(4, {});
  GradientSyncOptions options = Sharded();
  options.nodes = {0, 0, 1, 1};

  const auto sync = GradientSync::Create(options, ranks.group(0), 8);

  EXPECT_THAT(sync.status().message(), HasSubstr("one rank on each node"));
}

TEST(ShardSyncErrorsTest, GatherIsOfRanksThatKeepShards) {
  SyncedRanks ranks(1, 8);
  std::vector<float> values(8);

  const absl::Status status =
      ranks.sync(0).Gather(0, absl::MakeSpan(values), Soon());

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

// One rank leaves: the others have an error that names it, and no hang.
TEST(ShardSyncErrorsTest, GatherEndsWhenARankIsLate) {
  SyncedRanks ranks(2, 64, Sharded());
  Vectors values = RandomVectors(2, 64, kSeed);

  const absl::Status status =
      ranks.sync(0).Gather(0, absl::MakeSpan(values[0]),
                           Deadline::After(std::chrono::milliseconds(50)));

  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("rank 1"));
}

}  // namespace
}  // namespace deltapipe
