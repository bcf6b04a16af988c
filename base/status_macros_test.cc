#include "base/status_macros.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/strings/cord.h"

namespace deltapipe {
namespace {

absl::Status ReturnIfError(const absl::Status& status, bool* went_on) {
  DP_RETURN_IF_ERROR(status);
  *went_on = true;
  return absl::OkStatus();
}

absl::StatusOr<int> Take(absl::StatusOr<std::unique_ptr<int>> number) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<int> held, std::move(number));
  DP_ASSIGN_OR_RETURN(const int more, absl::StatusOr<int>(1));
  return *held + more;
}

TEST(StatusMacrosTest, ReturnIfErrorGoesOnWhenOk) {
  bool went_on = false;

  EXPECT_TRUE(ReturnIfError(absl::OkStatus(), &went_on).ok());

  EXPECT_TRUE(went_on);
}

TEST(StatusMacrosTest, ReturnIfErrorReturnsTheError) {
  bool went_on = false;

  EXPECT_EQ(ReturnIfError(absl::NotFoundError("a"), &went_on),
            absl::NotFoundError("a"));

  EXPECT_FALSE(went_on);
}

TEST(StatusMacrosTest, AssignOrReturnMovesTheValue) {
  EXPECT_EQ(Take(std::make_unique<int>(41)).value(), 42);
}

TEST(StatusMacrosTest, AssignOrReturnReturnsTheError) {
  EXPECT_EQ(Take(absl::DataLossError("gone")).status(),
            absl::DataLossError("gone"));
}

TEST(StatusMacrosTest, AnnotatePutsContextFirstAndKeepsCodeAndPayload) {
  absl::Status status = absl::UnavailableError("peer is gone");
  status.SetPayload("type", absl::Cord("payload"));

  const absl::Status annotated = Annotate(status, "stage 2, step 118");

  EXPECT_EQ(annotated.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(annotated.message(), "stage 2, step 118: peer is gone");
  EXPECT_EQ(annotated.GetPayload("type"), absl::Cord("payload"));
}

TEST(StatusMacrosTest, AnnotateLeavesOkAlone) {
  EXPECT_TRUE(Annotate(absl::OkStatus(), "stage 2").ok());
}

}  // namespace
}  // namespace deltapipe
