// Transactions of GradientSync that begin before their values are there.
#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/testing/random_ranges.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Case = std::tuple<int, std::string>;  // ranks, plain codec

class EarlySyncTest : public ::testing::TestWithParam<Case> {
 protected:
  const int num_ranks_ = std::get<0>(GetParam());
};

// Values come in random portions, each rank's at its own pace; what is not
// ready is NaN, which would show in the mean.
TEST_P(EarlySyncTest, ResultDoesNotDependOnWhenValuesAreReady) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  for (uint32_t step = 0; step < 12; ++step) {
    const int64_t size = 1 + static_cast<int64_t>(random() % 6000);
    GradientSyncOptions options;
    options.plain_codec = std::get<1>(GetParam());
    options.order = RandomOrder(size, &random);
    options.bucket_elements_per_rank = 1 + static_cast<int64_t>(random() % 200);
    options.max_message_bytes = step % 2 == 0 ? 64 : 16 << 20;
    const Vectors values = RandomVectors(num_ranks_, size, seed + step);
    Vectors expected = values;
    SyncedRanks ranks(num_ranks_, size, options);
    ranks.Synchronize(step, SyncFormat::kPlain, &expected);
    const std::vector<size_t> indices = Indices(options.order);
    Vectors early(values.size());
    const uint64_t paces = random();

    ranks.ranks().Run([&](int rank) {
      std::mt19937_64 pace(paces + static_cast<uint64_t>(rank));
      const size_t i = static_cast<size_t>(rank);
      early[i].assign(values[i].size(),
                      std::numeric_limits<float>::quiet_NaN());
      GradientSync& sync = ranks.sync(rank);
      ASSERT_TRUE(sync.BeginEarly(step + 1, {absl::MakeSpan(early[i])}).ok());
      const size_t portion = 1 + pace() % indices.size();
      for (size_t n = 0; n < indices.size(); ++n) {
        early[i][indices[n]] = values[i][indices[n]];
        if (pace() % portion == 0) sync.Ready(static_cast<int64_t>(n) + 1);
        if (pace() % portion == 0) std::this_thread::yield();
      }
      sync.Ready(size);
      const absl::Status status = sync.Wait(Soon());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
    });

    for (const std::vector<float>& result : early) {
      EXPECT_TRUE(SameBits(result, expected[0])) << "step " << step;
    }
    const double tolerance = options.plain_codec == "none" ? 1e-6 : 0.03;
    ExpectNear(expected[0], Mean(values), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ranks, EarlySyncTest,
    ::testing::Combine(::testing::Values(1, 2, 3, 4),
                       ::testing::Values("none", "cast(bf16)")),
    [](const auto& info) {
      return absl::StrCat(std::get<1>(info.param) == "none" ? "Fp32" : "Bf16",
                          "Ranks", std::get<0>(info.param));
    });

/// Two ranks whose vector of 1000 elements travels in five buckets, the last
/// elements first.
GradientSyncOptions FiveBuckets() {
  GradientSyncOptions options;
  options.order = {{500, 1000}, {0, 500}};
  options.bucket_elements_per_rank = 100;
  return options;
}

TEST(EarlySyncTest, InBf16BucketsHaveTheBitsOfTheWholeVector) {
  GradientSyncOptions options = FiveBuckets();
  options.plain_codec = "cast(bf16)";
  Vectors in_buckets = RandomVectors(3, 1000, 1);
  options.bucket_elements_per_rank = 20;
  Vectors whole = in_buckets;
  SyncedRanks cut(3, 1000, options);
  options.may_begin_early = false;
  SyncedRanks uncut(3, 1000, options);

  cut.Synchronize(0, SyncFormat::kPlain, &in_buckets);
  uncut.Synchronize(0, SyncFormat::kPlain, &whole);

  EXPECT_TRUE(SameBits(in_buckets[0], whole[0]));
  EXPECT_EQ(uncut.ranks().group(0)->channel(1)->counters().frames_sent, 2);
  EXPECT_EQ(cut.ranks().group(0)->channel(1)->counters().frames_sent, 16);
}

// ---- compressed ----

/// Each bucket is a vector of its own: one of the order's values, shards and
/// residuals of their own, and nothing else.
Vectors Picked(const SyncBucket& bucket, const Vectors& vectors) {
  Vectors picked;
  for (const std::vector<float>& vector : vectors) {
    std::vector<float>& values = picked.emplace_back();
    for (const size_t i : Indices(bucket.ranges)) values.push_back(vector[i]);
  }
  return picked;
}

class CompressedBucketsTest
    : public ::testing::TestWithParam<std::tuple<int, const char*>> {
 protected:
  const int num_ranks_ = std::get<0>(GetParam());
};

// Portions come at each rank's own pace, as above; a vector of the same buckets
// that begins whole has the same bits, and so have the buckets one by one.
TEST_P(CompressedBucketsTest, AreVectorsOfTheirOwnWheneverTheyAreReady) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  // Two of the largest buckets, of four ranks, at least.
  const int64_t size = 2400 + static_cast<int64_t>(random() % 4000);
  GradientSyncOptions options;
  options.compressed_codec = std::get<1>(GetParam());
  options.order = RandomOrder(size, &random);
  options.bucket_elements_per_rank = 50 + static_cast<int64_t>(random() % 100);
  const auto buckets = CutIntoBuckets(
      options.order, size, 2 * options.bucket_elements_per_rank * num_ranks_);
  ASSERT_GT(buckets.size(), 1);
  SyncedRanks early(num_ranks_, size, options);
  SyncedRanks whole(num_ranks_, size, options);
  std::vector<std::unique_ptr<SyncedRanks>> parts;
  GradientSyncOptions plain_options = options;
  plain_options.order.clear();
  for (const SyncBucket& bucket : buckets) {
    parts.push_back(std::make_unique<SyncedRanks>(
        num_ranks_, bucket.num_elements, plain_options));
  }
  const std::vector<size_t> indices = Indices(options.order);

  for (uint32_t step = 0; step < 6; ++step) {
    const Vectors values = RandomVectors(num_ranks_, size, seed + step);
    const uint64_t paces = random();
    Vectors result(values.size());
    early.ranks().Run([&](int rank) {
      std::mt19937_64 pace(paces + static_cast<uint64_t>(rank));
      const size_t i = static_cast<size_t>(rank);
      result[i].assign(values[i].size(),
                       std::numeric_limits<float>::quiet_NaN());
      GradientSync& sync = early.sync(rank);
      ASSERT_TRUE(sync.BeginEarly(step, {absl::MakeSpan(result[i]),
                                         SyncFormat::kCompressed})
                      .ok());
      const size_t portion = 1 + pace() % indices.size();
      for (size_t n = 0; n < indices.size(); ++n) {
        result[i][indices[n]] = values[i][indices[n]];
        if (pace() % portion == 0) sync.Ready(static_cast<int64_t>(n) + 1);
      }
      sync.Ready(size);
      const absl::Status status = sync.Wait(Soon());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
    });

    Vectors expected = values;
    whole.Synchronize(step, SyncFormat::kCompressed, &expected);
    for (const std::vector<float>& vector : result) {
      ASSERT_TRUE(SameBits(vector, expected[0])) << "step " << step;
    }
    const bool is_random =
        std::string(std::get<1>(GetParam())).find("stochastic") !=
        std::string::npos;
    for (size_t b = 0; b < buckets.size(); ++b) {
      Vectors part = Picked(buckets[b], values);
      parts[b]->Synchronize(step, SyncFormat::kCompressed, &part);
      // Only the first has the random numbers of a vector of its own.
      if (is_random && b > 0) continue;
      EXPECT_TRUE(SameBits(part[0], Picked(buckets[b], expected)[0]))
          << "bucket " << b << ", step " << step;
    }
  }
}

TEST_P(CompressedBucketsTest, ExcludedRowsThatBucketsCutAreWokenAsOne) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  const int64_t size = 3000;
  GradientSyncOptions options;
  options.compressed_codec = std::get<1>(GetParam());
  options.order = RandomOrder(size, &random);
  options.bucket_elements_per_rank = 50;
  SyncedRanks ranks(num_ranks_, size, options);
  const std::vector<ElementRange> rows = RandomRows(size, &random);
  Vectors values = RandomVectors(num_ranks_, size, seed);
  const std::vector<uint8_t> expected = WakeSomeRows(rows, &values, &random);
  const std::vector<double> mean = Mean(values);
  SyncRequest request;
  request.format = SyncFormat::kCompressed;
  request.excluded = rows;

  ranks.Synchronize(0, request, &values);

  std::vector<SyncResiduals> residuals;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const auto woken = ranks.sync(rank).woken();
    EXPECT_EQ(std::vector<uint8_t>(woken.begin(), woken.end()), expected);
    residuals.push_back(*ranks.sync(rank).TakeResiduals());
  }
  const auto owed = FoldResiduals(size, {}, residuals);
  ASSERT_TRUE(owed.ok()) << owed.status();
  for (size_t i = 0; i < owed->size(); ++i) {
    ASSERT_NEAR(values[0][i] + (*owed)[i], mean[i], 1e-5) << "element " << i;
  }
  for (const ElementRange& row : rows) {
    for (int64_t i = row.begin; i < row.end; ++i) {
      EXPECT_EQ(values[0][static_cast<size_t>(i)], 0) << "element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ranks, CompressedBucketsTest,
    ::testing::Combine(::testing::Values(1, 2, 3, 4),
                       ::testing::Values("sign(block=0)", "sign(block=64)",
                                         "int(4,round=stochastic)")));

struct BucketCase {
  SyncFormat format;
  const char* codec;
  int64_t num_ready;  // elements of the first bucket, or some more
  int num_buckets;    // each of two frames
  double tolerance;
};

class BucketTest : public ::testing::TestWithParam<BucketCase> {};

TEST_P(BucketTest, TravelsBeforeTheNextIsReady) {
  const BucketCase& test = GetParam();
  GradientSyncOptions options = FiveBuckets();
  (test.format == SyncFormat::kPlain ? options.plain_codec
                                     : options.compressed_codec) = test.codec;
  SyncedRanks ranks(2, 1000, options);
  Vectors values = RandomVectors(2, 1000, 1);
  const std::vector<double> expected = Mean(values);

  ranks.ranks().Run([&](int rank) {
    GradientSync& sync = ranks.sync(rank);
    const size_t i = static_cast<size_t>(rank);
    ASSERT_TRUE(
        sync.BeginEarly(0, {absl::MakeSpan(values[i]), test.format}).ok());
    sync.Ready(test.num_ready);
    // Both hops or phases of the first bucket.
    const FrameChannel* peer = ranks.ranks().group(rank)->channel(1 - rank);
    const Deadline deadline = Soon();
    while (peer->counters().frames_received < 2 && !deadline.has_passed()) {
      std::this_thread::yield();
    }
    EXPECT_GE(peer->counters().frames_received, 2);
    sync.Ready(1000);
    ASSERT_TRUE(sync.Wait(Soon()).ok());
    EXPECT_EQ(peer->counters().frames_received, 2 * test.num_buckets);
  });

  ExpectNear(values[0], expected, test.tolerance);
  EXPECT_TRUE(SameBits(values[0], values[1]));
}

INSTANTIATE_TEST_SUITE_P(
    Codecs, BucketTest,
    ::testing::Values(
        BucketCase{SyncFormat::kPlain, "none", 399, 5, 1e-6},
        BucketCase{SyncFormat::kPlain, "cast(bf16)", 500, 2, 0.03},
        BucketCase{SyncFormat::kCompressed, "identity", 500, 2, 1e-6}));

TEST(EarlySyncTest, VectorsOfLessThanTwoBucketsHaveTheBitsOfOneWithoutOrder) {
  GradientSyncOptions options;
  options.order = {{500, 1000}, {0, 500}};
  options.bucket_elements_per_rank = 167;
  Vectors with_order = RandomVectors(3, 1000, 1);
  Vectors without = with_order;
  SyncedRanks ordered(3, 1000, options);
  SyncedRanks plain(3, 1000);

  ordered.Synchronize(0, SyncFormat::kPlain, &with_order);
  plain.Synchronize(0, SyncFormat::kPlain, &without);

  EXPECT_TRUE(SameBits(with_order[0], without[0]));
  EXPECT_EQ(ordered.ranks().group(0)->channel(1)->counters().frames_sent,
            plain.ranks().group(0)->channel(1)->counters().frames_sent);
}

TEST(EarlySyncTest, BucketsSendAsManyBytesAsOne) {
  Vectors values = RandomVectors(2, 1000, 1);
  SyncedRanks ranks(2, 1000, FiveBuckets());

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  EXPECT_EQ(ranks.sync(0).counters().payload_bytes, 4000);
  EXPECT_EQ(ranks.sync(0).counters().raw_bytes, 4000);
}

TEST(EarlySyncTest, ANonFiniteValueReachesAllRanks) {
  SyncedRanks ranks(3, 1000, FiveBuckets());
  Vectors values = RandomVectors(3, 1000, 1);
  values[1][700] = std::numeric_limits<float>::infinity();

  ranks.Synchronize(0, SyncFormat::kPlain, &values, SyncVerdict::kAbort);

  for (const std::vector<float>& result : values) {
    EXPECT_EQ(result[700], std::numeric_limits<float>::infinity());
  }
}

TEST(EarlySyncTest, AbandonEndsTheTransactionWithItsReason) {
  SyncedRanks ranks(2, 1000, FiveBuckets());

  ranks.ranks().Run([&](int rank) {
    std::vector<float> values(1000, 1.0f);
    GradientSync& sync = ranks.sync(rank);
    ASSERT_TRUE(sync.BeginEarly(6, {absl::MakeSpan(values)}).ok());
    sync.Ready(400);
    if (rank == 0) {
      sync.Abandon(absl::InternalError("the backward has failed"));
    } else {
      sync.Ready(1000);
    }
    const absl::Status status = sync.Wait(Soon());
    EXPECT_FALSE(status.ok()) << "rank " << rank;
    if (rank == 0) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
      EXPECT_THAT(
          status.ToString(),
          AllOf(HasSubstr("step 7"), HasSubstr("the backward has failed")));
    }
    EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
  });
}

TEST(EarlySyncTest, DeadlineNamesTheSilentPeer) {
  SyncedRanks ranks(2, 1000, FiveBuckets());
  std::vector<float> values(1000);
  GradientSync& sync = ranks.sync(0);
  ASSERT_TRUE(sync.BeginEarly(6, {absl::MakeSpan(values)}).ok());
  sync.Ready(1000);

  const absl::Status status =
      sync.Wait(Deadline::After(std::chrono::milliseconds(30)));

  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.ToString(),
              AllOf(HasSubstr("step 7"), HasSubstr("waiting for rank 1")));
}

TEST(EarlySyncTest, DeadlineSaysThatTheOwnValuesAreMissing) {
  for (const char* codec : {"none", "cast(bf16)"}) {
    GradientSyncOptions options = FiveBuckets();
    options.plain_codec = codec;
    SyncedRanks ranks(2, 1000, options);
    std::vector<float> values(1000);
    GradientSync& sync = ranks.sync(0);
    ASSERT_TRUE(sync.BeginEarly(6, {absl::MakeSpan(values)}).ok());
    sync.Ready(199);

    const absl::Status status =
        sync.Wait(Deadline::After(std::chrono::milliseconds(30)));

    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(status.ToString(), HasSubstr("own values, of which 199 of 1000 "
                                             "were ready"));
  }
}

TEST(EarlySyncTest, DestructionEndsATransactionThatWaitsForItsValues) {
  SyncedRanks ranks(2, 1000);
  std::vector<float> values(1000);
  auto sync = GradientSync::Create(FiveBuckets(), ranks.ranks().group(0), 1000);
  ASSERT_TRUE(sync.ok());
  ASSERT_TRUE((*sync)->BeginEarly(7, {absl::MakeSpan(values)}).ok());

  sync->reset();
}

TEST(EarlySyncTest, RanksThatCutOtherwiseFindOut) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);
  std::vector<std::string> texts(2);

  ranks.Run([&](int rank) {
    GradientSyncOptions options = FiveBuckets();
    options.bucket_elements_per_rank += rank * 50;
    auto sync = GradientSync::Create(options, ranks.group(rank), 1000);
    ASSERT_TRUE(sync.ok());
    std::vector<float> values(1000);
    ASSERT_TRUE((*sync)->Begin(0, {absl::MakeSpan(values)}).ok());
    texts[static_cast<size_t>(rank)] = (*sync)->Wait(Soon()).ToString();
  });

  EXPECT_THAT(absl::StrCat(texts[0], texts[1]),
              HasSubstr("disagree about format or codec"));
}

TEST(EarlySyncTest, AnOrderOfAnotherVectorIsRefused) {
  LoopbackRanks ranks = *LoopbackRanks::Create(1);
  const auto text_of = [&](const std::vector<ElementRange>& order) {
    GradientSyncOptions options;
    options.order = order;
    return GradientSync::Create(options, ranks.group(0), 10)
        .status()
        .ToString();
  };

  EXPECT_THAT(text_of({{5, 10}, {0, 4}}),
              HasSubstr("range 5 to 10 after element 4"));
  EXPECT_THAT(text_of({{5, 10}, {0, 6}}), HasSubstr("disjoint"));
  EXPECT_THAT(text_of({{0, 9}}), HasSubstr("9 elements, expected 10"));
  EXPECT_EQ(text_of({{5, 10}, {0, 5}}), "OK");
}

TEST(SyncBucketsTest, BucketsAreEvenAndCoverTheOrder) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 100; ++trial) {
    const int64_t size = 1 + static_cast<int64_t>(random() % 5000);
    const int64_t least = 1 + static_cast<int64_t>(random() % 700);
    const std::vector<ElementRange> order = RandomOrder(size, &random);

    const std::vector<SyncBucket> buckets = CutIntoBuckets(order, size, least);

    std::vector<ElementRange> ranges;
    int64_t done = 0;
    for (const SyncBucket& bucket : buckets) {
      ranges.insert(ranges.end(), bucket.ranges.begin(), bucket.ranges.end());
      done += bucket.num_elements;
      EXPECT_EQ(bucket.ready_at, done);
      EXPECT_GE(bucket.num_elements, std::min(least, size));
      EXPECT_LT(bucket.num_elements, 2 * least);
    }
    EXPECT_EQ(done, size);
    if (buckets.size() > 1) {
      EXPECT_EQ(Indices(ranges), Indices(order));
    } else {
      EXPECT_LT(size, 2 * least);
      EXPECT_EQ(ranges.size(), 1u);
    }
  }
}

}  // namespace
}  // namespace deltapipe
