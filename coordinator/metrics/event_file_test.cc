#include "coordinator/metrics/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"

namespace deltapipe {
namespace {

TEST(EventFileTest, CrcMatchesItsPublishedVectors) {
  // RFC 3720, B.4, and the usual check value.
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(EventFileTest, ARecordIsLengthPayloadAndTheirChecksums) {
  EXPECT_EQ(absl::BytesToHexString(EventRecord("abc")),
            "0300000000000000"
            "b099490e"
            "616263"
            "6e57f121");
}

TEST(EventFileTest, TheFirstEventNamesTheFormat) {
  EXPECT_EQ(absl::BytesToHexString(VersionEvent(1.5)),
            "09000000000000f83f"
            "1a0d627261696e2e4576656e743a32");
}

TEST(EventFileTest, ScalarsAreASummaryOfSimpleValues) {
  EXPECT_EQ(absl::BytesToHexString(
                ScalarsEvent(1.5, 300, {{"a/b", 2.5f}, {"c", -1}})),
            "09000000000000f83f"
            "10ac02"
            "2a16"
            "0a0a"
            "0a03612f62"
            "1500002040"
            "0a08"
            "0a0163"
            "15000080bf");
}

TEST(EventFileTest, ARestartIsASessionThatStartsAtAStep) {
  EXPECT_EQ(absl::BytesToHexString(RestartEvent(1.5, 7)),
            "09000000000000f83f"
            "1007"
            "3a020801");
}

}  // namespace
}  // namespace deltapipe
