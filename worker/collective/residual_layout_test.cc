#include "worker/collective/residual_layout.h"

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSize = 2003;

std::vector<float> Owed(SyncedRanks* ranks, int num_ranks,
                        const std::vector<int>& nodes) {
  std::vector<SyncResiduals> residuals;
  for (int rank = 0; rank < num_ranks; ++rank) {
    residuals.push_back(*ranks->sync(rank).TakeResiduals());
  }
  const auto owed = FoldResiduals(kSize, nodes, residuals);
  EXPECT_TRUE(owed.ok()) << owed.status();
  return *owed;
}

double Norm(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

/// Accumulates what was brought (its means) and what came out.
struct Ledger {
  std::vector<double> brought = std::vector<double>(kSize);
  std::vector<double> applied = std::vector<double>(kSize);

  void Train(SyncedRanks* ranks, int num_ranks, uint32_t first_step,
             uint32_t num_steps) {
    for (uint32_t step = first_step; step < first_step + num_steps; ++step) {
      Vectors values = RandomVectors(num_ranks, kSize, 100 + step);
      const std::vector<double> mean = Mean(values);
      ranks->Synchronize(step, SyncFormat::kCompressed, &values);
      for (size_t i = 0; i < brought.size(); ++i) {
        brought[i] += mean[i];
        applied[i] += values[0][i];
      }
    }
  }
  /// What is missing after `owed`, relative to what was brought.
  double Missing(const std::vector<float>& owed) const {
    std::vector<double> missing(brought);
    for (size_t i = 0; i < missing.size(); ++i) {
      missing[i] -= applied[i] + owed[i];
    }
    return Norm(missing) / Norm(brought);
  }
};

/// Nodes by rank.
using World = std::vector<int>;

class ResidualResizeTest
    : public ::testing::TestWithParam<std::tuple<std::vector<World>, Wire>> {};

TEST_P(ResidualResizeTest, WhatIsOwedPassesFromWorldToWorld) {
  Ledger ledger;
  std::vector<float> owed;
  uint32_t step = 0;
  for (const World& nodes : std::get<0>(GetParam())) {
    const int n = static_cast<int>(nodes.size());
    GradientSyncOptions options;
    options.nodes = nodes;
    SyncedRanks ranks(n, kSize, options, {}, std::get<1>(GetParam()));
    for (int rank = 0; rank < n; ++rank) {
      GradientSync& sync = ranks.sync(rank);
      ASSERT_TRUE(
          sync.PutResiduals(SpreadResiduals(owed, sync.residual_place())).ok());
    }
    ledger.Train(&ranks, n, step, 5);
    step += 5;
    owed = Owed(&ranks, n, nodes);

    EXPECT_LE(ledger.Missing(owed), 1e-6) << "after the world of " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Worlds, ResidualResizeTest,
    ::testing::Combine(
        ::testing::Values(
            std::vector<World>{{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2, 3, 4}},
            std::vector<World>{{0, 1}, {0}, {0, 1, 2, 3}},
            std::vector<World>{{0, 0, 1, 1}, {0, 1, 2}, {0, 0, 0, 1, 1, 1}}),
        ::testing::Values(Wire::kLoopback, Wire::kTcp)));

GradientSyncOptions InBuckets(int64_t bucket_elements_per_rank) {
  GradientSyncOptions options;
  options.order = {{1500, kSize}, {0, 700}, {700, 1500}};
  options.bucket_elements_per_rank = bucket_elements_per_rank;
  return options;
}

// Also to more ranks and fewer, with no file of another rank at hand where
// their number stays.
TEST(ResidualBucketsTest, WhatIsOwedPassesFromCutToCut) {
  struct World {
    int num_ranks;
    int64_t bucket_elements_per_rank;
  };
  Ledger ledger;
  std::vector<SyncResiduals> former;
  uint32_t step = 0;
  for (const World& world :
       {World{3, 50}, World{3, 100}, World{3, 1 << 20}, World{3, 20},
        World{2, 20}, World{4, 100}, World{4, 100}}) {
    const int n = world.num_ranks;
    SyncedRanks ranks(n, kSize, InBuckets(world.bucket_elements_per_rank));
    for (int rank = 0; rank < n; ++rank) {
      GradientSync& sync = ranks.sync(rank);
      const size_t i = static_cast<size_t>(rank);
      if (former.size() == static_cast<size_t>(n)) {
        ASSERT_TRUE(sync.PutResiduals(former[i]).ok());
      } else {
        ASSERT_TRUE(
            sync.PutResiduals(SpreadResiduals(*FoldResiduals(kSize, {}, former),
                                              sync.residual_place()))
                .ok());
      }
    }
    ledger.Train(&ranks, n, step, 5);
    step += 5;
    former.clear();
    for (int rank = 0; rank < n; ++rank) {
      former.push_back(*ranks.sync(rank).TakeResiduals());
    }

    EXPECT_LE(ledger.Missing(Owed(&ranks, n, {})), 1e-6)
        << "after the world of " << n << " in buckets of "
        << world.bucket_elements_per_rank;
  }
}

// Residuals that do not say where they lie are those of a whole vector.
TEST(ResidualBucketsTest, WithoutRangesTheyAreOfAnUncutVector) {
  SyncedRanks whole(3, kSize);
  Ledger ledger;
  ledger.Train(&whole, 3, 0, 5);
  SyncedRanks cut(3, kSize, InBuckets(50));
  for (int rank = 0; rank < 3; ++rank) {
    SyncResiduals residuals = *whole.sync(rank).TakeResiduals();
    residuals.server_ranges.clear();
    ASSERT_TRUE(cut.sync(rank).PutResiduals(residuals).ok());
  }
  EXPECT_LE(ledger.Missing(Owed(&cut, 3, {})), 1e-6);
}

TEST(ResidualBucketsTest, WhatWasPutIsTakenToTheBit) {
  SyncedRanks first(3, kSize, InBuckets(50));
  SyncedRanks second(3, kSize, InBuckets(50));
  Ledger ledger;
  ledger.Train(&first, 3, 0, 3);
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(
        second.sync(rank).PutResiduals(*first.sync(rank).TakeResiduals()).ok());
  }
  Vectors values = RandomVectors(3, kSize, 9);
  Vectors expected = values;
  first.Synchronize(3, SyncFormat::kCompressed, &expected);
  second.Synchronize(3, SyncFormat::kCompressed, &values);
  EXPECT_TRUE(SameBits(values[0], expected[0]));
}

TEST(ResidualBucketsTest, RangesOutsideOfTheVectorAreRefused) {
  SyncedRanks ranks(1, 100);
  for (const ElementRange& range :
       {ElementRange{1, 101}, ElementRange{-1, 99}, ElementRange{50, 40}}) {
    SyncResiduals residuals;
    residuals.worker.resize(100);
    residuals.server.resize(100);
    residuals.server_ranges = {range};
    const absl::Status status = ranks.sync(0).PutResiduals(residuals);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_FALSE(FoldResiduals(100, {}, {&residuals, 1}).ok());
  }
}

TEST(ResidualLayoutTest, ResidualsOfAnotherRankAreNamed) {
  std::vector<SyncResiduals> residuals(2);
  residuals[0] = {std::vector<float>(100), std::vector<float>(56), {}};
  residuals[1] = {std::vector<float>(100), std::vector<float>(56), {}};

  const absl::Status status = FoldResiduals(100, {}, residuals).status();

  EXPECT_THAT(std::string(status.message()),
              HasSubstr("residuals of rank 1 of 2: 100 and 56 values, expected "
                        "100 and 44"));
}

// ---- excluded ranges ----

struct ExcludedCase {
  std::string codec;
  std::vector<int> nodes;
};

class ExcludedTest : public ::testing::TestWithParam<ExcludedCase> {
 protected:
  int num_ranks() const { return static_cast<int>(GetParam().nodes.size()); }
  GradientSyncOptions options() const {
    GradientSyncOptions options;
    options.compressed_codec = GetParam().codec;
    options.nodes = GetParam().nodes;
    return options;
  }
  // Straddle shards and slices on purpose.
  const std::vector<ElementRange> excluded_ = {
      {0, 3}, {64, 128}, {128, 192}, {1000, 1400}, {2000, 2003}};
};

void ClearExcluded(const std::vector<ElementRange>& excluded, Vectors* values) {
  for (std::vector<float>& vector : *values) {
    for (const ElementRange& range : excluded) {
      std::fill(vector.begin() + range.begin, vector.begin() + range.end, 0.0f);
    }
  }
}

TEST_P(ExcludedTest, RowsWithoutAGradientComeBackZeroAndOweNothing) {
  SyncedRanks ranks(num_ranks(), kSize, options());
  for (uint32_t step = 0; step < 20; ++step) {
    Vectors values = RandomVectors(num_ranks(), kSize, step);
    ClearExcluded(excluded_, &values);
    SyncRequest request;
    request.format = SyncFormat::kCompressed;
    request.excluded = excluded_;

    ranks.Synchronize(step, request, &values);

    for (const ElementRange& range : excluded_) {
      for (int64_t i = range.begin; i < range.end; ++i) {
        ASSERT_EQ(values[0][size_t(i)], 0) << "element " << i;
      }
    }
    for (int rank = 0; rank < num_ranks(); ++rank) {
      for (const uint8_t flag : ranks.sync(rank).woken()) EXPECT_EQ(flag, 0);
    }
  }
  const std::vector<float> owed = Owed(&ranks, num_ranks(), GetParam().nodes);
  for (const ElementRange& range : excluded_) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      EXPECT_EQ(owed[size_t(i)], 0) << "element " << i;
    }
  }
}

TEST_P(ExcludedTest, AValueThereWakesItsRangeOnAllRanksAndIsOwed) {
  SyncedRanks ranks(num_ranks(), kSize, options());
  Vectors values = RandomVectors(num_ranks(), kSize, 1);
  ClearExcluded(excluded_, &values);
  values.back()[1399] = 5;
  values[0][100] = 0.25f;
  const std::vector<double> mean = Mean(values);
  SyncRequest request;
  request.format = SyncFormat::kCompressed;
  request.excluded = excluded_;

  ranks.Synchronize(0, request, &values);

  for (int rank = 0; rank < num_ranks(); ++rank) {
    EXPECT_THAT(ranks.sync(rank).woken(), ::testing::ElementsAre(0, 1, 0, 1, 0))
        << "rank " << rank;
  }
  const std::vector<float> owed = Owed(&ranks, num_ranks(), GetParam().nodes);
  for (size_t i = 0; i < owed.size(); ++i) {
    ASSERT_NEAR(values[0][i] + owed[i], mean[i], 1e-5) << "element " << i;
  }
  EXPECT_NEAR(owed[1399], 5.0 / num_ranks(), 1e-6);
}

TEST_P(ExcludedTest, AValueThatIsNotFiniteReachesAllRanks) {
  SyncedRanks ranks(num_ranks(), kSize, options());
  Vectors values = RandomVectors(num_ranks(), kSize, 1);
  ClearExcluded(excluded_, &values);
  values[0][1200] = std::nanf("");

  ranks.ranks().Run([&](int rank) {
    GradientSync& sync = ranks.sync(rank);
    SyncRequest request{absl::MakeSpan(values[size_t(rank)]),
                        SyncFormat::kCompressed};
    request.excluded = excluded_;
    ASSERT_TRUE(sync.Begin(0, request).ok());
    ASSERT_TRUE(sync.Wait(Soon()).ok());
    double sum = 0;
    for (const float value : values[size_t(rank)]) sum += std::abs(value);
    EXPECT_FALSE(std::isfinite(sum)) << "rank " << rank;
    EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
  });
}

INSTANTIATE_TEST_SUITE_P(
    Codecs, ExcludedTest,
    ::testing::Values(ExcludedCase{"sign(block=0)", {0}},
                      ExcludedCase{"sign(block=0)", {0, 1, 2}},
                      ExcludedCase{"sign(block=0)", {0, 0, 1, 1}},
                      ExcludedCase{"sign(block=256)", {0, 1, 2}},
                      ExcludedCase{"int(4)", {0, 1}},
                      ExcludedCase{"int(8)", {0, 0, 1, 1}}));

TEST(ExcludedTest, DeadRowsDoNotCountInTheScale) {
  SyncedRanks ranks(1, 100);
  Vectors values(1, std::vector<float>(100));
  for (size_t i = 0; i < 25; ++i) values[0][i] = 2;
  const std::vector<ElementRange> excluded = {{25, 100}};
  SyncRequest request;
  request.format = SyncFormat::kCompressed;
  request.excluded = excluded;

  ranks.Synchronize(0, request, &values);

  EXPECT_NEAR(values[0][0], 2, 1e-6);
  EXPECT_EQ(values[0][99], 0);
}

TEST(ExcludedTest, RangesOutOfOrderAreRefused) {
  SyncedRanks ranks(1, 100);
  std::vector<float> values(100);
  const std::vector<ElementRange> overlapping = {{10, 20}, {19, 30}};
  const std::vector<ElementRange> beyond = {{90, 101}};
  for (const auto& excluded : {overlapping, beyond}) {
    SyncRequest request{absl::MakeSpan(values), SyncFormat::kCompressed};
    request.excluded = excluded;
    EXPECT_EQ(ranks.sync(0).Begin(0, request).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(ResetTest, WhatIsOwedIsForgottenWithTheQuantity) {
  SyncedRanks ranks(2, 500);
  SyncedRanks fresh(2, 500);
  Vectors values = RandomVectors(2, 500, 1);
  ranks.Synchronize(0, SyncFormat::kCompressed, &values);
  Vectors next = RandomVectors(2, 500, 2);
  Vectors expected = next;
  SyncRequest request;
  request.format = SyncFormat::kCompressed;
  request.resets_residuals = true;

  ranks.Synchronize(1, request, &next);
  fresh.Synchronize(1, SyncFormat::kCompressed, &expected);

  EXPECT_TRUE(SameBits(next[0], expected[0]));
  Vectors last = RandomVectors(2, 500, 3);
  Vectors last_expected = last;
  ranks.Synchronize(2, SyncFormat::kCompressed, &last);
  fresh.Synchronize(2, SyncFormat::kCompressed, &last_expected);
  EXPECT_TRUE(SameBits(last[0], last_expected[0]));
}

}  // namespace
}  // namespace deltapipe
