#include "base/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deltapipe {
namespace {

class Utf8Test : public ::testing::TestWithParam<const char*> {};
class NotUtf8Test : public ::testing::TestWithParam<const char*> {};

TEST_P(Utf8Test, IsTaken) {
  EXPECT_TRUE(IsUtf8(GetParam()));
  EXPECT_TRUE(CheckUtf8("the job", GetParam()).ok());
}

INSTANTIATE_TEST_SUITE_P(All, Utf8Test,
                         ::testing::Values("", "text-1", "\xc3\xa9",
                                           "\xe2\x82\xac!", "\xf0\x9f\x98\x80",
                                           "\xf4\x8f\xbf\xbf"));

TEST_P(NotUtf8Test, IsRefused) { EXPECT_FALSE(IsUtf8(GetParam())); }

INSTANTIATE_TEST_SUITE_P(All, NotUtf8Test,
                         ::testing::Values("\xff", "text\x80", "\xc3",
                                           "\xe2\x82", "\xc0\xaf",
                                           "\xe0\x80\xaf", "\xed\xa0\x80",
                                           "\xf4\x90\x80\x80",
                                           "\xf5\x80\x80\x80"));

TEST(CheckUtf8Test, NamesWhatAndShowsTheBytes) {
  const absl::Status status = CheckUtf8("argument 2", "text\xff");

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              ::testing::StartsWith("argument 2 is not UTF-8 at 'text\\xff':"));
}

}  // namespace
}  // namespace deltapipe
