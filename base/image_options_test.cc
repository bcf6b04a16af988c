#include "base/image_options.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string SizesProblem(absl::string_view text) {
  const auto shares = ParseSizeShares(text);
  EXPECT_EQ(shares.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(shares.status().message());
}

TEST(ImageOptionsTest, ViewsAreANumberOrUnbounded) {
  EXPECT_EQ(ParseViewChoice("1")->count, 1);
  EXPECT_EQ(ParseViewChoice("64")->count, 64);
  EXPECT_FALSE(ParseViewChoice("64")->is_unbounded);
  EXPECT_TRUE(ParseViewChoice("unbounded")->is_unbounded);
  EXPECT_EQ(ParseViewChoice("unbounded")->count, 1);
  for (const char* const text : {"", "0", "65", "-1", "2.5", "many"}) {
    EXPECT_THAT(std::string(ParseViewChoice(text).status().message()),
                HasSubstr("from 1 to 64, or unbounded, got '"))
        << text;
  }
}

TEST(ImageOptionsTest, SizesAreReadWithTheirShares) {
  const auto shares = ParseSizeShares("28:0.5,20:0.3,14:0.2");

  ASSERT_TRUE(shares.ok()) << shares.status();
  ASSERT_EQ(shares->size(), 3);
  EXPECT_EQ((*shares)[1].size, 20);
  EXPECT_EQ((*shares)[1].share, 0.3);
  EXPECT_TRUE(ParseSizeShares("")->empty());
}

TEST(ImageOptionsTest, WrongSizesSayWhy) {
  EXPECT_THAT(SizesProblem("28"), HasSubstr("'28' is no size and share"));
  EXPECT_THAT(SizesProblem("28:0.5,"), HasSubstr("'' is no size and share"));
  EXPECT_THAT(SizesProblem("28:0.5,7:0.5"), HasSubstr("8 to 28 pixels"));
  EXPECT_THAT(SizesProblem("29:1"), HasSubstr("8 to 28 pixels"));
  EXPECT_THAT(SizesProblem("28:nan"), HasSubstr("above 0 and at most 1"));
  EXPECT_THAT(SizesProblem("28:0,14:1"), HasSubstr("above 0 and at most 1"));
  EXPECT_THAT(SizesProblem("28:0.5,28:0.5"), HasSubstr("28 is named twice"));
  EXPECT_THAT(SizesProblem("28:0.5,14:0.4"), HasSubstr("add up to 0.9"));
}

}  // namespace
}  // namespace deltapipe
