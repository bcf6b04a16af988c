#include "coordinator/tuning/sync_meter.h"

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

/// Two ranks, a million elements in one bit, over a link of this rate.
v1::StepReport Report(int64_t transactions, double bytes_per_second) {
  v1::StepReport report;
  v1::SyncReport& sync = *report.mutable_sync();
  sync.set_ranks(2);
  sync.set_elements(1'000'000);
  sync.set_transactions(transactions);
  sync.set_sent_bytes(125'000 * transactions);
  sync.set_wire_seconds(125'000 / bytes_per_second *
                        static_cast<double>(transactions));
  sync.set_plan_bits(1);
  sync.set_plan_kernel_seconds(4e-3);
  sync.set_bf16_kernel_seconds(1e-3);
  sync.set_early_seconds(2e-3 * static_cast<double>(transactions));
  sync.set_buckets(5);
  report.set_step_seconds(0.3 * static_cast<double>(transactions));
  return report;
}

TEST(SyncMeterTest, WaitsForTenTransactionsOfEveryWorker) {
  SyncMeter meter;
  for (int rank = 0; rank < 3; ++rank) meter.Add(rank, Report(10, 1e8));
  EXPECT_FALSE(meter.Take(2, 2).has_value());
  meter.Add(3, Report(9, 1e8));
  EXPECT_FALSE(meter.Take(2, 2).has_value());
  meter.Add(3, Report(1, 1e8));

  const auto forecast = meter.Take(2, 2);

  ASSERT_TRUE(forecast.has_value());
  EXPECT_NEAR(forecast->compressed_seconds, 1.25e-3 + 4e-3, 1e-9);
  EXPECT_NEAR(forecast->bf16_seconds, 20e-3 + 1e-3, 1e-9);
  EXPECT_NEAR(forecast->bf16_exposed_seconds, 21e-3 - 2e-3, 1e-9);
  EXPECT_NEAR(forecast->compressed_exposed_seconds, 5.25e-3 - 2e-3, 1e-9);
  EXPECT_NEAR(forecast->step_seconds, 0.3, 1e-9);
  EXPECT_FALSE(meter.Take(2, 2).has_value()) << "a window is used once";
}

TEST(SyncMeterTest, TheSlowestStageSpeaksForTheJob) {
  SyncMeter meter;
  for (int rank = 0; rank < 4; ++rank) {
    meter.Add(rank, Report(12, rank == 2 ? 1e7 : 1e9));
  }

  const auto forecast = meter.Take(2, 2);

  ASSERT_TRUE(forecast.has_value());
  EXPECT_NEAR(forecast->compressed_seconds, 12.5e-3 + 4e-3, 1e-9);
  EXPECT_NEAR(forecast->bytes_per_second, 1e7, 1);
}

TEST(SyncMeterTest, ReportsWithoutTransactionsSayNothing) {
  SyncMeter meter;
  for (int rank = 0; rank < 2; ++rank) meter.Add(rank, v1::StepReport());
  EXPECT_FALSE(meter.Take(1, 2).has_value());
  // A link that tells no times.
  for (int rank = 0; rank < 2; ++rank) {
    v1::StepReport report = Report(10, 1e8);
    report.mutable_sync()->set_wire_seconds(0);
    meter.Add(rank, report);
  }
  EXPECT_FALSE(meter.Take(1, 2).has_value());
}

}  // namespace
}  // namespace deltapipe
