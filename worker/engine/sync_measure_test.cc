#include "worker/engine/sync_measure.h"

#include <chrono>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

constexpr double kEarlySeconds = 0.25;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

/// What each rank tells after these transactions of 8,000 elements, one by one
/// compressed or not.
std::vector<v1::SyncReport> Measure(const std::vector<int>& nodes,
                                    const std::vector<bool>& is_compressed) {
  const int num_ranks = static_cast<int>(nodes.size());
  LoopbackRanks scalars = *LoopbackRanks::Create(num_ranks);
  LoopbackRanks gradients = *LoopbackRanks::Create(num_ranks);
  std::vector<v1::SyncReport> reports(nodes.size());
  scalars.Run([&](int rank) {
    SyncMeasureOptions options;
    options.plan_codec = "sign(block=0)";
    options.num_elements = 8000;
    options.num_buckets = 4;
    options.nodes = nodes;
    const auto measure = SyncMeasure::Create(
        options, scalars.group(rank), gradients.group(rank), 0, 22, Soon());
    ASSERT_TRUE(measure.ok()) << measure.status();
    GradientSyncOptions sync_options;
    sync_options.nodes = nodes;
    const auto sync =
        GradientSync::Create(sync_options, gradients.group(rank), 8000);
    ASSERT_TRUE(sync.ok()) << sync.status();
    std::vector<float> values(8000, 1.0f);
    for (size_t step = 0; step < is_compressed.size(); ++step) {
      SyncRequest request;
      request.values = absl::MakeSpan(values);
      request.format =
          is_compressed[step] ? SyncFormat::kCompressed : SyncFormat::kPlain;
      ASSERT_TRUE((*sync)->Begin(static_cast<uint32_t>(step), request).ok());
      ASSERT_TRUE((*sync)->Wait(Soon()).ok());
      (*measure)->Note(is_compressed[step], kEarlySeconds);
      ASSERT_TRUE((*sync)->Finish(SyncVerdict::kCommit).ok());
    }
    reports[static_cast<size_t>(rank)] = (*measure)->Take();
    EXPECT_EQ((*measure)->Take().transactions(), 0);
  });
  return reports;
}

TEST(SyncMeasureTest, OnlyCompressedTransactionsCount) {
  for (const v1::SyncReport& report :
       Measure({0, 1}, {false, false, true, false, true, true})) {
    EXPECT_EQ(report.transactions(), 3);
    EXPECT_EQ(report.early_seconds(), 3 * kEarlySeconds);
    EXPECT_EQ(report.buckets(), 4);
    // 500 bytes of signs in each phase, a scale and the frame's header.
    EXPECT_GE(report.sent_bytes(), 3 * 1000);
    EXPECT_LT(report.sent_bytes(), 3 * 1500);
    EXPECT_EQ(report.ranks(), 2);
    EXPECT_EQ(report.elements(), 8000);
    EXPECT_NEAR(report.plan_bits(), 1, 0.02);
    EXPECT_GT(report.plan_kernel_seconds(), 0);
    EXPECT_GT(report.bf16_kernel_seconds(), 0);
    EXPECT_GT(report.latency_seconds(), 0);
  }
}

TEST(SyncMeasureTest, InsideANodeNothingIsCounted) {
  for (const v1::SyncReport& report : Measure({0, 0, 1, 1}, {true})) {
    EXPECT_EQ(report.ranks(), 2);
    EXPECT_EQ(report.elements(), 4000);
    // Half a vector's signs, not the values that a node sums.
    EXPECT_GE(report.sent_bytes(), 500);
    EXPECT_LT(report.sent_bytes(), 1000);
  }
}

TEST(SyncMeasureTest, WhereNothingIsCompressedNothingIsTold) {
  for (const v1::SyncReport& report : Measure({0, 1}, {false, false})) {
    EXPECT_EQ(report.transactions(), 0);
    EXPECT_EQ(report.sent_bytes(), 0);
  }
}

}  // namespace
}  // namespace deltapipe
