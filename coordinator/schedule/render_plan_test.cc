#include "coordinator/schedule/render_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_split.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/schedule/render_timeline.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;
using ::testing::SizeIs;

std::string Render(const PlanInputs& inputs) {
  return RenderPlan(BuildPlan(inputs).value().plan, inputs.spec);
}

PlanInputs TextInputs() {
  PlanInputs inputs;
  inputs.spec = TestingTextSpec();
  inputs.profile = TestingTextProfile();
  return inputs;
}

TEST(RenderPlanTest, TellsWhatRunsWhereAndWhatTravels) {
  const std::string text = Render(TextInputs());

  EXPECT_THAT(text, HasSubstr("text: 2 stages x 2 replicas, 4 micro-batches "
                              "of 4 samples per step and replica\n"));
  EXPECT_THAT(text, HasSubstr("links      100 Mbit/s, 10 ms one way\n"));
  EXPECT_THAT(text,
              HasSubstr("codecs     activations delta(int(4),first=int(8))"));
  EXPECT_THAT(
      text,
      HasSubstr("stage  layers  parameters  forward  backward  in flight"));
  EXPECT_THAT(text, HasSubstr("    0     0-2     440,000    18 ms     36 ms"));
  EXPECT_THAT(text, HasSubstr("0 - 1  1.05 MB -> 136 kB (7.71x)"));
  EXPECT_THAT(text, HasSubstr("parameter gradients: 1.76 MB sent per rank and "
                              "step, once compressed 55.2 kB\n"));
  EXPECT_THAT(text, HasSubstr("busiest    compute of stage "));
}

TEST(RenderPlanTest, OptimizerStateIsToldWithAndWithoutSharing) {
  PlanInputs inputs = TextInputs();
  EXPECT_THAT(Render(inputs),
              HasSubstr("optimizer state: 3.52 MB of a worker's memory\n"));

  v1::OptimizerSpec* optimizer =
      inputs.spec.mutable_train()->mutable_optimizer();
  optimizer->set_kind("adamw");
  inputs.spec.mutable_compression()->set_gradients("none");
  EXPECT_THAT(Render(inputs),
              HasSubstr("optimizer state: 3.52 MB of a worker's memory; 1.76 "
                        "MB with train.optimizer.shard_state: on\n"));

  optimizer->set_shard_state("on");
  EXPECT_THAT(Render(inputs),
              HasSubstr("optimizer state: 1.76 MB of a worker's memory, shared "
                        "out; 3.52 MB if each replica kept it all\n"));
}

TEST(RenderPlanTest, TellsHowFarWorkMayMove) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_stragglers()->set_policy("rebalance");

  EXPECT_THAT(
      Render(inputs),
      HasSubstr("4 micro-batches of 4 samples per step and replica\n"
                "           up to 6 where a slow replica gets fewer\n"));
}

TEST(RenderPlanTest, SlowLinkIsNamedAsTheBusiest) {
  PlanInputs inputs;
  inputs.spec = TestingGpt2XlSpec();
  inputs.spec.mutable_compression()->set_activations("none");
  inputs.spec.mutable_compression()->set_activation_gradients("none");

  EXPECT_THAT(Render(inputs), HasSubstr("busiest    link 0 - 1, activations"));
}

TEST(RenderPlanTest, FirstVisitsAreToldWhereTheyTakeLonger) {
  PlanInputs inputs;
  inputs.spec = TestingGpt2XlSpec();
  EXPECT_THAT(Render(inputs),
              HasSubstr(" s while samples are on their first visit\n"));

  inputs.spec.mutable_compression()->set_activations("int(4)");
  EXPECT_THAT(Render(inputs), Not(HasSubstr("first visit\n")));
}

TEST(RenderPlanTest, AloneThereAreNoLinks) {
  PlanInputs inputs = TextInputs();
  inputs.spec.mutable_parallel()->set_stages(1);
  inputs.spec.mutable_parallel()->set_replicas(1);

  const std::string text = Render(inputs);

  EXPECT_THAT(text, HasSubstr("text: 1 stage x 1 replica, 8 micro-batches"));
  EXPECT_THAT(text, Not(HasSubstr("link")));
  EXPECT_THAT(text, Not(HasSubstr("sent per rank")));
}

TEST(RenderPlanTest, LinesFitATerminal) {
  PlanInputs inputs;
  inputs.spec = TestingGpt2XlSpec();

  const std::string text = Render(inputs);

  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  EXPECT_THAT(lines, Each(SizeIs(Le(100)))) << text;
}

TEST(RenderTimelineTest, DrawsEachStageAsAStrip) {
  PipelineModel model;
  model.stages.assign(2, {1, 2, 0, 0});
  model.links.resize(1);
  const auto simulation =
      Simulate(ProgramsOf(ParseSchedule("1f1b").value(), {2, 3}), model, true);
  ASSERT_TRUE(simulation.ok()) << simulation.status();

  EXPECT_EQ(RenderTimeline(*simulation, 24),
            "stage 0    FFFF....BBBBFFBBBB..BBBB\n"
            "stage 1    ..FFBBBBFFBBBBFFBBBB....\n"
            "           0                   12 s\n");
}

TEST(RenderPlanTest, SavedActivationsAreToldByClassBeforeAndAfter) {
  PlanInputs inputs = TextInputs();
  inputs.profile = TestingPackedProfile();
  inputs.spec.mutable_parallel()->set_schedule("1f1b");
  inputs.spec.mutable_compression()->set_saved_activations("fixed(int(4))");
  const auto job = BuildPlan(inputs);
  ASSERT_TRUE(job.ok()) << job.status();

  const std::string text = RenderSavedMemory(job->saved, inputs.spec);

  EXPECT_THAT(text, HasSubstr("saved activations, packed by fixed(int(4))\n"
                              "stage  class       a micro-batch"));
  EXPECT_THAT(
      text,
      HasSubstr("    0  activation  8.2 MB -> 1.08 MB (7.59x)          2  "
                "16.4 MB -> 2.16 MB (7.59x)\n"));
  EXPECT_THAT(text, HasSubstr("    0  metadata    0 B -> 2 kB   "));
  EXPECT_THAT(text, HasSubstr("    1  all         8.6 MB -> 1.18 MB (7.28x)"));
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    EXPECT_LE(line.size(), 100u);
  }
  EXPECT_EQ(RenderSavedMemory({}, inputs.spec), "");
  std::vector<SavedMemory> offloaded = job->saved;
  offloaded[0].host_bytes = 3'000'000;
  offloaded[1].host_bytes = 500'000;
  const std::string with_host = RenderSavedMemory(offloaded, inputs.spec);
  EXPECT_THAT(with_host,
              HasSubstr("    0  in host memory beside them  3 MB  "));
  EXPECT_THAT(with_host, HasSubstr("\nhost memory beside a device: 6 MB of a "
                                   "worker at most, "));
  EXPECT_THAT(text, Not(HasSubstr("host memory")));
}

}  // namespace
}  // namespace deltapipe
