#include "coordinator/tuning/tuning_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Tuning ThreeBoundaries() {
  v1::Tuning tuning;
  tuning.set_job_id("text-1");
  tuning.set_etag("4-abc");
  for (int b = 0; b < 3; ++b) {
    v1::BoundaryTuning* boundary = tuning.add_boundaries();
    boundary->set_boundary(b);
    boundary->set_activations("int(4)");
    boundary->set_activation_gradients("int(8)");
    boundary->set_rate_limit("unlimited");
  }
  return tuning;
}

std::string ErrorOf(const std::vector<std::string>& edits) {
  const auto request = ParseTuningEdits(edits, ThreeBoundaries());
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(request.status().message());
}

TEST(TuningPathsTest, PlainKnobIsForAllBoundaries) {
  for (const char* edit :
       {"activations=int(2)", "compression.activations=int(2)",
        "boundaries[*].activations=int(2)",
        "boundaries[0-2].activations = int(2)"}) {
    const auto request = ParseTuningEdits({edit}, ThreeBoundaries());
    ASSERT_TRUE(request.ok()) << request.status();
    for (int b = 0; b < 3; ++b) {
      EXPECT_EQ(request->tuning().boundaries(b).activations(), "int(2)");
    }
    EXPECT_THAT(request->update_mask().paths(), ElementsAre("boundaries"));
  }
}

TEST(TuningPathsTest, LaterEditsRefineEarlierOnes) {
  const auto request = ParseTuningEdits(
      {"activations=int(2)", "boundaries[1].activations=int(8)",
       "boundaries[1-2].rate_limit=100Mbit/s", "gradients=sign"},
      ThreeBoundaries());

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->tuning().boundaries(0).activations(), "int(2)");
  EXPECT_EQ(request->tuning().boundaries(1).activations(), "int(8)");
  EXPECT_EQ(request->tuning().boundaries(0).rate_limit(), "unlimited");
  EXPECT_EQ(request->tuning().boundaries(2).rate_limit(), "100Mbit/s");
  EXPECT_EQ(request->tuning().etag(), "4-abc");
  EXPECT_THAT(request->update_mask().paths(),
              ElementsAre("boundaries", "gradients"));
}

TEST(TuningPathsTest, OtherKnobs) {
  const auto request =
      ParseTuningEdits({"tuner.mode=apply", "tuner.error_budget=0.1",
                        "budget=12MB/step", "stragglers.policy=none",
                        "saved_activations=none", "inject=slow:rank=3,x=1.5"},
                       ThreeBoundaries());

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->tuning().tuner().mode(), v1::Tuner::APPLY);
  EXPECT_EQ(request->tuning().tuner().error_budget(), 0.1);
  EXPECT_EQ(request->tuning().budget_bytes_per_step(), 12000000);
  EXPECT_EQ(request->tuning().straggler_policy(), "none");
  EXPECT_EQ(request->tuning().inject(), "slow:rank=3,x=1.5");
}

TEST(TuningPathsTest, EveryMistakeIsNamedWithItsColumn) {
  EXPECT_EQ(
      ErrorOf({"boundries[1].activations=int(4)",
               "boundaries[7].activations=int(4)",
               "boundaries[1].actvations=int(4)", "boundaries[x].rate_limit=1",
               "boundaries[1]=int(4)", "activatons=int(4)", "gradients",
               "gradients=", "tuner.mode=aply", "tuner.error_budget=3",
               "budget=12"}),
      "'boundries[1].activations=int(4)': column 1: unknown path "
      "'boundries[...]' (did you mean 'boundaries'?): only boundaries have "
      "numbers\n"
      "'boundaries[7].activations=int(4)': column 12: expected a boundary from "
      "0 to 2, got 7\n"
      "'boundaries[1].actvations=int(4)': column 15: a boundary has no "
      "'actvations' (did you mean 'activations'?): it has activations, "
      "activation_gradients, rate_limit\n"
      "'boundaries[x].rate_limit=1': column 12: expected a number, a range "
      "such as 0-2, or *, got 'x'\n"
      "'boundaries[1]=int(4)': column 14: expected '.' and one of "
      "activations, activation_gradients, rate_limit\n"
      "'activatons=int(4)': column 1: unknown path 'activatons' (did you mean "
      "'activations'?)\n"
      "'gradients': column 10: expected PATH=VALUE, got no '='\n"
      "'gradients=': column 11: expected a value after '='\n"
      "'tuner.mode=aply': column 12: expected off, propose or apply, got "
      "'aply' (did you mean 'apply'?)\n"
      "'tuner.error_budget=3': column 20: expected a relative error above 0, "
      "at most 1, got '3'\n"
      "'budget=12': column 8: budget '12': expected bytes per step, such as "
      "12MB/step or 600kB, or 'off'");
}

TEST(TuningPathsTest, UnlikePathsListTheKnownOnes) {
  EXPECT_THAT(ErrorOf({"zzzzzzz=1"}),
              HasSubstr("(known: boundaries[N].KNOB, activations, "));
}

TEST(TuningPathsTest, OneKnobTwiceIsAMistake) {
  EXPECT_EQ(ErrorOf({"gradients=sign", "gradients=none"}),
            "'gradients=none': column 1: is set by an argument before: name "
            "it once");
}

TEST(TuningPathsTest, OneStageHasNoBoundaries) {
  const auto request = ParseTuningEdits({"activations=int(4)"}, v1::Tuning());

  EXPECT_EQ(std::string(request.status().message()),
            "'activations=int(4)': column 1: the job has one stage and so no "
            "boundaries");
}

TEST(TuningPathsTest, BudgetsHaveUnits) {
  EXPECT_EQ(*ParseBudget("12MB/step"), 12000000);
  EXPECT_EQ(*ParseBudget("600kB"), 600000);
  EXPECT_EQ(*ParseBudget("off"), 0);
  for (const char* text : {"", "12", "all", "-1MB", "12MB/s", "0kB"}) {
    EXPECT_FALSE(ParseBudget(text).ok()) << text;
  }
  EXPECT_EQ(BudgetText(12000000), "12 MB/step");
  EXPECT_EQ(BudgetText(0), "off");
}

}  // namespace
}  // namespace deltapipe
