#include "coordinator/schedule/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Instruction = v1::Instruction;

PipelineModel EvenModel(int num_stages, double forward, double backward) {
  PipelineModel model;
  model.stages.assign(num_stages, {forward, backward, 0, 0});
  model.links.resize(num_stages - 1);
  return model;
}

Simulation SimulateText(const std::string& schedule, const PipelineShape& shape,
                        const PipelineModel& model) {
  return Simulate(ProgramsOf(ParseSchedule(schedule).value(), shape), model)
      .value();
}

class FreeLinks : public ::testing::TestWithParam<std::string> {};

TEST_P(FreeLinks, BubbleIsTheClosedForm) {
  for (int p = 1; p <= 12; ++p) {
    for (int m = p; m <= 40; m += 3) {
      const Simulation simulation =
          SimulateText(GetParam(), {p, m}, EvenModel(p, 0.25, 0.75));

      EXPECT_NEAR(simulation.bubble, (p - 1.0) / (m + p - 1), 1e-12)
          << p << " stages, " << m << " micro-batches";
      EXPECT_NEAR(simulation.step_seconds, m + p - 1, 1e-9);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(SimulateTest, FreeLinks,
                         ::testing::Values("gpipe", "1f1b", "1f1b+4"),
                         [](const auto& info) {
                           return info.param == "gpipe"  ? "Gpipe"
                                  : info.param == "1f1b" ? "Plain"
                                                         : "Deep";
                         });

TEST(SimulateTest, WithoutAFlushFreeLinksLeaveNoBubble) {
  for (int p = 1; p <= 12; ++p) {
    for (int m = p; m <= 40; m += 3) {
      const Simulation simulation =
          SimulateText("2bw", {p, m}, EvenModel(p, 0.25, 0.75));

      EXPECT_NEAR(simulation.step_seconds, m, 1e-9)
          << p << " stages, " << m << " micro-batches";
      EXPECT_NEAR(simulation.bubble, 0, 1e-12);
    }
  }
}

TEST(SimulateTest, WithoutAFlushTheUpdateHidesBehindTheNextStep) {
  PipelineModel model = EvenModel(4, 0.25, 0.75);
  for (StageModel& stage : model.stages) stage.reduce_seconds = 3;
  const double hidden = SimulateText("2bw", {4, 8}, model).step_seconds;
  for (StageModel& stage : model.stages) stage.reduce_seconds = 9;
  const double exposed = SimulateText("2bw", {4, 8}, model).step_seconds;

  EXPECT_NEAR(hidden, 8, 1e-9);
  // Stage 0 is the last to reduce, and needs the update for its next FORWARD
  // after 5 of the 8 micro-batches: 4 of 9 seconds are waited for.
  EXPECT_NEAR(exposed, 12, 1e-9);
}

// GPT2-XL on 8 stages with 32 micro-batches of 1024 x 1600 activations, 45 ms
// forward, 135 ms backward, full-duplex FIFO links: sequences per second that
// an independent simulation gave. `deep_in_flight` is the warm-up that hides
// the round trip: (P-r-1) (1 + c/t) + 1 at stage r, rounded up.
struct Row {
  double bits_per_second;
  double latency_seconds;
  int forward_bits;
  int backward_bits;
  double gpipe;
  double plain;
  double deep;
};

class Gpt2XlTable : public ::testing::TestWithParam<Row> {
 protected:
  static constexpr int kStages = 8;
  static constexpr int kMicrobatches = 32;
  static constexpr double kElements = 1024.0 * 1600;

  static PipelineModel Model(const Row& row) {
    PipelineModel model = EvenModel(kStages, 0.045, 0.135);
    for (LinkModel& link : model.links) {
      link.bits_per_second = row.bits_per_second;
      link.latency_seconds = row.latency_seconds;
      link.activation.bytes = kElements * row.forward_bits / 8;
      link.gradient.bytes = kElements * row.backward_bits / 8;
    }
    return model;
  }

  /// 1F1B whose stage r holds exactly `in_flight[r]` micro-batches.
  static std::vector<Program> Deep(const std::vector<int>& in_flight) {
    Schedule schedule = ParseSchedule("1f1b").value();
    std::vector<Program> programs;
    for (int r = 0; r < kStages; ++r) {
      schedule.warmup_depth = -kStages;
      Program program;
      do {
        program = ProgramOf(schedule, {kStages, kMicrobatches}, r);
        ++schedule.warmup_depth;
      } while (PeakInFlight(program) < in_flight[r]);
      programs.push_back(program);
    }
    return programs;
  }

  static std::vector<int> InFlightThatHidesTheRoundTrip(
      const PipelineModel& model) {
    const LinkModel& link = model.links[0];
    const double forward = link.WireSeconds(link.activation);
    const double backward = link.WireSeconds(link.gradient);
    const double round_trip = forward + backward + 2 * link.latency_seconds;
    const double slowest = std::max({0.180, forward, backward});
    std::vector<int> in_flight;
    for (int r = 0; r < kStages; ++r) {
      const int behind = kStages - 1 - r;
      in_flight.push_back(
          behind + 1 +
          static_cast<int>(std::ceil(behind * round_trip / slowest - 1e-9)));
    }
    return in_flight;
  }
};

TEST_P(Gpt2XlTable, SequencesPerSecondWithinThreePercent) {
  const Row& row = GetParam();
  const PipelineShape shape = {kStages, kMicrobatches};
  const PipelineModel model = Model(row);

  const double gpipe =
      kMicrobatches / SimulateText("gpipe", shape, model).step_seconds;
  const double plain =
      kMicrobatches / SimulateText("1f1b", shape, model).step_seconds;
  const double deep =
      kMicrobatches /
      Simulate(Deep(InFlightThatHidesTheRoundTrip(model)), model)
          .value()
          .step_seconds;

  EXPECT_NEAR(gpipe, row.gpipe, 0.03 * row.gpipe);
  EXPECT_NEAR(plain, row.plain, 0.03 * row.plain);
  EXPECT_NEAR(deep, row.deep, 0.03 * row.deep);
}

INSTANTIATE_TEST_SUITE_P(
    SimulateTest, Gpt2XlTable,
    ::testing::Values(Row{500e6, 0, 16, 16, 4.01, 3.02, 3.57},
                      Row{500e6, 0, 4, 8, 4.39, 3.83, 3.98},
                      Row{500e6, 0.05, 16, 16, 3.68, 2.29, 3.71},
                      Row{500e6, 0.05, 4, 8, 4.00, 2.72, 3.42},
                      Row{100e6, 0, 32, 32, 0.78, 0.75, 1.18},
                      Row{100e6, 0, 4, 8, 3.54, 2.33, 3.78},
                      Row{100e6, 0, 2, 4, 4.15, 3.09, 3.63},
                      Row{100e6, 0.05, 16, 16, 1.45, 1.13, 2.19},
                      Row{100e6, 0.05, 4, 8, 3.29, 1.87, 3.23},
                      Row{100e6, 0.05, 2, 4, 3.81, 2.33, 3.77}));

TEST(SimulateTest, OneMicrobatchPaysEveryHopInBothDirections) {
  PipelineModel model = EvenModel(2, 1, 2);
  model.links[0] = {8, 0.5, {3, 0.25, 0.125}, {4, 0.0625, 0.03125}};

  const Simulation simulation = SimulateText("1f1b", {2, 1}, model);

  const double there = 0.25 + 3 + 0.5 + 0.125;
  const double back = 0.0625 + 4 + 0.5 + 0.03125;
  EXPECT_DOUBLE_EQ(simulation.step_seconds, 1 + there + 1 + 2 + back + 2);
  EXPECT_DOUBLE_EQ(simulation.stages[0].busy_seconds, 3);
  EXPECT_DOUBLE_EQ(simulation.stages[0].idle_seconds,
                   simulation.step_seconds - 3);
  EXPECT_DOUBLE_EQ(simulation.links[0].activation_busy_seconds, 3);
  EXPECT_DOUBLE_EQ(simulation.links[0].gradient_busy_seconds, 4);
}

TEST(SimulateTest, EncodersLinksAndDecodersOverlap) {
  // Each resource takes 1 s a micro-batch: they form a pipeline of their own.
  PipelineModel model = EvenModel(2, 0, 0);
  model.links[0] = {8, 0, {1, 1, 1}, {0, 0, 0}};

  const Simulation simulation = SimulateText("gpipe", {2, 10}, model);

  EXPECT_DOUBLE_EQ(simulation.step_seconds, 10 + 2);
}

TEST(SimulateTest, DirectionsDoNotShareALink) {
  PipelineModel model = EvenModel(2, 0, 0);
  model.links[0] = {8, 0, {1, 0, 0}, {1, 0, 0}};

  const Simulation simulation = SimulateText("1f1b+30", {2, 20}, model);

  EXPECT_DOUBLE_EQ(simulation.step_seconds, 21);
}

TEST(SimulateTest, ApplyWaitsForTheSlowestReduceAndTheVerdict) {
  PipelineModel model = EvenModel(3, 1, 1);
  model.stages[1].reduce_seconds = 5;
  model.stages[2].apply_seconds = 0.5;
  model.verdict_seconds = 0.25;

  const Simulation simulation = SimulateText("1f1b", {3, 1}, model);

  // Stage 1 ends its backward at 5 and its reduce at 10.
  EXPECT_DOUBLE_EQ(simulation.step_seconds, 10 + 0.25 + 0.5);
}

TEST(SimulateTest, PeakInFlightIsTheSchedules) {
  const Simulation simulation =
      SimulateText("1f1b+2", {3, 9}, EvenModel(3, 1, 2));

  EXPECT_EQ(simulation.stages[0].peak_in_flight, 5);
  EXPECT_EQ(simulation.stages[1].peak_in_flight, 3);
  EXPECT_EQ(simulation.stages[2].peak_in_flight, 1);
}

TEST(SimulateTest, SpansCoverTheComputeInOrder) {
  const auto simulation =
      Simulate(ProgramsOf(ParseSchedule("1f1b").value(), {2, 2}),
               EvenModel(2, 1, 2), /*keep_spans=*/true);

  ASSERT_TRUE(simulation.ok()) << simulation.status();
  std::vector<double> begins;
  for (const ComputeSpan& span : simulation->stages[1].spans) {
    begins.push_back(span.begin_seconds);
  }
  EXPECT_THAT(begins, ElementsAre(1, 2, 4, 5, 7, 9));
}

TEST(SimulateTest, CrossedReceivesAreADeadlock) {
  const std::vector<Program> programs = {
      {{Instruction::RECEIVE_GRADIENT, 0}, {Instruction::SEND_ACTIVATION, 0}},
      {{Instruction::RECEIVE_ACTIVATION, 0}, {Instruction::SEND_GRADIENT, 0}}};

  const auto simulation = Simulate(programs, EvenModel(2, 1, 1));

  EXPECT_EQ(simulation.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(simulation.status().message()),
              HasSubstr("stage 0 waits at instruction 0, RECEIVE_GRADIENT"));
}

TEST(SimulateTest, AnotherOrderAtTheReceiverIsAnError) {
  const std::vector<Program> programs = {
      {{Instruction::SEND_ACTIVATION, 0}, {Instruction::SEND_ACTIVATION, 1}},
      {{Instruction::RECEIVE_ACTIVATION, 1}}};

  const auto simulation = Simulate(programs, EvenModel(2, 1, 1));

  EXPECT_EQ(simulation.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(simulation.status().message()),
              HasSubstr("micro-batch 1 meets micro-batch 0"));
}

TEST(SimulateTest, ModelOfAnotherSizeIsRefused) {
  const auto simulation = Simulate(
      ProgramsOf(ParseSchedule("1f1b").value(), {3, 2}), EvenModel(2, 1, 1));

  EXPECT_EQ(simulation.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
