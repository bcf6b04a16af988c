#include "coordinator/tuning/compression_verdict.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

/// Four ranks, a million elements.
SyncShape TheShape() {
  SyncShape shape;
  shape.num_elements = 1'000'000;
  shape.num_ranks = 4;
  return shape;
}

/// What a link of this rate does in a compressed transaction: one bit each,
/// 1.5 million of them.
SyncObservation At(double bytes_per_second) {
  SyncObservation seen;
  seen.sent_bytes = 1.5e6 / 8;
  seen.latency_seconds = 1e-4;
  seen.wire_seconds = seen.sent_bytes / bytes_per_second;
  seen.compressed_kernel_seconds = 4e-3;
  seen.bf16_kernel_seconds = 1e-3;
  return seen;
}

std::vector<SyncObservation> AllAt(double bytes_per_second) {
  return std::vector<SyncObservation>(4, At(bytes_per_second));
}

CompressionVerdict TheVerdict() { return *CompressionVerdict::Create(); }

TEST(ForecastSyncTest, IsTheSumOfLatencyWireAndKernels) {
  const auto forecast = ForecastSync(TheShape(), AllAt(1e8));

  ASSERT_TRUE(forecast.has_value());
  EXPECT_NEAR(forecast->bytes_per_second, 1e8, 1);
  EXPECT_NEAR(forecast->compressed_seconds, 2e-4 + 1.875e-3 + 4e-3, 1e-9);
  EXPECT_NEAR(forecast->bf16_seconds, 2e-4 + 0.03 + 1e-3, 1e-9);
  EXPECT_NEAR(forecast->fp32_seconds, 6e-4 + 0.06, 1e-9);
}

// Whatever travels while it is measured.
TEST(ForecastSyncTest, DoesNotDependOnTheFormatThatWasMeasured) {
  std::vector<SyncObservation> in_bf16 = AllAt(1e8);
  for (SyncObservation& seen : in_bf16) {
    seen.sent_bytes = 3e6;
    seen.wire_seconds = 0.03;
  }

  const auto compressed = ForecastSync(TheShape(), AllAt(1e8));
  const auto bf16 = ForecastSync(TheShape(), in_bf16);

  ASSERT_TRUE(compressed.has_value() && bf16.has_value());
  EXPECT_NEAR(bf16->compressed_seconds, compressed->compressed_seconds, 1e-9);
  EXPECT_NEAR(bf16->bf16_seconds, compressed->bf16_seconds, 1e-9);
}

TEST(ForecastSyncTest, TheSlowestRankHoldsAllUp) {
  std::vector<SyncObservation> seen = AllAt(1e9);
  seen[2] = At(1e7);

  const auto mixed = ForecastSync(TheShape(), seen);
  const auto slow = ForecastSync(TheShape(), AllAt(1e7));

  ASSERT_TRUE(mixed.has_value() && slow.has_value());
  EXPECT_EQ(mixed->compressed_seconds, slow->compressed_seconds);
  EXPECT_EQ(mixed->bf16_seconds, slow->bf16_seconds);
  EXPECT_EQ(mixed->bytes_per_second, slow->bytes_per_second);
}

TEST(ForecastSyncTest, WhatSaysNothingIsNoForecast) {
  SyncShape alone = TheShape();
  alone.num_ranks = 1;
  EXPECT_FALSE(ForecastSync(alone, {At(1e8)}).has_value());
  EXPECT_FALSE(ForecastSync(TheShape(), {}).has_value());
  for (double SyncObservation::*field :
       {&SyncObservation::sent_bytes, &SyncObservation::wire_seconds}) {
    std::vector<SyncObservation> seen = AllAt(1e8);
    seen[1].*field = 0;
    EXPECT_FALSE(ForecastSync(TheShape(), seen).has_value());
  }
  for (double SyncObservation::*field : {&SyncObservation::latency_seconds,
                                         &SyncObservation::bf16_kernel_seconds,
                                         &SyncObservation::early_seconds}) {
    for (const double wrong : {-1.0, std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity()}) {
      std::vector<SyncObservation> seen = AllAt(1e8);
      seen[3].*field = wrong;
      EXPECT_FALSE(ForecastSync(TheShape(), seen).has_value());
    }
  }
}

TEST(CompressionVerdictTest, OnASlowLinkItStaysOn) {
  CompressionVerdict verdict = TheVerdict();

  for (int64_t step = 0; step < 100; ++step) {
    EXPECT_EQ(verdict.Update(ForecastSync(TheShape(), AllAt(1e7))), "");
  }

  EXPECT_TRUE(verdict.compresses());
}

TEST(CompressionVerdictTest, OnAFastLinkItGoesOffAndSaysWhy) {
  CompressionVerdict verdict = TheVerdict();
  const auto fast = ForecastSync(TheShape(), AllAt(1e10));

  EXPECT_EQ(verdict.Update(fast), "");
  EXPECT_EQ(verdict.Update(fast), "");
  EXPECT_TRUE(verdict.compresses());
  const std::string change = verdict.Update(fast);

  EXPECT_FALSE(verdict.compresses());
  EXPECT_THAT(change,
              HasSubstr("compression does not help: gradients take 4.22 ms a "
                        "step, 1.5 ms in bf16 and 1.2 ms in fp32, at 80 "
                        "Gbit/s with "));
  EXPECT_THAT(change, HasSubstr("4 ms of encoding and decoding"));
}

TEST(CompressionVerdictTest, ItGoesBackWhenTheLinkHasBecomeSlow) {
  CompressionVerdict verdict = TheVerdict();
  for (int64_t step = 0; step < 3; ++step) {
    verdict.Update(ForecastSync(TheShape(), AllAt(1e10)));
  }
  ASSERT_FALSE(verdict.compresses());

  std::string change;
  int num_checks = 0;
  while (change.empty() && num_checks < 100) {
    ++num_checks;
    change = verdict.Update(ForecastSync(TheShape(), AllAt(1e7)));
  }

  EXPECT_TRUE(verdict.compresses());
  EXPECT_EQ(num_checks, 6) << "twice as many as the first time";
  EXPECT_THAT(change, HasSubstr("compression helps again: "));
}

TEST(CompressionVerdictTest, OneSlowMomentOrSilenceChangesNothing) {
  CompressionVerdict verdict = TheVerdict();
  const auto fast = ForecastSync(TheShape(), AllAt(1e10));
  const auto slow = ForecastSync(TheShape(), AllAt(1e7));

  for (int64_t step = 0; step < 60; ++step) {
    verdict.Update(step % 3 == 2 ? slow : fast);
    verdict.Update(std::nullopt);
  }

  EXPECT_TRUE(verdict.compresses());
  verdict.Update(fast);
  verdict.Update(std::nullopt);
  verdict.Update(fast);
  verdict.Update(fast);
  EXPECT_FALSE(verdict.compresses()) << "silence does not interrupt either";
}

// Even for a link that changes as often as the verdict could.
TEST(CompressionVerdictTest, ChangesBecomeRare) {
  CompressionVerdict verdict = TheVerdict();
  int num_changes = 0;
  for (int64_t step = 0; step < 100'000; ++step) {
    const auto forecast =
        ForecastSync(TheShape(), AllAt(verdict.compresses() ? 1e10 : 1e7));
    num_changes += verdict.Update(forecast).empty() ? 0 : 1;
  }

  EXPECT_GE(num_changes, 10);
  EXPECT_LE(num_changes, 16);  // log2(100,000 / 3 + 1)
}

// Rounding costs accuracy and bf16 costs nothing: what brings no time is left,
// and noise does not bring it back.
TEST(CompressionVerdictTest, WhatBringsNothingIsLeftForGood) {
  constexpr uint32_t kSeed = 41;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937 random(kSeed);
  std::uniform_real_distribution<double> noise(0.98, 1.02);
  CompressionVerdict verdict = TheVerdict();
  int num_changes = 0;
  for (int64_t step = 0; step < 10'000; ++step) {
    SyncForecast even;
    even.compressed_exposed_seconds = 1e-3 * noise(random);
    even.bf16_exposed_seconds = 1e-3 * noise(random);
    num_changes += verdict.Update(even).empty() ? 0 : 1;
  }

  EXPECT_EQ(num_changes, 1);
  EXPECT_FALSE(verdict.compresses());
}

/// In four buckets, beside a backward pass, in steps of so many seconds.
SyncForecast Beside(double early_seconds, double step_seconds) {
  std::vector<SyncObservation> seen = AllAt(1e8);
  for (SyncObservation& rank : seen) {
    rank.early_seconds = early_seconds;
    rank.num_buckets = 4;
  }
  SyncForecast forecast = *ForecastSync(TheShape(), seen);
  forecast.step_seconds = step_seconds;
  return forecast;
}

TEST(ForecastSyncTest, TheBackwardPassHidesAllButTheLastBucket) {
  // One bit takes 6.1 ms, bf16 31.2 ms: see above.
  const SyncForecast part = Beside(20e-3, 0);
  EXPECT_NEAR(part.compressed_exposed_seconds, 6.075e-3 / 4, 1e-9);
  EXPECT_NEAR(part.bf16_exposed_seconds, 31.2e-3 - 20e-3, 1e-9);
  const SyncForecast all = Beside(1, 0);
  EXPECT_NEAR(all.bf16_exposed_seconds, 31.2e-3 / 4, 1e-9);
  EXPECT_THAT(ForecastText(all),
              HasSubstr("31.2 ms in bf16 and 60.6 ms in fp32, of which the "
                        "backward pass hides up to 1 s, at 800 Mbit/s"));
}

TEST(CompressionVerdictTest, WhatTheBackwardPassHidesIsNoReasonToCompress) {
  // 6.3 ms are gained: a hundredth of 0.7 s is more.
  EXPECT_FALSE(CompressionVerdict::Helps(Beside(1, 0.7)));
  EXPECT_TRUE(CompressionVerdict::Helps(Beside(1, 0.5)));
  EXPECT_TRUE(CompressionVerdict::Helps(Beside(0, 0.7)));

  CompressionVerdict verdict = TheVerdict();
  for (int i = 0; i < 3; ++i) verdict.Update(Beside(1, 0.7));
  EXPECT_FALSE(verdict.compresses());
  // Steps in bf16: 6.3 ms are below a twentieth of 0.2 s, and above that of
  // 0.1.
  for (int i = 0; i < 50; ++i) verdict.Update(Beside(1, 0.2));
  EXPECT_FALSE(verdict.compresses());
  for (int i = 0; i < 6; ++i) verdict.Update(Beside(1, 0.1));
  EXPECT_TRUE(verdict.compresses());
}

TEST(CompressionVerdictTest, RefusesImpossibleOptions) {
  for (const double margin :
       {-0.1, 11.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(CompressionVerdict::Create({true, margin, 3}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(CompressionVerdict::Create({true, 0.1, 0}).ok());
}

}  // namespace
}  // namespace deltapipe
