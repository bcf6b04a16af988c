#include "coordinator/tuning/tuning_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "coordinator/errors/error_details.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

v1::UpdateTuningRequest Request(const std::string& id,
                                const std::string& gradients = "int(8)") {
  v1::UpdateTuningRequest request;
  request.mutable_tuning()->set_job_id("text-1");
  request.mutable_tuning()->set_gradients(gradients);
  request.set_request_id(id);
  return request;
}

v1::Tuning TuningOf(uint32_t revision) {
  v1::Tuning tuning;
  tuning.set_job_id("text-1");
  tuning.set_revision(revision);
  tuning.set_effective_step(41);
  tuning.mutable_tuner()->set_error_budget(0.1);
  return tuning;
}

TEST(TuningAnswersTest, ARequestThatIsSentAgainFindsItsAnswer) {
  TuningAnswers answers;
  EXPECT_FALSE(answers.Find(KeyOf(Request("a")))->has_value());

  answers.Remember(KeyOf(Request("a")), TuningOf(2));
  answers.Remember(KeyOf(Request("b")), TuningOf(3));

  const auto found = answers.Find(KeyOf(Request("a")));
  ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
  EXPECT_EQ((*found)->SerializeAsString(), TuningOf(2).SerializeAsString());
}

TEST(TuningAnswersTest, AnotherRequestOfTheSameIdIsRefused) {
  TuningAnswers answers;
  answers.Remember(KeyOf(Request("a")), TuningOf(2));

  const auto found = answers.Find(KeyOf(Request("a", "int(4)")));

  EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(found.status().message()),
              HasSubstr("another request to job 'text-1' had this one and made "
                        "revision 2"));
  EXPECT_EQ(ReasonOf(found.status())->reason, "REQUEST_ID_IN_USE");
}

TEST(TuningAnswersTest, WhoGivesNoIdIsNotRemembered) {
  TuningAnswers answers;
  answers.Remember(KeyOf(Request("")), TuningOf(2));
  answers.Decide(KeyOf(Request("")), 3);

  EXPECT_FALSE(answers.Find(KeyOf(Request("")))->has_value());
  EXPECT_EQ(answers.Text(), "");
}

TEST(TuningAnswersTest, WhatIsDecidedHasNoAnswerUntilItIsInForce) {
  TuningAnswers answers;
  answers.Decide(KeyOf(Request("a")), 2);

  EXPECT_FALSE(answers.Find(KeyOf(Request("a")))->has_value());
  EXPECT_EQ(answers.DecidedAs(2).id, "a");
  EXPECT_EQ(answers.DecidedAs(3).id, "");
  answers.Remember(answers.DecidedAs(2), TuningOf(2));
  EXPECT_TRUE(answers.Find(KeyOf(Request("a")))->has_value());
  EXPECT_EQ(answers.DecidedAs(2).id, "");
}

TEST(TuningAnswersTest, WhatCameToNothingMayBeAskedForAgain) {
  TuningAnswers answers;
  answers.Decide(KeyOf(Request("a")), 2);
  answers.Drop(KeyOf(Request("a")));

  EXPECT_EQ(answers.DecidedAs(2).id, "");
  EXPECT_FALSE(answers.Find(KeyOf(Request("a", "int(4)")))->has_value());
}

TEST(TuningAnswersTest, TheOldestIsForgottenBeyondTheBound) {
  TuningAnswers answers;
  const int most = static_cast<int>(TuningAnswers::kMaxAnswers);
  for (int i = 0; i <= most; ++i) {
    answers.Remember(KeyOf(Request(absl::StrCat(i))), TuningOf(2));
  }

  EXPECT_FALSE(answers.Find(KeyOf(Request("0")))->has_value());
  EXPECT_TRUE(answers.Find(KeyOf(Request("1")))->has_value());
  EXPECT_TRUE(answers.Find(KeyOf(Request(absl::StrCat(most))))->has_value());
}

TEST(TuningAnswersTest, TheTextKeepsAll) {
  TuningAnswers answers;
  answers.Remember(KeyOf(Request("a \"b\" \xff")), TuningOf(2));
  answers.Decide(KeyOf(Request("c")), 3);

  const auto read = TuningAnswers::Read(answers.Text());

  ASSERT_TRUE(read.ok()) << read.status();
  const auto found = read->Find(KeyOf(Request("a \"b\" \xff")));
  ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
  EXPECT_EQ((*found)->SerializeAsString(), TuningOf(2).SerializeAsString());
  EXPECT_EQ(read->DecidedAs(3).id, "c");
  EXPECT_EQ(read->Text(), answers.Text());
}

TEST(TuningAnswersTest, DamagedTextsAreRefused) {
  EXPECT_TRUE(TuningAnswers::Read("").ok());
  TuningAnswers answers;
  answers.Remember(KeyOf(Request("a")), TuningOf(2));
  const std::string text = answers.Text();
  for (size_t size = 1; size < text.size(); ++size) {
    EXPECT_EQ(TuningAnswers::Read(text.substr(0, size)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
  for (const char* other : {"{}", "[1]", "[{}]", "[{\"id\":\"!\"}]"}) {
    EXPECT_FALSE(TuningAnswers::Read(other).ok()) << other;
  }
}

}  // namespace
}  // namespace deltapipe
