#include "coordinator/cli/exit_code.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deltapipe {
namespace {

struct Case {
  absl::StatusCode code;
  int exit_code;
};

class StatusExitCodeTest : public ::testing::TestWithParam<Case> {};

TEST_P(StatusExitCodeTest, IsTheDocumentedOne) {
  EXPECT_EQ(ExitCodeOf(absl::Status(GetParam().code, "x")),
            GetParam().exit_code);
}

INSTANTIATE_TEST_SUITE_P(
    All, StatusExitCodeTest,
    ::testing::Values(Case{absl::StatusCode::kOk, 0},
                      Case{absl::StatusCode::kInternal, 1},
                      Case{absl::StatusCode::kUnknown, 1},
                      Case{absl::StatusCode::kDataLoss, 1},
                      Case{absl::StatusCode::kResourceExhausted, 1},
                      Case{absl::StatusCode::kInvalidArgument, 2},
                      Case{absl::StatusCode::kOutOfRange, 2},
                      Case{absl::StatusCode::kNotFound, 3},
                      Case{absl::StatusCode::kFailedPrecondition, 4},
                      Case{absl::StatusCode::kAborted, 4},
                      Case{absl::StatusCode::kAlreadyExists, 4},
                      Case{absl::StatusCode::kUnavailable, 5},
                      Case{absl::StatusCode::kDeadlineExceeded, 5},
                      Case{absl::StatusCode::kPermissionDenied, 6},
                      Case{absl::StatusCode::kUnauthenticated, 6},
                      Case{absl::StatusCode::kCancelled, 7}));

TEST(JobExitCodeTest, FollowsTheFinalState) {
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_CANCELLED), 7);
}

TEST(ExitCodeHelpTest, NamesEveryCode) {
  for (const char* code : {"0 ok", "1 job failed", "2 bad usage", "3 not found",
                           "4 wrong", "5 coordinator", "6 not allowed",
                           "7 cancelled", "130 interrupted", "143"}) {
    EXPECT_THAT(std::string(kExitCodeHelp), ::testing::HasSubstr(code));
  }
}

}  // namespace
}  // namespace deltapipe
