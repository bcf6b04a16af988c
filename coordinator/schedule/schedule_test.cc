#include "coordinator/schedule/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/schedule/orders.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Instruction = v1::Instruction;

std::vector<int> InFlight(const std::string& schedule,
                          const PipelineShape& shape) {
  std::vector<int> in_flight;
  for (const Program& program :
       ProgramsOf(ParseSchedule(schedule).value(), shape)) {
    in_flight.push_back(PeakInFlight(program));
  }
  return in_flight;
}

TEST(ScheduleTest, SingleStageLoadsEachMicrobatchOnceAndSendsNothing) {
  const Program program = ProgramOf(ParseSchedule("1f1b").value(), {1, 2}, 0);

  EXPECT_THAT(
      program,
      ElementsAre(Step{Instruction::LOAD, 0}, Step{Instruction::FORWARD, 0},
                  Step{Instruction::BACKWARD, 0}, Step{Instruction::LOAD, 1},
                  Step{Instruction::FORWARD, 1}, Step{Instruction::BACKWARD, 1},
                  Step{Instruction::REDUCE, 0}, Step{Instruction::APPLY, 0}));
}

TEST(ScheduleTest, FirstOfTwoStagesRunsOneForwardAhead) {
  const Program program = ProgramOf(ParseSchedule("1f1b").value(), {2, 2}, 0);

  EXPECT_THAT(
      program,
      ElementsAre(Step{Instruction::LOAD, 0}, Step{Instruction::FORWARD, 0},
                  Step{Instruction::SEND_ACTIVATION, 0},
                  Step{Instruction::LOAD, 1}, Step{Instruction::FORWARD, 1},
                  Step{Instruction::SEND_ACTIVATION, 1},
                  Step{Instruction::RECEIVE_GRADIENT, 0},
                  Step{Instruction::BACKWARD, 0},
                  Step{Instruction::RECEIVE_GRADIENT, 1},
                  Step{Instruction::BACKWARD, 1}, Step{Instruction::REDUCE, 0},
                  Step{Instruction::APPLY, 0}));
}

TEST(ScheduleTest, LastStageLoadsTargetsAndReceivesInputs) {
  const Program program = ProgramOf(ParseSchedule("gpipe").value(), {2, 1}, 1);

  EXPECT_THAT(
      program,
      ElementsAre(Step{Instruction::LOAD, 0},
                  Step{Instruction::RECEIVE_ACTIVATION, 0},
                  Step{Instruction::FORWARD, 0}, Step{Instruction::BACKWARD, 0},
                  Step{Instruction::SEND_GRADIENT, 0},
                  Step{Instruction::REDUCE, 0}, Step{Instruction::APPLY, 0}));
}

TEST(ScheduleTest, GpipeHoldsEveryMicrobatch) {
  EXPECT_THAT(InFlight("gpipe", {3, 5}), ElementsAre(5, 5, 5));
}

TEST(ScheduleTest, PlainOneForwardOneBackwardHoldsTheStagesBehind) {
  EXPECT_THAT(InFlight("1f1b", {4, 8}), ElementsAre(4, 3, 2, 1));
}

TEST(ScheduleTest, WarmupDepthTapersToTheLastStage) {
  EXPECT_THAT(InFlight("1f1b+3", {4, 32}), ElementsAre(7, 5, 3, 1));
  EXPECT_THAT(InFlight("1f1b+8", {8, 32}),
              ElementsAre(16, 14, 12, 10, 8, 6, 4, 1));
}

TEST(ScheduleTest, NegativeDepthCapsEveryStage) {
  EXPECT_THAT(InFlight("1f1b-2", {4, 8}), ElementsAre(2, 2, 2, 1));
  EXPECT_THAT(InFlight("1f1b-9", {4, 8}), ElementsAre(1, 1, 1, 1));
}

TEST(ScheduleTest, NoMoreInFlightThanThereAre) {
  EXPECT_THAT(InFlight("1f1b+100", {4, 3}), ElementsAre(3, 3, 3, 1));
}

TEST(ScheduleTest, DeclaredInFlightIsThePrograms) {
  for (int stages = 1; stages <= 9; ++stages) {
    for (int depth = -10; depth <= 20; ++depth) {
      const PipelineShape shape = {stages, 7};
      for (int r = 0; r < stages; ++r) {
        EXPECT_EQ(OneForwardOneBackwardInFlight(shape, r, depth),
                  PeakInFlight(OneForwardOneBackwardOrder(shape, r, depth)))
            << stages << " stages, stage " << r << ", depth " << depth;
      }
    }
  }
}

TEST(ScheduleTest, TwoBufferedWeightsBeginTheNextStepWhere1F1BDrains) {
  const Schedule schedule = ParseSchedule("2bw").value();

  EXPECT_THAT(
      ProgramOf(schedule, {2, 2}, 0),
      ElementsAre(
          Step{Instruction::LOAD, 1}, Step{Instruction::FORWARD, 1},
          Step{Instruction::SEND_ACTIVATION, 1},
          Step{Instruction::RECEIVE_GRADIENT, 0},
          Step{Instruction::BACKWARD, 0}, Step{Instruction::APPLY, 0, -1},
          Step{Instruction::LOAD, 0, 1}, Step{Instruction::FORWARD, 0, 1},
          Step{Instruction::SEND_ACTIVATION, 0, 1},
          Step{Instruction::RECEIVE_GRADIENT, 1},
          Step{Instruction::BACKWARD, 1}, Step{Instruction::REDUCE, 0}));
  EXPECT_THAT(
      ProgramOf(schedule, {1, 1}, 0),
      ElementsAre(Step{Instruction::LOAD, 0}, Step{Instruction::FORWARD, 0},
                  Step{Instruction::BACKWARD, 0},
                  Step{Instruction::APPLY, 0, -1},
                  Step{Instruction::REDUCE, 0}));
}

TEST(ScheduleTest, UnrolledStepsAreNumberedOn) {
  const Program program =
      Unroll(ProgramOf(ParseSchedule("2bw").value(), {2, 2}, 0), 2);

  std::vector<int> forwards;
  std::vector<Step> closing;
  for (const Step& step : program) {
    if (step.kind == Instruction::FORWARD) forwards.push_back(step.microbatch);
    if (step.kind == Instruction::REDUCE || step.kind == Instruction::APPLY) {
      closing.push_back(step);
    }
  }
  EXPECT_THAT(forwards, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(
      closing,
      ElementsAre(Step{Instruction::REDUCE, 0}, Step{Instruction::APPLY, 0},
                  Step{Instruction::REDUCE, 1}, Step{Instruction::APPLY, 1}));
}

TEST(ScheduleTest, TwoBufferedWeightsHoldAsManyAs1F1B) {
  for (const char* depth : {"", "+3", "-2"}) {
    EXPECT_EQ(InFlight(absl::StrCat("2bw", depth), {4, 32}),
              InFlight(absl::StrCat("1f1b", depth), {4, 32}))
        << depth;
  }
}

TEST(ScheduleTest, TextIsReadBack) {
  for (const char* text :
       {"gpipe", "1f1b", "1f1b+3", "1f1b-2", "2bw", "2bw+1"}) {
    EXPECT_EQ(ParseSchedule(text).value().text(), text);
  }
}

TEST(ScheduleTest, UnknownTextsAreRefusedWithWhatIsKnown) {
  for (const char* text : {"", "1f1", "1f1b+", "1f1b3", "gpipe+1", "1f1b+x",
                           "1f1b+99999999", "zb"}) {
    const auto schedule = ParseSchedule(text);
    ASSERT_FALSE(schedule.ok()) << text;
    EXPECT_EQ(schedule.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(
        std::string(schedule.status().message()),
        HasSubstr("expected one of gpipe, 1f1b, 1f1b+N, 2bw, 2bw+N, got"));
  }
}

TEST(ScheduleTest, InstructionsSurviveThePlan) {
  v1::Plan plan;
  const Program program = ProgramOf(ParseSchedule("1f1b+1").value(), {3, 5}, 1);
  const Program continuous = ProgramOf(ParseSchedule("2bw").value(), {3, 5}, 1);
  SetInstructions(program, plan.add_stages());
  SetInstructions(continuous, plan.add_stages());

  EXPECT_THAT(ProgramsOf(plan), ElementsAre(program, continuous));
}

}  // namespace
}  // namespace deltapipe
