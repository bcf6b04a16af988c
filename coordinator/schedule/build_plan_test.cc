#include "coordinator/schedule/build_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <regex>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/schedule/check_plan.h"
#include "coordinator/schedule/pipeline_model.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/simulate.h"
#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

PlanInputs TextInputs() {
  PlanInputs inputs;
  inputs.spec = TestingTextSpec();
  inputs.profile = TestingTextProfile();
  inputs.train_samples = 4'453;
  return inputs;
}

PlanInputs Gpt2XlInputs(const std::string& bandwidth) {
  PlanInputs inputs;
  inputs.spec = TestingGpt2XlSpec();
  inputs.spec.mutable_network()->mutable_emulate()->set_bandwidth(bandwidth);
  return inputs;
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(BuildPlanTest, TextJobIsPlannedInFull) {
  const auto job = BuildPlan(TextInputs());

  ASSERT_TRUE(job.ok()) << job.status();
  const v1::Plan& plan = job->plan;
  EXPECT_EQ(plan.revision(), 1);
  EXPECT_EQ(plan.num_stages(), 2);
  EXPECT_EQ(plan.num_replicas(), 2);
  EXPECT_EQ(plan.num_microbatches(), 4);
  EXPECT_EQ(plan.microbatch_samples(), 4);
  EXPECT_EQ(plan.activation_codec(), "delta(int(4),first=int(8))");
  EXPECT_EQ(plan.activation_gradient_codec(), "int(8,round=stochastic)");
  EXPECT_EQ(plan.gradient_codec(), "sign(block=0)");
  ASSERT_EQ(plan.stages_size(), 2);
  EXPECT_EQ(plan.stages(0).end_layer(), 3);
  EXPECT_EQ(plan.stages(1).parameters(), 440'000);
  EXPECT_DOUBLE_EQ(plan.stages(1).backward_seconds(), 0.036);
  ASSERT_EQ(plan.links_size(), 1);
  EXPECT_GT(plan.links(0).state_bytes(), 7e7);
  EXPECT_NEAR(plan.gradient_plain_bytes(), 4 * 440'000, 1'000);
  EXPECT_NEAR(plan.gradient_compressed_bytes(), 440'000 / 8, 1'000);
  EXPECT_TRUE(CheckPlan(plan).ok()) << CheckPlan(plan);
}

/// How large |x| is after some steps of descent on lambda x^2 / 2, whose
/// gradients are of weights one update old: `rate` is in units of 1 / lambda.
double DelayedDescent(double rate, double momentum, bool is_shifted) {
  double x = 1;
  double former_x = 1;
  double momenta[2] = {0, 0};
  double largest = 0;
  for (int step = 0; step < 40'000; ++step) {
    double& m = momenta[is_shifted ? step % 2 : 0];
    m = momentum * m + former_x;
    former_x = x;
    x -= rate * m;
    if (step >= 39'000) largest = std::max(largest, std::abs(x));
    if (std::abs(x) > 1e100) return x;
  }
  return largest;
}

TEST(BuildPlanTest, WithoutAFlushTheNotesGiveTheLargestStableRate) {
  for (const char* form : {"standard", "shifted"}) {
    for (const double momentum : {0.0, 0.5, 0.9}) {
      SCOPED_TRACE(absl::StrCat(form, " ", momentum));
      PlanInputs inputs = TextInputs();
      inputs.spec.mutable_parallel()->set_schedule("2bw");
      auto* optimizer = inputs.spec.mutable_train()->mutable_optimizer();
      optimizer->set_kind("sgd");
      optimizer->set_momentum(momentum);
      optimizer->set_momentum_delay(form);
      optimizer->set_learning_rate(0.25);

      const auto job = BuildPlan(inputs);

      ASSERT_TRUE(job.ok()) << job.status();
      EXPECT_EQ(job->plan.weight_delay(), 1);
      const std::string notes = absl::StrJoin(job->notes, "\n");
      EXPECT_THAT(notes, HasSubstr("the learning rate is 0.25 x 0.5"));
      std::smatch match;
      ASSERT_TRUE(std::regex_search(
          notes, match,
          std::regex("stable below ([0-9.]+) / lambda \\(without delay below "
                     "([0-9.]+) / lambda\\)")))
          << notes;
      const double printed = std::stod(match[1].str());
      const bool is_shifted = form == std::string("shifted");
      EXPECT_LT(DelayedDescent(0.99 * printed, momentum, is_shifted), 1e-3);
      EXPECT_GT(DelayedDescent(1.01 * printed, momentum, is_shifted), 1e3);
      // Of heavy-ball descent: 2 (1 + m).
      EXPECT_NEAR(std::stod(match[2].str()), 2 * (1 + momentum), 0.01);
    }
  }
}

TEST(BuildPlanTest, AMeasuredCutThatIsNotEvenIsToldWithHowToRepeatIt) {
  PlanInputs inputs = TextInputs();
  EXPECT_THAT(BuildPlan(inputs)->notes, Not(Contains(HasSubstr("partition"))));

  inputs.profile.mutable_layers(5)->set_forward_seconds(0.040);
  EXPECT_THAT(BuildPlan(inputs)->notes,
              Contains(AllOf(HasSubstr("partition: auto is 4,2 layers"),
                             HasSubstr("with even 0.092 s"),
                             HasSubstr("parallel.partition: \"4,2\" cuts other "
                                       "runs alike"))));

  inputs.spec.mutable_parallel()->set_partition("4,2");
  const auto given = BuildPlan(inputs);
  EXPECT_EQ(given->plan.stages(0).end_layer(), 4);
  EXPECT_THAT(given->notes, Not(Contains(HasSubstr("partition"))));
}

TEST(BuildPlanTest, MemoryIsWeightsStateAndSavedActivations) {
  const auto job = BuildPlan(TextInputs());

  ASSERT_TRUE(job.ok()) << job.status();
  const v1::StagePlan& stage = job->plan.stages(0);
  // 8 + 2 / replicas vectors of 1-bit LAMB.
  const int64_t vectors = 4 * (8 + 1) * 440'000;
  const auto state = static_cast<int64_t>(job->plan.links(0).state_bytes());
  EXPECT_EQ(stage.memory_bytes(),
            vectors + state + 8'500'000 * stage.max_in_flight());
}

TEST(BuildPlanTest, MemoryCountsSharedStateAndWorkingCopies) {
  PlanInputs inputs = TextInputs();
  v1::TrainSpec* train = inputs.spec.mutable_train();
  train->mutable_optimizer()->set_kind("adamw");
  inputs.spec.mutable_compression()->set_gradients("none");
  const auto whole = BuildPlan(inputs);
  train->mutable_optimizer()->set_shard_state("on");
  const auto sharded = BuildPlan(inputs);
  train->set_precision("bf16");
  const auto half = BuildPlan(inputs);

  ASSERT_TRUE(half.ok()) << half.status();
  const auto memory = [](const auto& job) {
    return job->plan.stages(0).memory_bytes();
  };
  // Two moments, of which a half is kept; two working copies of two bytes.
  EXPECT_EQ(memory(whole) - memory(sharded), 440'000 * 8 / 2);
  EXPECT_EQ(sharded->plan.stages(0).optimizer_bytes(), 440'000 * 8 / 2);
  EXPECT_EQ(memory(half) - memory(sharded), 440'000 * 4);
}

/// The first and the last layer share 30,000 parameters.
PlanInputs TiedInputs(int stages) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_model()->set_tied("on");
  inputs.spec.mutable_parallel()->set_stages(stages);
  for (const int layer : {0, 5}) {
    inputs.profile.mutable_layers(layer)->set_tied_parameters(30'000);
  }
  return inputs;
}

TEST(BuildPlanTest, TiedParametersAreCountedOnceAStageAndToldOf) {
  const auto split = BuildPlan(TiedInputs(3));
  const auto whole = BuildPlan(TiedInputs(1));

  ASSERT_TRUE(split.ok()) << split.status();
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(split->plan.stages(0).tied_parameters(), 30'000);
  EXPECT_EQ(split->plan.stages(1).tied_parameters(), 0);
  EXPECT_EQ(split->plan.stages(2).tied_parameters(), 30'000);
  EXPECT_EQ(split->plan.stages(0).parameters(),
            split->plan.stages(2).parameters());
  // A ring of 4 ranks: 6 messages of a quarter. One bit: 6 of an eighth of a
  // bit each.
  EXPECT_THAT(
      split->notes,
      Contains(AllOf(HasSubstr("model.tied: stages 0 and 2 share 30,000"),
                     HasSubstr("each of their 4 workers"),
                     HasSubstr("181 kB a step, once compressed 6.2"))));
  EXPECT_EQ(whole->plan.stages(0).parameters(), 880'000 - 30'000);
  EXPECT_EQ(whole->plan.stages(0).tied_parameters(), 0);
  EXPECT_THAT(whole->notes, Not(Contains(HasSubstr("model.tied"))));
}

TEST(BuildPlanTest, MemoryAndTrafficOfTiedParametersAreThoseOfTheirGroup) {
  PlanInputs inputs = TiedInputs(2);
  v1::TrainSpec* train = inputs.spec.mutable_train();
  train->mutable_optimizer()->set_kind("adamw");
  train->mutable_optimizer()->set_shard_state("on");
  inputs.spec.mutable_compression()->set_gradients("none");

  const auto tied = BuildPlan(inputs);
  inputs.profile = TestingTextProfile();
  const auto untied = BuildPlan(inputs);

  ASSERT_TRUE(tied.ok()) << tied.status();
  ASSERT_TRUE(untied.ok()) << untied.status();
  // Of two moments of 30,000 parameters every rank has all, not a half.
  EXPECT_EQ(tied->plan.stages(0).memory_bytes() -
                untied->plan.stages(0).memory_bytes(),
            30'000 * 8 / 2);
  EXPECT_EQ(tied->plan.stages(0).optimizer_bytes() -
                untied->plan.stages(0).optimizer_bytes(),
            30'000 * 8 / 2);
  // A ring of four ranks sends 3/2 of the vector, one of two all of it.
  EXPECT_NEAR(
      tied->plan.gradient_plain_bytes() - untied->plan.gradient_plain_bytes(),
      30'000 * 4 / 2, 1'000);
}

TEST(BuildPlanTest, StateOfGradientCodecsIsInThePlanAndInTheMemory) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_compression()->set_activations("int(4)");
  inputs.spec.mutable_compression()->set_activation_gradients("ef(int(4))");

  const auto job = BuildPlan(inputs);
  inputs.worker_memory_bytes = 150'000'000;
  const auto crowded = BuildPlan(inputs);

  ASSERT_TRUE(job.ok()) << job.status();
  const double residuals = 2'227 * 128 * 128 * 4;
  EXPECT_DOUBLE_EQ(job->plan.links(0).state_bytes(), residuals);
  EXPECT_GT(static_cast<double>(job->plan.stages(1).memory_bytes()), residuals);
  EXPECT_LT(static_cast<double>(job->plan.stages(0).memory_bytes()), residuals);
  EXPECT_EQ(crowded.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(crowded.status()), HasSubstr("without state"));
}

TEST(BuildPlanTest, SharedCoresMakeTheStepLonger) {
  PlanInputs inputs = TextInputs();
  const auto alone = BuildPlan(inputs);
  inputs.compute_slowdown = 2;

  const auto sharing = BuildPlan(inputs);

  ASSERT_TRUE(alone.ok()) << alone.status();
  ASSERT_TRUE(sharing.ok()) << sharing.status();
  EXPECT_DOUBLE_EQ(sharing->plan.stages(1).backward_seconds(), 0.072);
  EXPECT_GT(sharing->plan.predicted_step_seconds(),
            alone->plan.predicted_step_seconds());
  EXPECT_THAT(sharing->notes,
              Contains(HasSubstr("layers take 2 times as long")));
  EXPECT_THAT(alone->notes, Not(Contains(HasSubstr("as long as measured"))));
}

TEST(BuildPlanTest, IsDeterministic) {
  const auto first = BuildPlan(TextInputs());
  const auto second = BuildPlan(TextInputs());

  EXPECT_EQ(first->plan.SerializeAsString(), second->plan.SerializeAsString());
  EXPECT_EQ(first->notes, second->notes);
}

TEST(BuildPlanTest, SyntheticJobNeedsNoProfile) {
  const auto job = BuildPlan(Gpt2XlInputs("100Mbit/s"));

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->plan.stages_size(), 8);
  EXPECT_EQ(job->plan.links_size(), 7);
  EXPECT_EQ(job->plan.activation_codec(), "delta(int(4),first=int(8))");
}

TEST(BuildPlanTest, AutoHidesSlowLinksWithHalfOfGpipesMicrobatches) {
  const auto slow = BuildPlan(Gpt2XlInputs("100Mbit/s"));
  const auto medium = BuildPlan(Gpt2XlInputs("300Mbit/s"));

  ASSERT_TRUE(slow.ok()) << slow.status();
  ASSERT_TRUE(medium.ok()) << medium.status();
  EXPECT_GE(32 / slow->plan.predicted_step_seconds(), 3.4);
  EXPECT_GE(32 / medium->plan.predicted_step_seconds(), 4.1);
  EXPECT_LE(slow->plan.stages(0).max_in_flight(), 16);
  EXPECT_LE(medium->plan.stages(0).max_in_flight(), 16);
  EXPECT_THAT(slow->notes, Contains(HasSubstr("schedule: auto is 1f1b+")));
}

TEST(BuildPlanTest, AskedScheduleIsKept) {
  PlanInputs inputs = Gpt2XlInputs("100Mbit/s");
  for (const char* schedule : {"gpipe", "1f1b"}) {
    inputs.spec.mutable_parallel()->set_schedule(schedule);
    EXPECT_EQ(BuildPlan(inputs)->plan.schedule(), schedule);
  }
}

TEST(BuildPlanTest, PredictionIsTheSimulationOfThePlan) {
  const PlanInputs inputs = TextInputs();
  const auto job = BuildPlan(inputs);
  ASSERT_TRUE(job.ok()) << job.status();

  const auto model = ModelOfPlan(job->plan, inputs.spec);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto simulation = Simulate(ProgramsOf(job->plan), *model);

  ASSERT_TRUE(simulation.ok()) << simulation.status();
  EXPECT_DOUBLE_EQ(simulation->step_seconds,
                   job->plan.predicted_step_seconds());
}

TEST(BuildPlanTest, PredictionCountsTheFormatThatEndsTheJob) {
  PlanInputs inputs = TextInputs();
  inputs.profile.mutable_layers(1)->set_parameters(20'000'000);
  const double compressed = BuildPlan(inputs)->plan.predicted_step_seconds();
  inputs.spec.mutable_train()->mutable_optimizer()->set_compress_after_step(
      "1000");
  const double plain = BuildPlan(inputs)->plan.predicted_step_seconds();

  // 80 MB instead of 2.5 MB over 100 Mbit/s.
  EXPECT_NEAR(plain - compressed, 77.5e6 * 8 / 1e8, 0.3);
}

// Half as many again, but each of the others keeps one.
TEST(BuildPlanTest, WorkThatMayMoveHasRoomInThePlanAndPredictionsAreAsWithout) {
  const auto plain = BuildPlan(TextInputs());
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->plan.max_microbatches(), 0);
  for (const char* policy : {"rebalance", "auto"}) {
    PlanInputs inputs = TextInputs();
    inputs.spec.mutable_stragglers()->set_policy(policy);

    const auto job = BuildPlan(inputs);

    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->plan.num_microbatches(), 4);
    EXPECT_EQ(job->plan.max_microbatches(), 6);
    EXPECT_EQ(job->plan.predicted_step_seconds(),
              plain->plan.predicted_step_seconds());
    EXPECT_EQ(ProgramsOf(job->plan)[0].size(), 5u * 6 + 2);
    EXPECT_EQ(NominalProgramsOf(job->plan), NominalProgramsOf(plain->plan));
    EXPECT_EQ(NominalProgramsOf(plain->plan), ProgramsOf(plain->plan));
  }
}

TEST(BuildPlanTest, MemoryBoundsTheRoomForMovedWork) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_stragglers()->set_policy("rebalance");
  inputs.spec.mutable_parallel()->set_schedule("gpipe");
  int64_t saved = 0;
  for (const v1::LayerProfile& layer : inputs.profile.layers()) {
    saved += layer.saved_bytes();
  }
  ASSERT_GT(saved, 0);
  // Half of the layers are on each of two stages.
  inputs.spec.mutable_parallel()->set_memory(
      absl::StrCat(saved / 2 * 11 / 2, "B"));

  const auto five = BuildPlan(inputs);
  inputs.spec.mutable_parallel()->set_memory(
      absl::StrCat(saved / 2 * 9 / 2, "B"));
  const auto four = BuildPlan(inputs);

  ASSERT_TRUE(five.ok()) << five.status();
  EXPECT_EQ(five->plan.max_microbatches(), 5);
  EXPECT_THAT(five->notes,
              Contains("stragglers: memory allows 5 micro-batches a replica, "
                       "not 6"));
  ASSERT_TRUE(four.ok()) << four.status();
  EXPECT_EQ(four->plan.max_microbatches(), 0);
  EXPECT_THAT(four->notes, Contains(HasSubstr("not 6: none can be moved")));
}

TEST(BuildPlanTest, OneStageOneReplicaTrainsAlone) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_parallel()->set_stages(1);
  inputs.spec.mutable_parallel()->set_replicas(1);

  const auto job = BuildPlan(inputs);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->plan.links_size(), 0);
  EXPECT_EQ(job->plan.num_microbatches(), 8);
  EXPECT_EQ(job->plan.activation_codec(), "none");
  EXPECT_EQ(job->plan.schedule(), "1f1b");
  EXPECT_EQ(job->plan.stages(0).max_in_flight(), 1);
  EXPECT_EQ(job->plan.gradient_plain_bytes(), 0);
  EXPECT_NEAR(job->plan.predicted_step_seconds(), 8 * 6 * 0.018, 0.01);
}

TEST(BuildPlanTest, MemoryBudgetBoundsTheWarmUp) {
  PlanInputs inputs = Gpt2XlInputs("100Mbit/s");
  inputs.spec.mutable_parallel()->set_memory("72MB");  // 11 tensors of 6.55 MB

  const auto job = BuildPlan(inputs);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->plan.schedule(), "1f1b+2");
  EXPECT_THAT(job->notes, Contains(HasSubstr("memory forbids deeper ones")));
}

TEST(BuildPlanTest, BudgetBelowPlain1F1BHoldsFewerInFlight) {
  PlanInputs inputs = Gpt2XlInputs("100Mbit/s");
  inputs.spec.mutable_parallel()->set_memory("20MB");

  const auto job = BuildPlan(inputs);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->plan.schedule(), "1f1b-5");
  EXPECT_THAT(job->notes, Contains(HasSubstr("fewer micro-batches in flight")));
}

TEST(BuildPlanTest, NoRoomForOneMicrobatchNamesBytesAndRemedy) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_parallel()->set_memory("8MB");

  const auto job = BuildPlan(inputs);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(job.status()),
              AllOf(HasSubstr("stage 0"), HasSubstr("of 1 micro-batch: 8.5 MB"),
                    HasSubstr("500 kB over parallel.memory = 8 MB"),
                    HasSubstr("lower train.microbatch"),
                    HasSubstr("pack them (compression.saved_activations)")));
}

TEST(BuildPlanTest, AskedScheduleThatDoesNotFitPointsToAuto) {
  PlanInputs inputs = Gpt2XlInputs("100Mbit/s");
  inputs.spec.mutable_parallel()->set_schedule("gpipe");
  inputs.spec.mutable_parallel()->set_memory("100MB");

  const auto job = BuildPlan(inputs);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(job.status()),
              AllOf(HasSubstr("of 32 micro-batches: 210 MB, 110 MB over"),
                    HasSubstr("use schedule auto")));
}

TEST(BuildPlanTest, SmallWorkersGiveUpDeltasBeforeTheyFail) {
  PlanInputs inputs = TextInputs();
  inputs.worker_memory_bytes = 80'000'000;

  const auto job = BuildPlan(inputs);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->plan.activation_codec(), "int(4)");
  EXPECT_THAT(job->notes, Contains(HasSubstr("of memory that a worker has")));
  EXPECT_LE(job->plan.stages(0).memory_bytes(), 64'000'000);
}

TEST(BuildPlanTest, WorkersThatAreTooSmallAreNamed) {
  PlanInputs inputs = TextInputs();
  inputs.worker_memory_bytes = 20'000'000;

  const auto job = BuildPlan(inputs);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(job.status()),
              AllOf(HasSubstr("over the 16 MB that a worker has"),
                    HasSubstr("use workers with more memory")));
}

TEST(BuildPlanTest, WhatCannotBeCutIsRefused) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_train()->set_batch(30);
  EXPECT_THAT(Message(BuildPlan(inputs).status()),
              HasSubstr("train.batch: expected a multiple of microbatch x "
                        "replicas = 8, got 30"));

  inputs = TextInputs();
  inputs.spec.mutable_parallel()->set_stages(7);
  EXPECT_THAT(Message(BuildPlan(inputs).status()),
              HasSubstr("more stages than layers"));

  inputs = TextInputs();
  inputs.spec.mutable_parallel()->set_replicas(0);
  EXPECT_EQ(BuildPlan(inputs).status().code(),
            absl::StatusCode::kInvalidArgument);

  inputs = TextInputs();
  inputs.spec.mutable_compression()->set_gradients("sgn");
  EXPECT_THAT(Message(BuildPlan(inputs).status()),
              HasSubstr("compression.gradients: "));
}

TEST(BuildPlanTest, RandomJobsYieldPlansThatPassTheChecker) {
  const uint32_t seed = 4242;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 200; ++i) {
    PlanInputs inputs = TextInputs();
    const int stages = 1 + static_cast<int>(random() % 6);
    const int replicas = 1 + static_cast<int>(random() % 4);
    const int microbatches = 1 + static_cast<int>(random() % 12);
    inputs.spec.mutable_parallel()->set_stages(stages);
    inputs.spec.mutable_parallel()->set_replicas(replicas);
    inputs.spec.mutable_train()->set_batch(4 * replicas * microbatches);
    inputs.spec.mutable_network()->mutable_emulate()->set_bandwidth(
        absl::StrCat(1 + random() % 1000, "Mbit/s"));
    for (v1::LayerProfile& layer : *inputs.profile.mutable_layers()) {
      layer.set_forward_seconds(static_cast<double>(random() % 1000) / 1e5);
    }
    const int64_t room = 9 + static_cast<int64_t>(random() % 60);
    inputs.spec.mutable_parallel()->set_memory(
        absl::StrCat(room * stages, "MB"));

    const auto job = BuildPlan(inputs);

    if (job.status().code() == absl::StatusCode::kResourceExhausted) continue;
    ASSERT_TRUE(job.ok()) << job.status();
    ASSERT_TRUE(CheckPlan(job->plan).ok()) << CheckPlan(job->plan);
    for (const v1::StagePlan& stage : job->plan.stages()) {
      int64_t saved = 0;
      for (int l = stage.first_layer(); l < stage.end_layer(); ++l) {
        saved += inputs.profile.layers(l).saved_bytes();
      }
      ASSERT_LE(saved * stage.max_in_flight(), room * stages * 1'000'000);
    }
  }
}

TEST(BuildPlanTest, PackedActivationsAreWhatTheMemoryHolds) {
  PlanInputs inputs = TextInputs();
  inputs.profile = TestingPackedProfile();
  const auto plain = BuildPlan(inputs);
  inputs.spec.mutable_compression()->set_saved_activations("fixed(int(4))");

  const auto packed = BuildPlan(inputs);

  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_THAT(plain->saved, ::testing::IsEmpty());
  ASSERT_TRUE(packed.ok()) << packed.status();
  ASSERT_EQ(packed->saved.size(), 2u);
  const v1::StagePlan& stage = packed->plan.stages(0);
  EXPECT_EQ(packed->saved[0].in_flight, stage.max_in_flight());
  EXPECT_EQ(packed->saved[0].stored_bytes, 1'182'000);
  ASSERT_EQ(stage.max_in_flight(), plain->plan.stages(0).max_in_flight());
  EXPECT_EQ(plain->plan.stages(0).memory_bytes() - stage.memory_bytes(),
            (8'500'000 - 1'182'000) * stage.max_in_flight());
}

TEST(BuildPlanTest, PackingFitsMoreMicrobatchesIntoTheBudget) {
  PlanInputs inputs = TextInputs();
  inputs.profile = TestingPackedProfile();
  inputs.spec.mutable_parallel()->set_memory("8MB");
  EXPECT_EQ(BuildPlan(inputs).status().code(),
            absl::StatusCode::kResourceExhausted);
  inputs.spec.mutable_compression()->set_saved_activations("fixed(int(4))");

  const auto packed = BuildPlan(inputs);

  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_GE(packed->plan.stages(0).max_in_flight(), 2);
}

}  // namespace
}  // namespace deltapipe
