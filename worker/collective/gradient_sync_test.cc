#include "worker/collective/gradient_sync.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/loopback_ranks.h"
#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 20260;

using Shape = std::tuple<int, int64_t>;  // ranks, elements

class GradientSyncShapeTest : public ::testing::TestWithParam<Shape> {
 protected:
  const int num_ranks_ = std::get<0>(GetParam());
  const int64_t num_elements_ = std::get<1>(GetParam());
};

TEST_P(GradientSyncShapeTest, PlainIsTheMean) {
  Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed);
  const std::vector<double> expected = Mean(values);
  SyncedRanks ranks(num_ranks_, num_elements_);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST_P(GradientSyncShapeTest, BFloat16IsTheMeanOfRoundedValuesRounded) {
  GradientSyncOptions options;
  options.plain_codec = "cast(bf16)";
  Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed);
  const std::vector<double> mean = Mean(values);
  SyncedRanks ranks(num_ranks_, num_elements_, options);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  // Two roundings of 2^-9 relative to the largest contribution.
  ExpectNear(values[0], mean, 5.0 * 0x1.0p-8);
  if (num_ranks_ == 1) {
    ExpectNear(values[0], mean, 0);
  } else {
    for (const float value : values[0]) {
      EXPECT_EQ(value, BFloat16ToFloat(FloatToBFloat16(value)));
    }
  }
}

TEST_P(GradientSyncShapeTest, CompressedEqualsSerialTranscription) {
  SerialCompressedAllReduce serial(num_ranks_, num_elements_);
  SyncedRanks ranks(num_ranks_, num_elements_);

  for (uint32_t step = 0; step < 4; ++step) {
    Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed + step);
    const std::vector<double> expected = serial.Run(InDouble(values));
    ranks.Synchronize(step, SyncFormat::kCompressed, &values);
    ExpectNear(values[0], expected, 1e-5);
  }

  double squares = 0;
  for (const double e : serial.worker_error(0)) squares += e * e;
  EXPECT_NEAR(ranks.sync(0).counters().worker_residual_norm, std::sqrt(squares),
              1e-4 * std::sqrt(squares));
}

TEST_P(GradientSyncShapeTest, IdentityCompressorIsTheMean) {
  GradientSyncOptions options;
  options.compressed_codec = "identity";
  SyncedRanks ranks(num_ranks_, num_elements_, options);

  for (uint32_t step = 0; step < 2; ++step) {
    Vectors values = RandomVectors(num_ranks_, num_elements_, kSeed + step);
    const std::vector<double> expected = Mean(values);
    ranks.Synchronize(step, SyncFormat::kCompressed, &values);
    ExpectNear(values[0], expected, 1e-6);
  }
  EXPECT_EQ(ranks.sync(0).counters().worker_residual_norm, 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GradientSyncShapeTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 5),
                                            ::testing::Values(0, 1, 7, 8, 9,
                                                              1000, 4097)),
                         [](const auto& info) {
                           return absl::StrCat("Ranks", std::get<0>(info.param),
                                               "Elements",
                                               std::get<1>(info.param));
                         });

class GradientSyncCodecTest : public ::testing::TestWithParam<std::string> {};

// Error feedback sends what was lost before: over many steps the sum of the
// results is the sum of the inputs but for the last residuals.
TEST_P(GradientSyncCodecTest, FeedbackKeepsTheSumOfResults) {
  GradientSyncOptions options;
  options.compressed_codec = GetParam();
  SyncedRanks ranks(3, 1001, options);
  std::vector<double> sum_of_means(1001);
  std::vector<double> sum_of_results(1001);

  for (uint32_t step = 0; step < 20; ++step) {
    Vectors values = RandomVectors(3, 1001, kSeed + step);
    const std::vector<double> mean = Mean(values);
    ranks.Synchronize(step, SyncFormat::kCompressed, &values);
    for (size_t i = 0; i < 1001; ++i) {
      sum_of_means[i] += mean[i];
      sum_of_results[i] += values[0][i];
    }
  }

  double difference = 0;
  for (size_t i = 0; i < 1001; ++i) {
    difference += std::pow(sum_of_means[i] - sum_of_results[i], 2);
  }
  double residuals = 0;
  double server = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const GradientSyncCounters counters = ranks.sync(rank).counters();
    residuals += counters.worker_residual_norm / 3;
    server += std::pow(counters.server_residual_norm, 2);
  }
  EXPECT_LE(std::sqrt(difference), residuals + std::sqrt(server) + 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Codecs, GradientSyncCodecTest,
                         ::testing::Values("sign(block=0)", "sign(block=128)",
                                           "int(4)", "int(8)", "cast(bf16)",
                                           "none", "identity"));

TEST(GradientSyncTest, SplitMessagesGiveTheSameBits) {
  for (const SyncFormat format :
       {SyncFormat::kPlain, SyncFormat::kCompressed}) {
    Vectors whole = RandomVectors(3, 5000, kSeed);
    Vectors split = whole;
    GradientSyncOptions options;
    options.max_message_bytes = 36;
    SyncedRanks whole_ranks(3, 5000);
    SyncedRanks split_ranks(3, 5000, options);

    whole_ranks.Synchronize(0, format, &whole);
    split_ranks.Synchronize(0, format, &split);

    EXPECT_TRUE(SameBits(whole[0], split[0]));
    EXPECT_EQ(whole_ranks.sync(1).counters().payload_bytes,
              split_ranks.sync(1).counters().payload_bytes);
  }
}

TEST(GradientSyncTest, MoreThanTheWindowsPassesWithoutDeadlock) {
  FrameChannelOptions channel_options;
  channel_options.window_bytes = 64 << 10;
  GradientSyncOptions options;
  options.max_message_bytes = 4 << 10;
  options.compressed_codec = "identity";
  for (const SyncFormat format :
       {SyncFormat::kPlain, SyncFormat::kCompressed}) {
    Vectors values = RandomVectors(3, 300000, kSeed);
    const std::vector<double> expected = Mean(values);
    SyncedRanks ranks(3, 300000, options, channel_options);

    ranks.Synchronize(0, format, &values);

    ExpectNear(values[0], expected, 1e-6);
  }
}

/// Ranges of `size` elements in tensors of 1 to 17, the last one first, as
/// backward has them.
std::vector<ElementRange> SmallTensors(int64_t size) {
  std::vector<ElementRange> ranges;
  for (int64_t begin = 0; begin < size;) {
    const int64_t end = std::min<int64_t>(size, begin + 1 + begin % 17);
    ranges.push_back({begin, end});
    begin = end;
  }
  std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

class OneBitBudgetTest
    : public ::testing::TestWithParam<std::tuple<int, bool>> {};

// Framing and acknowledgements included; and tensors, however small, are not
// padded: a vector is, by less than 8 elements a rank, or a bucket.
TEST_P(OneBitBudgetTest, OneBitStaysBelowItsBudget) {
  const auto [num_ranks, has_buckets] = GetParam();
  // So large that acknowledgements, which come by time, do not count.
  constexpr int64_t kSize = 1000003;
  GradientSyncOptions options;
  options.order = SmallTensors(kSize);
  if (has_buckets) options.bucket_elements_per_rank = 20480;
  Vectors values = RandomVectors(num_ranks, kSize, kSeed);
  SyncedRanks ranks(num_ranks, kSize, options);

  ranks.Synchronize(0, SyncFormat::kCompressed, &values);

  for (int rank = 0; rank < num_ranks; ++rank) {
    int64_t bytes_on_wire = 0;
    int64_t frames = 0;
    for (int peer = 0; peer < num_ranks; ++peer) {
      if (peer == rank) continue;
      FrameChannel* channel = ranks.ranks().group(rank)->channel(peer);
      bytes_on_wire += channel->channel_counters().bytes_sent;
      frames += channel->counters().frames_sent;
    }
    const int64_t num_buckets = frames / (2 * (num_ranks - 1));
    EXPECT_EQ(frames, num_buckets * 2 * (num_ranks - 1));
    if (has_buckets) {
      EXPECT_GE(num_buckets, 3);
    } else {
      EXPECT_EQ(num_buckets, 1);
    }
    const double share = 2.0 * (num_ranks - 1) / num_ranks;
    const GradientSyncCounters counters = ranks.sync(rank).counters();
    EXPECT_LE(8.0 * double(bytes_on_wire) / kSize, 2.05);
    // A scale a message, and what a shard is rounded up by.
    EXPECT_LE(counters.payload_bytes,
              share * kSize / 8 +
                  double(num_buckets) * 2 * (num_ranks - 1) * 5 +
                  double(num_buckets) * 16);
    EXPECT_LE(double(counters.payload_bytes) - share * kSize / 8, 1024);
    EXPECT_NEAR(double(counters.raw_bytes), share * 4 * kSize, 8);
  }
}

INSTANTIATE_TEST_SUITE_P(RanksBuckets, OneBitBudgetTest,
                         ::testing::Combine(::testing::Values(2, 3, 4, 8),
                                            ::testing::Bool()));

TEST(GradientSyncTest, AbortKeepsTheResidualsOfBefore) {
  SerialCompressedAllReduce serial(2, 999);
  SyncedRanks ranks(2, 999);

  Vectors first = RandomVectors(2, 999, 1);
  serial.Run(InDouble(first));
  ranks.Synchronize(0, SyncFormat::kCompressed, &first);
  Vectors aborted = RandomVectors(2, 999, 2);
  ranks.Synchronize(1, SyncFormat::kCompressed, &aborted, SyncVerdict::kAbort);
  Vectors last = RandomVectors(2, 999, 3);
  const std::vector<double> expected = serial.Run(InDouble(last));
  ranks.Synchronize(2, SyncFormat::kCompressed, &last);

  ExpectNear(last[0], expected, 1e-5);
  EXPECT_EQ(ranks.sync(0).counters().aborted, 1);
  EXPECT_EQ(ranks.sync(0).counters().transactions, 3);
}

class GradientSyncNonFiniteTest
    : public ::testing::TestWithParam<std::tuple<std::string, float>> {};

TEST_P(GradientSyncNonFiniteTest, ReachesAllRanksAndNoResidual) {
  const auto& [codec, bad_value] = GetParam();
  GradientSyncOptions options;
  options.compressed_codec = codec;
  SyncedRanks ranks(3, 500, options);
  SyncedRanks undisturbed(3, 500, options);
  Vectors first = RandomVectors(3, 500, 1);
  Vectors first_again = first;
  ranks.Synchronize(0, SyncFormat::kCompressed, &first);
  undisturbed.Synchronize(0, SyncFormat::kCompressed, &first_again);

  Vectors bad = RandomVectors(3, 500, 2);
  bad[1][499] = bad_value;
  ranks.ranks().Run([&](int rank) {
    std::vector<float>& values = bad[static_cast<size_t>(rank)];
    GradientSync& sync = ranks.sync(rank);
    ASSERT_TRUE(
        sync.Begin(1, {absl::MakeSpan(values), SyncFormat::kCompressed}).ok());
    ASSERT_TRUE(sync.Wait(Soon()).ok());
    double sum = 0;
    for (const float value : values) sum += std::abs(value);
    EXPECT_FALSE(std::isfinite(sum)) << "rank " << rank;
    EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
  });

  Vectors last = RandomVectors(3, 500, 3);
  Vectors last_again = last;
  ranks.Synchronize(2, SyncFormat::kCompressed, &last);
  undisturbed.Synchronize(2, SyncFormat::kCompressed, &last_again);
  EXPECT_TRUE(SameBits(last[0], last_again[0]));
}

INSTANTIATE_TEST_SUITE_P(
    Values, GradientSyncNonFiniteTest,
    ::testing::Combine(
        ::testing::Values("sign(block=0)", "sign(block=64)", "int(8)",
                          "identity"),
        ::testing::Values(std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity())));

TEST(GradientSyncTest, RefusesToCommitValuesThatAreNotFinite) {
  SyncedRanks ranks(1, 100);
  std::vector<float> values(100, 1.0f);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  GradientSync& sync = ranks.sync(0);

  ASSERT_TRUE(
      sync.Begin(0, {absl::MakeSpan(values), SyncFormat::kCompressed}).ok());
  ASSERT_TRUE(sync.Wait(Soon()).ok());
  const absl::Status status = sync.Finish(SyncVerdict::kCommit);

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(sync.counters().worker_residual_norm, 0);
  Vectors good = {std::vector<float>(100, 2.0f)};
  ranks.Synchronize(1, SyncFormat::kCompressed, &good);
  EXPECT_THAT(good[0], Each(2.0f));
}

// Replicas that did unequal work send n * weight * value.
TEST(GradientSyncTest, WeightsInTheValuesGiveTheWeightedMean) {
  Vectors values = RandomVectors(2, 100, kSeed);
  std::vector<double> expected(100);
  for (size_t i = 0; i < 100; ++i) {
    expected[i] = 0.25 * values[0][i] + 0.75 * values[1][i];
    values[0][i] *= 2 * 0.25f;
    values[1][i] *= 2 * 0.75f;
  }
  SyncedRanks ranks(2, 100);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST(GradientSyncTest, SubnormalAndHugeValuesHaveFiniteScales) {
  for (const float value : {1e-40f, 3e38f}) {
    Vectors values(2, std::vector<float>(64, value));
    SyncedRanks ranks(2, 64);

    ranks.Synchronize(0, SyncFormat::kCompressed, &values);

    EXPECT_THAT(values[0], Each(value));
  }
}

TEST(GradientSyncTest, ZeroCountsAsPositive) {
  Vectors values = {{0.0f, -0.0f, 2.0f, -2.0f}};
  SyncedRanks ranks(1, 4);

  ranks.Synchronize(0, SyncFormat::kCompressed, &values);

  const float scale = std::sqrt(2.0f);
  EXPECT_THAT(values[0], ::testing::ElementsAre(scale, scale, scale, -scale));
}

TEST(GradientSyncTest, DeadlineNamesTheSilentPeer) {
  for (const SyncFormat format :
       {SyncFormat::kPlain, SyncFormat::kCompressed}) {
    SyncedRanks ranks(3, 1000);
    std::vector<float> values(1000);
    GradientSync& sync = ranks.sync(0);

    ASSERT_TRUE(sync.Begin(118, {absl::MakeSpan(values), format}).ok());
    const absl::Status status =
        sync.Wait(Deadline::After(std::chrono::milliseconds(30)));

    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    const std::string peer = format == SyncFormat::kPlain ? "rank 2" : "rank 1";
    EXPECT_THAT(status.ToString(),
                AllOf(HasSubstr("step 119"), HasSubstr("waiting for " + peer)));
    EXPECT_EQ(sync.Finish(SyncVerdict::kCommit).code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

TEST(GradientSyncTest, CancelWakesWait) {
  SyncedRanks ranks(2, 1000);
  std::vector<float> values(1000);
  GradientSync& sync = ranks.sync(0);
  ASSERT_TRUE(
      sync.Begin(7, {absl::MakeSpan(values), SyncFormat::kCompressed}).ok());

  ranks.ranks().group(0)->Cancel(absl::CancelledError("the job was cancelled"));
  const absl::Status status = sync.Wait(Soon());

  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(status.ToString(), HasSubstr("the job was cancelled"));
  EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
}

TEST(GradientSyncTest, DestructionEndsATransaction) {
  SyncedRanks ranks(2, 1000);
  std::vector<float> values(1000);
  auto sync = GradientSync::Create({}, ranks.ranks().group(0), 1000);
  ASSERT_TRUE(sync.ok());
  ASSERT_TRUE((*sync)->Begin(7, {absl::MakeSpan(values)}).ok());

  sync->reset();

  double mine = 0;
  EXPECT_FALSE(ranks.ranks()
                   .group(0)
                   ->AllGather(7, 1, absl::MakeSpan(&mine, 1), Soon())
                   .ok());
}

TEST(GradientSyncTest, RanksThatDisagreeFindOut) {
  struct Case {
    uint32_t step[2];
    SyncFormat format[2];
    const char* text;
  };
  const SyncFormat kPlain = SyncFormat::kPlain;
  const SyncFormat kCompressed = SyncFormat::kCompressed;
  for (const Case& test :
       {Case{{5, 5}, {kPlain, kCompressed}, "disagree about format or codec"},
        Case{{5, 6}, {kCompressed, kCompressed}, "got a frame of kind"}}) {
    SyncedRanks ranks(2, 64);
    std::vector<absl::Status> statuses(2);

    ranks.ranks().Run([&](int rank) {
      std::vector<float> values(64, 1.0f);
      GradientSync& sync = ranks.sync(rank);
      ASSERT_TRUE(sync.Begin(test.step[rank],
                             {absl::MakeSpan(values), test.format[rank]})
                      .ok());
      statuses[static_cast<size_t>(rank)] = sync.Wait(Soon());
    });

    EXPECT_FALSE(statuses[0].ok());
    EXPECT_FALSE(statuses[1].ok());
    EXPECT_THAT(absl::StrCat(statuses[0].ToString(), statuses[1].ToString()),
                HasSubstr(test.text));
  }
}

TEST(GradientSyncTest, CallsOutOfOrderAreRefused) {
  SyncedRanks ranks(1, 10);
  std::vector<float> values(10);
  std::vector<float> more(11);
  GradientSync& sync = ranks.sync(0);
  const auto kRefused = absl::StatusCode::kFailedPrecondition;

  EXPECT_EQ(sync.Wait(Soon()).code(), kRefused);
  EXPECT_EQ(sync.Finish(SyncVerdict::kCommit).code(), kRefused);
  EXPECT_EQ(sync.Begin(0, {absl::MakeSpan(more), SyncFormat::kPlain}).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(sync.Begin(0, {absl::MakeSpan(values), SyncFormat::kPlain}).ok());
  EXPECT_EQ(sync.Begin(1, {absl::MakeSpan(values), SyncFormat::kPlain}).code(),
            kRefused);
  EXPECT_EQ(sync.Finish(SyncVerdict::kCommit).code(), kRefused);
  EXPECT_TRUE(sync.Wait(Soon()).ok());
  EXPECT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
}

TEST(GradientSyncTest, ResidualsThatWerePutBackGiveTheSameBits) {
  SyncedRanks ranks(3, 1000);
  Vectors first = RandomVectors(3, 1000, kSeed);
  ranks.Synchronize(0, SyncFormat::kCompressed, &first);
  std::vector<SyncResiduals> residuals;
  for (int rank = 0; rank < 3; ++rank) {
    residuals.push_back(ranks.sync(rank).TakeResiduals().value());
  }
  Vectors expected = RandomVectors(3, 1000, kSeed + 1);
  ranks.Synchronize(1, SyncFormat::kCompressed, &expected);

  SyncedRanks restarted(3, 1000);
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(restarted.sync(rank)
                    .PutResiduals(residuals[static_cast<size_t>(rank)])
                    .ok());
  }
  Vectors values = RandomVectors(3, 1000, kSeed + 1);
  restarted.Synchronize(1, SyncFormat::kCompressed, &values);

  EXPECT_TRUE(SameBits(values[0], expected[0]));
}

TEST(GradientSyncTest, ResidualsOfAnotherShapeAreRefused) {
  SyncedRanks ranks(2, 10);

  EXPECT_THAT(
      ranks.sync(0)
          .PutResiduals({std::vector<float>(9), std::vector<float>(5), {}})
          .ToString(),
      HasSubstr("residuals: 9 and 5 values, expected 10 and 8"));
}

TEST(GradientSyncTest, ResidualsCarryOverToAnotherCodec) {
  constexpr int kRounds = 40;
  SyncedRanks ranks(2, 64);
  const Vectors inputs = RandomVectors(2, 64, kSeed);
  const std::vector<double> mean = Mean(inputs);
  std::vector<double> sum(64);
  for (uint32_t step = 0; step < kRounds; ++step) {
    if (step == kRounds / 2) {
      for (int rank = 0; rank < 2; ++rank) {
        ASSERT_TRUE(ranks.sync(rank).SetCodecs("int(8)", "none").ok());
      }
    }
    Vectors values = inputs;
    ranks.Synchronize(step, SyncFormat::kCompressed, &values);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += double{values[0][i]};
  }

  // Nothing that one bit left over was lost at the change.
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_NEAR(sum[i] / kRounds, mean[i], 0.02) << i;
  }
}

TEST(GradientSyncTest, UnknownCodecsLeaveTheOldOnes) {
  SyncedRanks ranks(2, 10);

  EXPECT_EQ(ranks.sync(0).SetCodecs("nothing", "none").code(),
            absl::StatusCode::kInvalidArgument);
  Vectors values = RandomVectors(2, 10, kSeed);
  ranks.Synchronize(0, SyncFormat::kCompressed, &values);
}

TEST(GradientSyncTest, UnknownCodecsAreNamed) {
  LoopbackRanks ranks = *LoopbackRanks::Create(1);
  GradientSyncOptions bad_compressed;
  bad_compressed.compressed_codec = "sing(block=0)";
  GradientSyncOptions bad_plain;
  bad_plain.plain_codec = "cast(bf17)";
  GradientSyncOptions bad_size;
  bad_size.max_message_bytes = 0;

  EXPECT_THAT(GradientSync::Create(bad_compressed, ranks.group(0), 1)
                  .status()
                  .ToString(),
              AllOf(HasSubstr("compressed_codec"), HasSubstr("sing")));
  EXPECT_THAT(
      GradientSync::Create(bad_plain, ranks.group(0), 1).status().ToString(),
      AllOf(HasSubstr("plain_codec"), HasSubstr("bf17")));
  EXPECT_EQ(GradientSync::Create(bad_size, ranks.group(0), 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
