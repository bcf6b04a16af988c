#include "coordinator/schedule/check_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "coordinator/schedule/testing_plans.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using Instruction = v1::Instruction;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

Instruction MakeInstruction(InstructionKind kind, int microbatch) {
  Instruction instruction;
  instruction.set_kind(kind);
  instruction.set_microbatch(microbatch);
  return instruction;
}

/// Position of an instruction in a stage.
int Find(const v1::StagePlan& stage, InstructionKind kind, int microbatch) {
  for (int i = 0; i < stage.instructions_size(); ++i) {
    if (stage.instructions(i).kind() == kind &&
        stage.instructions(i).microbatch() == microbatch) {
      return i;
    }
  }
  ADD_FAILURE() << "no such instruction";
  return 0;
}

std::string RandomSchedule(const PipelineShape& shape, std::mt19937* random) {
  if ((*random)() % 4 == 0) return "gpipe";
  std::uniform_int_distribution<int> depths(-shape.num_stages,
                                            shape.num_microbatches);
  Schedule schedule = ParseSchedule("1f1b").value();
  schedule.warmup_depth = depths(*random);
  return schedule.text();
}

TEST(CheckPlanTest, TenThousandRandomPlansAreAccepted) {
  const uint32_t seed = 31;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  v1::Plan plan;
  for (int i = 0; i < 10'000; ++i) {
    // 1..16 stages and 1..64 micro-batches, small ones more often.
    const PipelineShape shape = {
        1 + static_cast<int>(random() % (1 + random() % 16)),
        1 + static_cast<int>(random() % (1 + random() % 64))};
    std::string schedule = RandomSchedule(shape, &random);
    PlanLimits limits;
    if (i % 2 == 0) limits.channel_capacity = shape.num_microbatches;
    limits.may_end_early = i % 5 == 0;  // for every number of micro-batches
    if (i % 5 == 1 && schedule != "gpipe") schedule.replace(0, 4, "2bw");

    MakeTestingPlan(schedule, shape, &plan);
    if (i % 7 == 0) {  // what a replica may have instead
      plan.set_num_microbatches((2 * shape.num_microbatches + 2) / 3);
      plan.set_max_microbatches(shape.num_microbatches);
    }

    const absl::Status status = CheckPlan(plan, limits);

    ASSERT_TRUE(status.ok())
        << status << "; plan " << i << ": " << schedule << " of "
        << shape.num_stages << " x " << shape.num_microbatches;
  }
}

/// Runs a plan with messages that carry their micro-batch, one instruction of a
/// random stage at a time: the plain meaning of a plan, against which the
/// checker is held. The order of the stages cannot matter.
class Interpreter {
 public:
  explicit Interpreter(const v1::Plan& plan) : plan_(plan) {}

  bool RunsToItsEnd(std::mt19937* random) {
    const int n = plan_.num_stages();
    position_.assign(n, 0);
    state_.resize(n);
    std::vector<int> order(n);
    for (int r = 0; r < n; ++r) order[r] = r;
    bool has_moved = true;
    while (has_moved && !is_broken_) {
      has_moved = false;
      std::shuffle(order.begin(), order.end(), *random);
      for (const int r : order) has_moved |= RunOne(r);
    }
    if (is_broken_) return false;
    for (int r = 0; r < n; ++r) {
      if (position_[r] < plan_.stages(r).instructions_size()) return false;
      if (!IsComplete(r)) return false;
    }
    for (const auto& channel : channels_) {
      if (!channel.second.empty()) return false;
    }
    return true;
  }

 private:
  struct State {
    std::map<std::pair<int, int>, int> runs;  // kind, micro-batch
    int in_flight = 0;
    int backwards = 0;
    bool has_reduced = false;
    bool has_applied = false;
  };

  bool Has(int r, InstructionKind kind, int mb) {
    return state_[r].runs.count({kind, mb}) > 0;
  }
  void Require(bool condition) { is_broken_ |= !condition; }

  /// What a stage without this neighbour does not need.
  bool IsFirst(int r) const { return r == 0; }
  bool IsLast(int r) const { return r + 1 == plan_.num_stages(); }

  bool RunOne(int r) {
    if (position_[r] == plan_.stages(r).instructions_size()) return false;
    const Instruction& instruction = plan_.stages(r).instructions(position_[r]);
    const int mb = instruction.microbatch();
    State& state = state_[r];
    Require(!state.has_applied);
    Require(mb >= 0 && mb < plan_.num_microbatches());
    switch (instruction.kind()) {
      case Instruction::LOAD:
        Require(IsFirst(r) || IsLast(r));
        break;
      case Instruction::RECEIVE_ACTIVATION:
        Require(!IsFirst(r));
        if (!is_broken_ && !Take({r - 1, 0}, mb)) return false;
        break;
      case Instruction::FORWARD:
        Require(IsFirst(r) || Has(r, Instruction::RECEIVE_ACTIVATION, mb));
        Require(!(IsFirst(r) || IsLast(r)) || Has(r, Instruction::LOAD, mb));
        Require(++state.in_flight <= plan_.stages(r).max_in_flight());
        break;
      case Instruction::SEND_ACTIVATION:
        Require(!IsLast(r) && Has(r, Instruction::FORWARD, mb));
        channels_[{r, 0}].push_back(mb);
        break;
      case Instruction::RECEIVE_GRADIENT:
        Require(!IsLast(r));
        if (!is_broken_ && !Take({r, 1}, mb)) return false;
        break;
      case Instruction::BACKWARD:
        Require(Has(r, Instruction::FORWARD, mb));
        Require(IsLast(r) || Has(r, Instruction::RECEIVE_GRADIENT, mb));
        --state.in_flight;
        ++state.backwards;
        break;
      case Instruction::SEND_GRADIENT:
        Require(!IsFirst(r) && Has(r, Instruction::BACKWARD, mb));
        channels_[{r - 1, 1}].push_back(mb);
        break;
      case Instruction::REDUCE:
        Require(mb == 0 && state.backwards == plan_.num_microbatches());
        state.has_reduced = true;
        break;
      case Instruction::APPLY:
        Require(mb == 0 && state.has_reduced);
        state.has_applied = true;
        break;
      default:
        Require(false);
    }
    Require(++state.runs[{instruction.kind(), mb}] == 1);
    ++position_[r];
    return true;
  }

  bool Take(std::pair<int, int> channel, int mb) {
    std::vector<int>& messages = channels_[channel];
    if (messages.empty()) return false;
    Require(messages.front() == mb);
    messages.erase(messages.begin());
    return true;
  }

  bool IsComplete(int r) {
    size_t expected = 2 * plan_.num_microbatches() + 2;
    if (IsFirst(r) || IsLast(r)) expected += plan_.num_microbatches();
    if (!IsFirst(r)) expected += 2 * plan_.num_microbatches();
    if (!IsLast(r)) expected += 2 * plan_.num_microbatches();
    return state_[r].runs.size() == expected;
  }

  const v1::Plan& plan_;
  std::vector<int> position_;
  std::vector<State> state_;
  std::map<std::pair<int, int>, std::vector<int>> channels_;
  bool is_broken_ = false;
};

/// Changes one thing of a plan and says what.
std::string Mutate(v1::Plan* plan, std::mt19937* random) {
  const auto below = [random](int n) {
    return static_cast<int>((*random)() % static_cast<uint32_t>(n));
  };
  v1::StagePlan* stage = plan->mutable_stages(below(plan->num_stages()));
  auto* instructions = stage->mutable_instructions();
  const int at = below(instructions->size());
  const std::string where = absl::StrCat(" stage ", stage->stage(), " at ", at);
  switch (below(7)) {
    case 0:
      instructions->SwapElements(at, below(instructions->size()));
      return "swap" + where;
    case 1:
      instructions->SwapElements(at,
                                 std::min(at + 1, instructions->size() - 1));
      return "swap neighbours" + where;
    case 2:
      instructions->DeleteSubrange(at, 1);
      return "drop" + where;
    case 3: {
      *instructions->Add() = Instruction(instructions->Get(at));
      for (int i = instructions->size() - 1; i > at; --i) {
        if (below(4) == 0) break;
        instructions->SwapElements(i, i - 1);
      }
      return "duplicate" + where;
    }
    case 4:
      instructions->Mutable(at)->set_microbatch(
          below(plan->num_microbatches() + 1) - (below(8) == 0));
      return "retarget" + where;
    case 5:
      instructions->Mutable(at)->set_kind(
          static_cast<InstructionKind>(below(11)));
      return "another kind" + where;
    default:
      stage->set_max_in_flight(below(stage->max_in_flight() + 2));
      return "another bound" + where;
  }
}

TEST(CheckPlanTest, MutatedPlansAreRefusedExactlyIfTheyBreak) {
  const uint32_t seed = 77;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int num_refused = 0;
  int num_harmless = 0;
  for (int i = 0; i < 3'000; ++i) {
    const PipelineShape shape = {1 + static_cast<int>(random() % 5),
                                 1 + static_cast<int>(random() % 6)};
    v1::Plan plan = TestingPlan(RandomSchedule(shape, &random), shape);
    const std::string what = Mutate(&plan, &random);

    const absl::Status status = CheckPlan(plan);

    const bool runs = Interpreter(plan).RunsToItsEnd(&random);
    ASSERT_EQ(status.ok(), runs)
        << "round " << i << ": " << what << ": " << status << "\n"
        << plan.DebugString();
    if (runs) {
      ++num_harmless;
      continue;
    }
    ++num_refused;
    ASSERT_THAT(Message(status),
                MatchesRegex("plan refused: (deadlock: )?stage [0-9]+"
                             "(, instruction [0-9]+ \\([^)]+\\))?.*"))
        << what;
  }
  // Both kinds of mutation must have been met, or the test shows nothing.
  EXPECT_GT(num_refused, 1'500);
  EXPECT_GT(num_harmless, 100);
}

TEST(CheckPlanTest, APlanThatMayEndEarlyBeginsItsMicrobatchesInOrder) {
  v1::Plan plan;
  MakeTestingPlan("gpipe", {2, 3}, &plan);
  // Consistently swapped on both sides: sound, unless the step may end early.
  for (v1::StagePlan& stage : *plan.mutable_stages()) {
    for (Instruction& instruction : *stage.mutable_instructions()) {
      const bool is_closing = instruction.kind() == Instruction::REDUCE ||
                              instruction.kind() == Instruction::APPLY;
      if (!is_closing && instruction.microbatch() < 2) {
        instruction.set_microbatch(1 - instruction.microbatch());
      }
    }
  }
  PlanLimits limits;
  ASSERT_TRUE(CheckPlan(plan, limits).ok());

  limits.may_end_early = true;

  EXPECT_THAT(Message(CheckPlan(plan, limits)),
              AllOf(HasSubstr("stage 0"), HasSubstr("expected micro-batch 0"),
                    HasSubstr("begin in their order")));
}

TEST(CheckPlanTest, ContinuousPlansAreCheckedAcrossTheirSteps) {
  const auto refusal = [](int stage, const auto& change) {
    v1::Plan plan = TestingPlan("2bw", {2, 2});
    EXPECT_TRUE(CheckPlan(plan).ok()) << CheckPlan(plan);
    auto* instructions = plan.mutable_stages(stage)->mutable_instructions();
    change(instructions);
    return Message(CheckPlan(plan));
  };
  const v1::Plan plan = TestingPlan("2bw", {2, 2});
  const int apply = Find(plan.stages(0), Instruction::APPLY, 0);

  EXPECT_THAT(refusal(0,
                      [&](auto* instructions) {
                        for (int i = apply; i + 2 < instructions->size(); ++i) {
                          instructions->SwapElements(i, i + 1);
                        }
                      }),
              HasSubstr("FORWARD of micro-batch 4): runs before the update "
                        "that made its weights"));
  EXPECT_THAT(refusal(1,
                      [&](auto* instructions) {
                        const int last = instructions->size() - 1;
                        instructions->SwapElements(last, last - 1);
                      }),
              HasSubstr("runs before the last APPLY"));
  EXPECT_THAT(refusal(0,
                      [&](auto* instructions) {
                        instructions->Mutable(apply)->set_step_offset(0);
                      }),
              HasSubstr("cannot be of the step at distance 0"));
  EXPECT_THAT(refusal(0,
                      [&](auto* instructions) {
                        instructions->Mutable(0)->set_step_offset(2);
                      }),
              HasSubstr("cannot be of the step at distance 2"));

  PlanLimits limits;
  limits.may_end_early = true;
  EXPECT_THAT(Message(CheckPlan(plan, limits)), HasSubstr("cannot end early"));
}

TEST(CheckPlanTest, InstructionsGoUpToTheMostThatAReplicaMayHave) {
  v1::Plan plan = TestingPlan("1f1b", {2, 6});
  plan.set_num_microbatches(4);
  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("expected a micro-batch in 0..3"));

  plan.set_max_microbatches(6);
  EXPECT_TRUE(CheckPlan(plan).ok());

  plan.set_max_microbatches(7);
  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("runs after 6 of 7 BACKWARDs"));
  plan.set_max_microbatches(3);
  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("expected at least num_microbatches (4) as "
                        "max_microbatches, or 0, got 3"));
  plan.set_max_microbatches(INT32_MAX);
  EXPECT_THAT(Message(CheckPlan(plan)), HasSubstr("for 2147483647 micro"));
}

TEST(CheckPlanTest, APlanWithRoomBeginsItsMicrobatchesInOrder) {
  v1::Plan plan = TestingPlan("gpipe", {2, 3});
  for (v1::StagePlan& stage : *plan.mutable_stages()) {
    for (Instruction& instruction : *stage.mutable_instructions()) {
      if (instruction.kind() == Instruction::REDUCE ||
          instruction.kind() == Instruction::APPLY) {
        continue;
      }
      if (instruction.microbatch() < 2) {
        instruction.set_microbatch(1 - instruction.microbatch());
      }
    }
  }
  ASSERT_TRUE(CheckPlan(plan).ok());
  plan.set_num_microbatches(2);
  plan.set_max_microbatches(3);

  EXPECT_THAT(Message(CheckPlan(plan)), HasSubstr("begin in their order"));
}

TEST(CheckPlanTest, DroppedInstructionIsNamed) {
  v1::Plan plan = TestingPlan("1f1b", {3, 4});
  auto* instructions = plan.mutable_stages(1)->mutable_instructions();
  instructions->DeleteSubrange(
      Find(plan.stages(1), Instruction::SEND_ACTIVATION, 2), 1);

  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("stage 1: ends at instruction 25 without "
                        "SEND_ACTIVATION of micro-batch 2"));
}

TEST(CheckPlanTest, DuplicateIsNamed) {
  v1::Plan plan = TestingPlan("gpipe", {2, 2});
  *plan.mutable_stages(0)->mutable_instructions(0) =
      MakeInstruction(Instruction::LOAD, 1);

  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("stage 0, instruction 1 (FORWARD of micro-batch 0): "
                        "runs before its LOAD"));
}

TEST(CheckPlanTest, ReduceBeforeTheLastBackwardIsRefused) {
  v1::Plan plan = TestingPlan("1f1b", {1, 2});
  auto* instructions = plan.mutable_stages(0)->mutable_instructions();
  instructions->SwapElements(5, 6);

  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("instruction 5 (REDUCE): runs after 1 of 2 BACKWARDs"));
}

TEST(CheckPlanTest, NothingFollowsApply) {
  v1::Plan plan = TestingPlan("1f1b", {1, 1});
  *plan.mutable_stages(0)->add_instructions() =
      MakeInstruction(Instruction::APPLY, 0);

  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("instruction 5 (APPLY): follows APPLY"));
}

TEST(CheckPlanTest, ReceiverInAnotherOrderIsRefused) {
  v1::Plan plan = TestingPlan("gpipe", {2, 2});
  v1::StagePlan* last = plan.mutable_stages(1);
  for (Instruction& instruction : *last->mutable_instructions()) {
    if (instruction.kind() == Instruction::LOAD ||
        instruction.kind() == Instruction::RECEIVE_ACTIVATION ||
        instruction.kind() == Instruction::FORWARD) {
      instruction.set_microbatch(1 - instruction.microbatch());
    }
  }

  EXPECT_THAT(
      Message(CheckPlan(plan)),
      HasSubstr("stage 1, instruction 1 (RECEIVE_ACTIVATION of micro-batch "
                "1): meets micro-batch 0, which stage 0 sends at instruction "
                "2"));
}

TEST(CheckPlanTest, StagesThatWaitForEachOtherAreADeadlock) {
  v1::Plan plan = TestingPlan("1f1b", {2, 2});
  // The first stage wants the gradient of 0 before it sends the activation.
  auto* instructions = plan.mutable_stages(0)->mutable_instructions();
  const int receive = Find(plan.stages(0), Instruction::RECEIVE_GRADIENT, 0);
  for (int i = receive; i > 2; --i) instructions->SwapElements(i, i - 1);

  const absl::Status status = CheckPlan(plan);

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("deadlock: stage 0, instruction 2 "
                              "(RECEIVE_GRADIENT of micro-batch 0) waits for "
                              "stage 1, instruction 1 (RECEIVE_ACTIVATION of "
                              "micro-batch 0), which waits for it")));
}

TEST(CheckPlanTest, SmallChannelsDeadlockWhatLargerOnesRun) {
  // Stage 0 sends four activations before it takes a gradient; stage 1 cannot
  // put down its second gradient and stops taking activations.
  const v1::Plan plan = TestingPlan("1f1b+2", {2, 8});
  PlanLimits limits;
  limits.channel_capacity = 2;
  EXPECT_TRUE(CheckPlan(plan, limits).ok()) << CheckPlan(plan, limits);

  limits.channel_capacity = 1;
  const absl::Status status = CheckPlan(plan, limits);

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("(SEND_ACTIVATION of micro-batch 3) waits for "
                              "stage 1"),
                    HasSubstr("channels hold 1 messages")));
}

TEST(CheckPlanTest, MemoryBudgetIsHeldPerStage) {
  const v1::Plan plan = TestingPlan("1f1b", {3, 8});
  PlanLimits limits;
  limits.saved_bytes = {100, 200, 100};
  limits.memory_budget_bytes = 400;
  EXPECT_TRUE(CheckPlan(plan, limits).ok()) << CheckPlan(plan, limits);

  limits.memory_budget_bytes = 399;
  const absl::Status status = CheckPlan(plan, limits);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status),
              HasSubstr("stage 1: saved activations of 2 micro-batches take "
                        "400 B, the budget is 399 B"));
}

TEST(CheckPlanTest, MoreInFlightThanDeclaredIsRefused) {
  v1::Plan plan = TestingPlan("1f1b+2", {2, 6});
  plan.mutable_stages(0)->set_max_in_flight(3);

  EXPECT_THAT(Message(CheckPlan(plan)),
              HasSubstr("holds 4 micro-batches in flight, max_in_flight is 3"));
}

TEST(CheckPlanTest, StageAndLayerNumbersHaveNoGaps) {
  v1::Plan renumbered = TestingPlan("1f1b", {2, 2});
  renumbered.mutable_stages(1)->set_stage(2);
  EXPECT_THAT(Message(CheckPlan(renumbered)), HasSubstr("is numbered 2"));

  v1::Plan gap = TestingPlan("1f1b", {2, 2});
  gap.mutable_stages(1)->set_first_layer(0);
  EXPECT_THAT(Message(CheckPlan(gap)),
              HasSubstr("stage 1: expected layers from 1, got [0, 2)"));

  v1::Plan count = TestingPlan("1f1b", {2, 2});
  count.set_num_stages(3);
  EXPECT_THAT(Message(CheckPlan(count)),
              HasSubstr("num_stages is 3, but it has 2 stages"));

  EXPECT_FALSE(CheckPlan(v1::Plan()).ok());
}

TEST(CheckPlanTest, HostileNumbersAreRefusedBeforeTheyCostMemory) {
  v1::Plan plan = TestingPlan("1f1b", {2, 2});
  plan.set_num_microbatches(INT32_MAX);
  EXPECT_THAT(Message(CheckPlan(plan)), HasSubstr("for 2147483647 micro"));

  v1::Plan unknown = TestingPlan("1f1b", {2, 2});
  unknown.mutable_stages(0)->mutable_instructions(1)->set_kind(
      static_cast<InstructionKind>(1234));
  EXPECT_THAT(Message(CheckPlan(unknown)),
              HasSubstr("instruction of unknown kind 1234"));

  v1::Plan negative = TestingPlan("1f1b", {2, 2});
  negative.mutable_stages(0)->mutable_instructions(1)->set_microbatch(-1);
  EXPECT_THAT(Message(CheckPlan(negative)),
              HasSubstr("expected a micro-batch in 0..1"));
}

}  // namespace
}  // namespace deltapipe
