#include "coordinator/errors/error_details.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status_macros.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ErrorDetailsTest, ViolationsAreLinesAndDetails) {
  const std::vector<FieldViolation> violations = {{"train.steps", "too few"},
                                                  {"", "all is wrong"}};

  const absl::Status status = FieldViolationsError(violations, "INVALID_SPEC");

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()),
            "train.steps: too few\nall is wrong");
  EXPECT_EQ(FieldViolationsOf(status), violations);
  EXPECT_EQ(ReasonOf(status)->reason, "INVALID_SPEC");
}

TEST(ErrorDetailsTest, NoViolationIsNoError) {
  EXPECT_TRUE(FieldViolationsError({}).ok());
  EXPECT_THAT(FieldViolationsOf(absl::InternalError("x")), IsEmpty());
}

TEST(ErrorDetailsTest, DetailsSurviveAnnotation) {
  const absl::Status status =
      Annotate(FieldViolationsError({{"a", "b"}}), "job text-1");

  EXPECT_THAT(FieldViolationsOf(status), ElementsAre(FieldViolation{"a", "b"}));
}

TEST(ErrorDetailsTest, ReasonIsReplacedNotAdded) {
  const absl::Status status = WithReason(
      WithReason(absl::AbortedError("x"), {"A", {}}), {"B", {{"k", "v"}}});

  EXPECT_EQ(ReasonOf(status)->reason, "B");
  EXPECT_EQ(ReasonOf(status)->metadata.at("k"), "v");
}

TEST(ErrorDetailsTest, TextBecomesAViolationOfItsPath) {
  EXPECT_EQ(ViolationFromText("train.batch: too small"),
            (FieldViolation{"train.batch", "too small"}));
  EXPECT_EQ(ViolationFromText("boundaries[0].activations: bad"),
            (FieldViolation{"boundaries[0].activations", "bad"}));
  EXPECT_EQ(ViolationFromText("no path here: bad"),
            (FieldViolation{"", "no path here: bad"}));
}

}  // namespace
}  // namespace deltapipe
