#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string LogOf(void (*body)()) {
  testing::internal::CaptureStderr();
  body();
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, LinesBearLevelProgramAndText) {
  ConfigureLog(LogLevel::kInfo, "worker 3");

  EXPECT_THAT(LogOf([] { LOG_WARNING << "step " << 118; }),
              AllOf(HasSubstr("W"), HasSubstr("worker 3: step 118\n")));
}

TEST(LogTest, LowerLevelsAreNeitherWrittenNorEvaluated) {
  ConfigureLog(LogLevel::kWarning, "");
  static int num_evaluated = 0;
  num_evaluated = 0;

  EXPECT_EQ(LogOf([] { LOG_INFO << ++num_evaluated; }), "");

  EXPECT_EQ(num_evaluated, 0);
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  EXPECT_TRUE(LogEnabled(LogLevel::kError));
}

TEST(LogTest, TextIsNeverAFormat) {
  ConfigureLog(LogLevel::kInfo, "100%v {}");

  EXPECT_THAT(LogOf([] { LOG_INFO << "{} %d %v {0}"; }),
              HasSubstr("100%v {}: {} %d %v {0}\n"));
}

TEST(LogTest, MacroIsOneStatement) {
  ConfigureLog(LogLevel::kInfo, "");

  EXPECT_THAT(LogOf([] {
                if (true)
                  LOG_INFO << "then";
                else
                  LOG_INFO << "otherwise";
              }),
              AllOf(HasSubstr("then"), Not(HasSubstr("otherwise"))));
}

TEST(ParseLogLevelTest, ReadsTheFourLevels) {
  LogLevel level = LogLevel::kInfo;

  EXPECT_TRUE(ParseLogLevel("debug", &level).ok());
  EXPECT_EQ(level, LogLevel::kDebug);
  EXPECT_TRUE(ParseLogLevel("error", &level).ok());
  EXPECT_EQ(level, LogLevel::kError);
}

TEST(ParseLogLevelTest, RefusesOthersAndLeavesTheLevel) {
  LogLevel level = LogLevel::kWarning;

  const absl::Status status = ParseLogLevel("verbose", &level);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'verbose'"));
  EXPECT_EQ(level, LogLevel::kWarning);
}

}  // namespace
}  // namespace deltapipe
