#include "coordinator/tuning/link_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

v1::StepReport Report(int64_t steps, const std::string& codec,
                      int64_t wire_bytes, double send_seconds,
                      double error = 0) {
  v1::StepReport report;
  report.set_steps(steps);
  v1::LinkReport* link = report.add_links();
  link->set_boundary(1);
  link->set_codec(codec);
  link->set_wire_bytes(wire_bytes);
  link->set_send_seconds(send_seconds);
  link->set_relative_error(error);
  return report;
}

TEST(LinkMeterTest, CountersBecomeBytesPerStepAndRates) {
  LinkMeter meter;
  for (const int rank : {0, 1}) {
    meter.Add(rank, Report(1, "int(4)", 1000, 1));
    meter.Add(rank, Report(2, "int(4)", 3000, 1 + 0.016 * (rank + 1), 0.1));
  }

  const auto samples = meter.Take(2);

  ASSERT_THAT(samples, SizeIs(1));
  EXPECT_EQ(samples[0].boundary, 1);
  EXPECT_EQ(samples[0].steps, 2);
  EXPECT_DOUBLE_EQ(samples[0].wire_bytes_per_step, 2000);
  // 16,000 bits in 32 ms over the slower link.
  EXPECT_NEAR(samples[0].bits_per_second, 500e3, 1);
  EXPECT_DOUBLE_EQ(samples[0].relative_error, 0.1);
  EXPECT_THAT(meter.Take(2), IsEmpty());
}

TEST(LinkMeterTest, TheFirstReportIsOnlyAStart) {
  LinkMeter meter;
  meter.Add(0, Report(1, "int(4)", 1000, 1));

  EXPECT_THAT(meter.Take(1), IsEmpty());
}

TEST(LinkMeterTest, WaitsForEveryReplica) {
  LinkMeter meter;
  meter.Add(0, Report(1, "int(4)", 1000, 1));
  meter.Add(0, Report(1, "int(4)", 2000, 2));

  EXPECT_THAT(meter.Take(2), IsEmpty());
}

TEST(LinkMeterTest, StepsOfAChangeAreLeftOut) {
  LinkMeter meter;
  meter.Add(0, Report(1, "int(4)", 1000, 1));
  meter.Add(0, Report(1, "int(4)", 2000, 2));
  meter.Add(0, Report(1, "int(2)", 2700, 2.5));
  EXPECT_THAT(meter.Take(1), IsEmpty());

  meter.Add(0, Report(1, "int(2)", 3200, 3));

  const auto samples = meter.Take(1);
  ASSERT_THAT(samples, SizeIs(1));
  EXPECT_EQ(samples[0].codec, "int(2)");
  EXPECT_DOUBLE_EQ(samples[0].wire_bytes_per_step, 500);
}

TEST(LinkMeterTest, LinkWithoutTimeHasNoRate) {
  LinkMeter meter;
  meter.Add(0, Report(1, "int(4)", 1000, 0));
  meter.Add(0, Report(1, "int(4)", 2000, 0));

  EXPECT_EQ(meter.Take(1)[0].bits_per_second, 0);
}

}  // namespace
}  // namespace deltapipe
