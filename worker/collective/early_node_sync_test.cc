// Transactions that begin before their values are there, where ranks share
// nodes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/residual_layout.h"
#include "worker/collective/testing/random_ranges.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

struct Case {
  int num_nodes;
  int per_node;
  SyncFormat format;
  std::string codec;            // between nodes
  std::string inside = "none";  // nodes
  int num_ranks() const { return num_nodes * per_node; }
};

class EarlyNodeSyncTest : public ::testing::TestWithParam<Case> {
 protected:
  /// Of more buckets than slices, in a random order.
  GradientSyncOptions Options(int64_t size) {
    GradientSyncOptions options;
    for (int rank = 0; rank < GetParam().num_ranks(); ++rank) {
      options.nodes.push_back(rank / GetParam().per_node);
    }
    (GetParam().format == SyncFormat::kPlain ? options.plain_codec
                                             : options.compressed_codec) =
        GetParam().codec;
    options.node_codec = GetParam().inside;
    options.order = RandomOrder(size, &random_);
    options.bucket_elements_per_rank =
        20 + static_cast<int64_t>(random_() % 80);
    options.max_message_bytes = random_() % 2 == 0 ? 64 : 16 << 20;
    return options;
  }

  /// Values come in random portions, each rank's at its own pace; what is not
  /// ready is NaN, which would show in the mean.
  Vectors SynchronizeEarly(uint32_t step, const GradientSyncOptions& options,
                           const Vectors& values, SyncedRanks* ranks) {
    const std::vector<size_t> indices = Indices(options.order);
    const uint64_t paces = random_();
    Vectors early(values.size());
    ranks->ranks().Run([&](int rank) {
      std::mt19937_64 pace(paces + static_cast<uint64_t>(rank));
      const size_t i = static_cast<size_t>(rank);
      early[i].assign(values[i].size(),
                      std::numeric_limits<float>::quiet_NaN());
      GradientSync& sync = ranks->sync(rank);
      ASSERT_TRUE(
          sync.BeginEarly(step, {absl::MakeSpan(early[i]), GetParam().format})
              .ok());
      const size_t portion = 1 + pace() % indices.size();
      for (size_t n = 0; n < indices.size(); ++n) {
        early[i][indices[n]] = values[i][indices[n]];
        if (pace() % portion == 0) sync.Ready(static_cast<int64_t>(n) + 1);
        if (pace() % portion == 0) std::this_thread::yield();
      }
      sync.Ready(static_cast<int64_t>(indices.size()));
      const absl::Status status = sync.Wait(Soon());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
    });
    return early;
  }

  std::vector<SyncResiduals> ResidualsOf(SyncedRanks* ranks) {
    std::vector<SyncResiduals> residuals;
    for (int rank = 0; rank < GetParam().num_ranks(); ++rank) {
      residuals.push_back(*ranks->sync(rank).TakeResiduals());
    }
    return residuals;
  }

  const uint64_t seed_ = std::random_device()();
  const ::testing::ScopedTrace trace_{__FILE__, __LINE__,
                                      absl::StrCat("seed ", seed_)};
  std::mt19937_64 random_{seed_};
};

TEST_P(EarlyNodeSyncTest, ResultDoesNotDependOnWhenValuesAreReady) {
  const int64_t size = 2000 + static_cast<int64_t>(random_() % 4000);
  const GradientSyncOptions options = Options(size);
  SyncedRanks early(GetParam().num_ranks(), size, options);
  SyncedRanks whole(GetParam().num_ranks(), size, options);
  for (uint32_t step = 0; step < 5; ++step) {
    const Vectors values =
        RandomVectors(GetParam().num_ranks(), size, seed_ + step);
    Vectors expected = values;
    whole.Synchronize(step, GetParam().format, &expected);

    const Vectors result = SynchronizeEarly(step, options, values, &early);

    for (const std::vector<float>& vector : result) {
      ASSERT_TRUE(SameBits(vector, expected[0])) << "step " << step;
    }
    if (GetParam().format == SyncFormat::kPlain) {
      const double tolerance =
          GetParam().codec == "none" && GetParam().inside == "none"
              ? 1e-6
              : 3 * 6.0 / 512;
      ExpectNear(expected[0], Mean(values), tolerance);
    }
  }
}

// Where every element is rounded by itself, or none is.
TEST_P(EarlyNodeSyncTest, TheCutChangesNoBitOfWholeNumbers) {
  if (GetParam().format == SyncFormat::kCompressed) return;
  GradientSyncOptions options = Options(3001);
  Vectors in_buckets = RandomVectors(GetParam().num_ranks(), 3001, seed_);
  for (std::vector<float>& vector : in_buckets) {
    for (float& value : vector) value = std::round(100 * value);
  }
  Vectors whole = in_buckets;
  SyncedRanks cut(GetParam().num_ranks(), 3001, options);
  options.may_begin_early = false;
  SyncedRanks uncut(GetParam().num_ranks(), 3001, options);

  cut.Synchronize(0, SyncFormat::kPlain, &in_buckets);
  uncut.Synchronize(0, SyncFormat::kPlain, &whole);

  EXPECT_TRUE(SameBits(in_buckets[0], whole[0]));
  int64_t more_bytes = 0;
  for (int rank = 0; rank < GetParam().num_ranks(); ++rank) {
    more_bytes += cut.sync(rank).counters().payload_bytes -
                  uncut.sync(rank).counters().payload_bytes;
  }
  // Messages of codecs, of which there are more, have a head.
  const bool has_heads =
      GetParam().codec != "none" || GetParam().inside != "none";
  EXPECT_TRUE(has_heads ? more_bytes > 0 : more_bytes == 0) << more_bytes;
}

// What is not handed on is owed, also of rows that buckets and slices cut.
TEST_P(EarlyNodeSyncTest, WhatIsOwedAndWhatIsExcludedIsKept) {
  if (GetParam().format == SyncFormat::kPlain) return;
  constexpr int64_t kSize = 3000;
  const int num_ranks = GetParam().num_ranks();
  const GradientSyncOptions options = Options(kSize);
  SyncedRanks ranks(num_ranks, kSize, options);
  const std::vector<ElementRange> rows = RandomRows(kSize, &random_);
  Vectors values = RandomVectors(num_ranks, kSize, seed_);
  const std::vector<uint8_t> expected = WakeSomeRows(rows, &values, &random_);
  const std::vector<double> mean = Mean(values);
  SyncRequest request;
  request.format = SyncFormat::kCompressed;
  request.excluded = rows;

  ranks.Synchronize(0, request, &values);

  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto woken = ranks.sync(rank).woken();
    EXPECT_EQ(std::vector<uint8_t>(woken.begin(), woken.end()), expected);
  }
  const auto owed = FoldResiduals(kSize, options.nodes, ResidualsOf(&ranks));
  ASSERT_TRUE(owed.ok()) << owed.status();
  // What is rounded inside a node is not owed.
  const double tolerance = GetParam().inside == "none" ? 1e-5 : 6.0 / 256;
  for (size_t i = 0; i < owed->size(); ++i) {
    ASSERT_NEAR(values[0][i] + (*owed)[i], mean[i], tolerance)
        << "element " << i;
  }
}

TEST_P(EarlyNodeSyncTest, ResidualsOfAnotherCutOweAsMuch) {
  if (GetParam().format == SyncFormat::kPlain) return;
  constexpr int64_t kSize = 3000;
  const int num_ranks = GetParam().num_ranks();
  const GradientSyncOptions options = Options(kSize);
  GradientSyncOptions uncut_options = options;
  uncut_options.may_begin_early = false;
  SyncedRanks uncut(num_ranks, kSize, uncut_options);
  Vectors values = RandomVectors(num_ranks, kSize, seed_);
  uncut.Synchronize(0, SyncFormat::kCompressed, &values);
  std::vector<SyncResiduals> before = ResidualsOf(&uncut);
  const auto owed = FoldResiduals(kSize, options.nodes, before);
  ASSERT_TRUE(owed.ok()) << owed.status();
  // Files that know of no buckets have no ranges.
  if (seed_ % 2 == 0) {
    for (SyncResiduals& residuals : before) residuals.server_ranges.clear();
  }
  SyncedRanks cut(num_ranks, kSize, options);
  SyncedRanks again(num_ranks, kSize, options);

  for (int rank = 0; rank < num_ranks; ++rank) {
    const absl::Status put =
        cut.sync(rank).PutResiduals(before[static_cast<size_t>(rank)]);
    ASSERT_TRUE(put.ok()) << put;
  }
  const std::vector<SyncResiduals> after = ResidualsOf(&cut);
  for (int rank = 0; rank < num_ranks; ++rank) {
    const absl::Status put =
        again.sync(rank).PutResiduals(after[static_cast<size_t>(rank)]);
    ASSERT_TRUE(put.ok()) << put;
  }

  const auto owed_after = FoldResiduals(kSize, options.nodes, after);
  ASSERT_TRUE(owed_after.ok()) << owed_after.status();
  for (size_t i = 0; i < owed->size(); ++i) {
    ASSERT_NEAR((*owed_after)[i], (*owed)[i], 1e-5) << "element " << i;
  }
  values = RandomVectors(num_ranks, kSize, seed_ + 1);
  Vectors same = values;
  cut.Synchronize(1, SyncFormat::kCompressed, &values);
  again.Synchronize(1, SyncFormat::kCompressed, &same);
  EXPECT_TRUE(SameBits(values[0], same[0]));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, EarlyNodeSyncTest,
    ::testing::Values(
        Case{2, 2, SyncFormat::kPlain, "none"},
        Case{3, 2, SyncFormat::kPlain, "none"},
        Case{2, 2, SyncFormat::kPlain, "none", "cast(bf16)"},
        Case{2, 3, SyncFormat::kPlain, "cast(bf16)", "cast(bf16)"},
        Case{2, 2, SyncFormat::kCompressed, "sign(block=0)"},
        Case{2, 3, SyncFormat::kCompressed, "sign(block=0)", "cast(bf16)"},
        Case{3, 2, SyncFormat::kCompressed, "sign(block=64)"},
        Case{2, 4, SyncFormat::kCompressed, "int(4,round=stochastic)"}),
    [](const auto& info) {
      return absl::StrCat(info.param.num_nodes, "x", info.param.per_node,
                          "Case", info.index);
    });

/// Two nodes of two ranks, whose vector of 1024 elements travels in four
/// buckets of the fp32 ring, the last elements first: two of each slice.
GradientSyncOptions FourBuckets() {
  GradientSyncOptions options;
  options.nodes = {0, 0, 1, 1};
  options.order = {{512, 1024}, {0, 512}};
  options.bucket_elements_per_rank = 128;
  return options;
}

TEST(EarlyNodesTest, ABucketCrossesBeforeTheNextIsReady) {
  SyncedRanks ranks(4, 1024, FourBuckets());
  Vectors values = RandomVectors(4, 1024, 1);
  const std::vector<double> expected = Mean(values);

  ranks.ranks().Run([&](int rank) {
    GradientSync& sync = ranks.sync(rank);
    const size_t i = static_cast<size_t>(rank);
    ASSERT_TRUE(sync.BeginEarly(0, {absl::MakeSpan(values[i])}).ok());
    sync.Ready(256);
    // Both hops between the nodes, of ranks with the second slice.
    const FrameChannel* peer = ranks.ranks().group(rank)->channel(rank ^ 2);
    const int64_t num_frames = rank % 2 == 1 ? 2 : 0;
    const Deadline deadline = Soon();
    while (peer->counters().frames_received < num_frames &&
           !deadline.has_passed()) {
      std::this_thread::yield();
    }
    EXPECT_GE(peer->counters().frames_received, num_frames);
    sync.Ready(1024);
    ASSERT_TRUE(sync.Wait(Soon()).ok());
    EXPECT_EQ(peer->counters().frames_received, 2 * 2);
  });

  ExpectNear(values[0], expected, 1e-6);
  for (const std::vector<float>& vector : values) {
    EXPECT_TRUE(SameBits(vector, values[0]));
  }
}

TEST(EarlyNodesTest, AbandonEndsTheTransactionOnAllRanks) {
  SyncedRanks ranks(4, 1024, FourBuckets());

  ranks.ranks().Run([&](int rank) {
    std::vector<float> values(1024, 1.0f);
    GradientSync& sync = ranks.sync(rank);
    ASSERT_TRUE(sync.BeginEarly(6, {absl::MakeSpan(values)}).ok());
    sync.Ready(512);
    if (rank == 2) {
      sync.Abandon(absl::InternalError("the backward has failed"));
    } else {
      sync.Ready(1024);
    }
    const absl::Status status = sync.Wait(Soon());
    EXPECT_FALSE(status.ok()) << "rank " << rank;
    EXPECT_FALSE(absl::IsDeadlineExceeded(status)) << status;
    if (rank == 2) {
      EXPECT_THAT(status.ToString(), HasSubstr("the backward has failed"));
    }
    EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
  });
}

}  // namespace
}  // namespace deltapipe
