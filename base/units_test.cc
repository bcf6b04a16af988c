#include "base/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(ParseBandwidthTest, ReadsBitsAndBytesWithPrefixes) {
  EXPECT_EQ(ParseBandwidth("100Mbit/s").value(), 100e6);
  EXPECT_EQ(ParseBandwidth("1.5Gbit/s").value(), 1.5e9);
  EXPECT_EQ(ParseBandwidth("12MB/s").value(), 96e6);
  EXPECT_EQ(ParseBandwidth("9600bit/s").value(), 9600);
  EXPECT_EQ(ParseBandwidth("1KiB/s").value(), 8.0 * 1024);
  EXPECT_EQ(ParseBandwidth("1MiB/s").value(), 8.0 * 1048576);
  EXPECT_EQ(ParseBandwidth("1e3kbit/s").value(), 1e6);
  EXPECT_EQ(ParseBandwidth("100 Mbit/s").value(), 100e6);
  EXPECT_EQ(ParseBandwidth("unlimited").value(), 0);
}

class AmbiguousRateTest : public testing::TestWithParam<const char*> {};

TEST_P(AmbiguousRateTest, IsRefusedWithBothReadingsNamed) {
  const absl::Status status = ParseBandwidth(GetParam()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      Message(status),
      AllOf(HasSubstr(GetParam()), HasSubstr("read in two ways"),
            HasSubstr("100Mbit/s for bits"), HasSubstr("100MB/s for bytes")));
}

INSTANTIATE_TEST_SUITE_P(Spellings, AmbiguousRateTest,
                         testing::Values("100mbps", "100Mbps", "100MBps",
                                         "100Mb/s", "100 mbps", "100MBPS"));

class RefusedBandwidthTest : public testing::TestWithParam<const char*> {};

TEST_P(RefusedBandwidthTest, NamesTheTextAndTheForms) {
  const absl::Status status = ParseBandwidth(GetParam()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(GetParam()), HasSubstr("expected")));
}

INSTANTIATE_TEST_SUITE_P(Texts, RefusedBandwidthTest,
                         testing::Values("", "100", "Mbit/s", "fast",
                                         "-1Mbit/s", "nanMbit/s", "infbit/s",
                                         "1e999bit/s", "0Mbit/s", "100mbit/s",
                                         "100Mbit", "1.Mbit/s", ".5Mbit/s",
                                         "1,5Mbit/s", "100Mbit/s ",
                                         "100  Mbit/s", "1ePbit/s"));

TEST(ParseBytesTest, ReadsDecimalAndBinaryPrefixes) {
  EXPECT_EQ(ParseBytes("600kB").value(), 600000);
  EXPECT_EQ(ParseBytes("64MiB").value(), int64_t{64} << 20);
  EXPECT_EQ(ParseBytes("12B").value(), 12);
  EXPECT_EQ(ParseBytes("1.5kB").value(), 1500);
  EXPECT_EQ(ParseBytes("0.1kB").value(), 100);
  EXPECT_EQ(ParseBytes("4.7GB").value(), 4700000000);
  EXPECT_EQ(ParseBytes("0").value(), 0);
  EXPECT_EQ(ParseBytes("0B").value(), 0);
  EXPECT_EQ(ParseBytes("all").value(), INT64_MAX);
  EXPECT_EQ(ParseBytes("9007199254740993B").value(), 9007199254740993);
  EXPECT_EQ(ParseBytes("9223372036854775807B").value(), INT64_MAX);
}

class RefusedBytesTest : public testing::TestWithParam<const char*> {};

TEST_P(RefusedBytesTest, NamesTheText) {
  const absl::Status status = ParseBytes(GetParam()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(GetParam()), HasSubstr("expected")));
}

INSTANTIATE_TEST_SUITE_P(Texts, RefusedBytesTest,
                         testing::Values("", "600", "600k", "600kb", "600kBit",
                                         "-1B", "0.3B", "9223372036854775808B",
                                         "10000000TB", "1e30B", "everything"));

TEST(ParseBytesTest, RefusesKBWithBothReadings) {
  EXPECT_THAT(
      Message(ParseBytes("600KB").status()),
      AllOf(HasSubstr("600kB for 1,000"), HasSubstr("600KiB for 1,024")));
}

TEST(ParseDurationTest, ReadsEveryUnit) {
  EXPECT_EQ(ParseDuration("7ns").value(), nanoseconds(7));
  EXPECT_EQ(ParseDuration("250us").value(), microseconds(250));
  EXPECT_EQ(ParseDuration("10ms").value(), milliseconds(10));
  EXPECT_EQ(ParseDuration("1.5s").value(), milliseconds(1500));
  EXPECT_EQ(ParseDuration("2min").value(), seconds(120));
  EXPECT_EQ(ParseDuration("1h").value(), hours(1));
  EXPECT_EQ(ParseDuration("0").value(), nanoseconds(0));
  EXPECT_EQ(ParseDuration("0ms").value(), nanoseconds(0));
}

class RefusedDurationTest : public testing::TestWithParam<const char*> {};

TEST_P(RefusedDurationTest, NamesTheText) {
  const absl::Status status = ParseDuration(GetParam()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(GetParam()), HasSubstr("duration")));
}

INSTANTIATE_TEST_SUITE_P(Texts, RefusedDurationTest,
                         testing::Values("", "10", "10m", "-5s", "5 parsecs",
                                         "1000000000h", "s", "10MS"));

TEST(FormatTest, BytesHaveThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(999.7), "1 kB");
  EXPECT_EQ(FormatBytes(600000), "600 kB");
  EXPECT_EQ(FormatBytes(1234567), "1.23 MB");
  EXPECT_EQ(FormatBytes(999999), "1 MB");
  EXPECT_EQ(FormatBytes(-1500), "-1.5 kB");
  EXPECT_EQ(FormatBytes(9.2e18), "9.2 EB");
}

TEST(FormatTest, BandwidthReadsBack) {
  EXPECT_EQ(FormatBandwidth(100e6), "100 Mbit/s");
  EXPECT_EQ(FormatBandwidth(0), "unlimited");
  EXPECT_EQ(ParseBandwidth(FormatBandwidth(1.25e9)).value(), 1.25e9);
}

TEST(FormatTest, DurationsPickTheirUnit) {
  EXPECT_EQ(FormatDuration(nanoseconds(0)), "0 ns");
  EXPECT_EQ(FormatDuration(microseconds(250)), "250 us");
  EXPECT_EQ(FormatDuration(milliseconds(10)), "10 ms");
  EXPECT_EQ(FormatDuration(milliseconds(1500)), "1.5 s");
  EXPECT_EQ(FormatDuration(nanoseconds(999999)), "1 ms");
  EXPECT_EQ(FormatDuration(milliseconds(59990)), "1 min");
  EXPECT_EQ(FormatDuration(seconds(200)), "3 min 20 s");
  EXPECT_EQ(FormatDuration(seconds(3600 * 2 + 300)), "2 h 5 min");
  EXPECT_EQ(FormatDuration(hours(3)), "3 h");
  EXPECT_EQ(FormatDuration(milliseconds(-10)), "-10 ms");
}

TEST(FormatTest, CountsGroupThousands) {
  EXPECT_EQ(Plural(1, "worker"), "1 worker");
  EXPECT_EQ(Plural(0, "worker"), "0 workers");
  EXPECT_EQ(Plural(1024, "worker"), "1,024 workers");
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
  EXPECT_EQ(FormatCount(INT64_MIN), "-9,223,372,036,854,775,808");
}

TEST(StepChoiceTest, IsANumberAShareOrAuto) {
  EXPECT_EQ(ParseStepChoice("200")->At(1000), 200);
  EXPECT_EQ(ParseStepChoice("0")->At(1000), 0);
  EXPECT_EQ(ParseStepChoice("16.5%")->At(1000), 165);
  EXPECT_EQ(ParseStepChoice("1%")->At(3), 1);
  EXPECT_TRUE(ParseStepChoice("auto")->is_auto);
  EXPECT_EQ(ParseStepChoice("auto")->At(1000), INT64_MAX);
}

TEST(StepChoiceTest, OtherTextsAreRefused) {
  for (const char* text :
       {"", "-1", "1.5", "0%", "100%", "x%", "20 steps", "nan", "Auto"}) {
    EXPECT_THAT(Message(ParseStepChoice(text).status()),
                AllOf(HasSubstr(text), HasSubstr("20%")))
        << text;
  }
}

}  // namespace
}  // namespace deltapipe
