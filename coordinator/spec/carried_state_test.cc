#include "coordinator/spec/carried_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

using Settings = std::vector<std::string>;

v1::JobSpec Spec(const Settings& settings) {
  const auto spec = ParseJobSpec(
      "name: x\ndata: {path: text.txt}\nparallel: {stages: 2, replicas: 2}\n",
      "x.yaml", settings);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : v1::JobSpec();
}

std::vector<SpecViolation> Find(const Settings& former, const Settings& now) {
  return FindUncarried(Spec(former), Spec(now), "step-000000050-g7");
}

TEST(CarriedStateTest, AFieldThatChangesShapesIsNamedWithBothValues) {
  EXPECT_THAT(
      Find({"model.width=64"}, {"model.width=128"}),
      ElementsAre(AllOf(
          Field(&SpecViolation::field, "model.width"),
          Field(&SpecViolation::message,
                "expected 64, as in checkpoint step-000000050-g7, got 128: "
                "weights and the optimizer's state have another shape; take "
                "64, or leave out --resume to begin anew"))));
}

TEST(CarriedStateTest, EachFieldOfTheModelCountsWhereItMakesOtherParameters) {
  const auto fields = [](const Settings& former, const Settings& now) {
    std::vector<std::string> fields;
    for (const auto& violation : Find(former, now)) {
      fields.push_back(violation.field);
    }
    return fields;
  };

  EXPECT_THAT(fields({}, {"model.kind=mlp"}), ElementsAre("model.kind"));
  EXPECT_THAT(fields({}, {"model.layers=6", "model.context=64"}),
              ElementsAre("model.layers", "model.context"));
  EXPECT_THAT(fields({}, {"model.tied=on"}), ElementsAre("model.tied"));
  EXPECT_THAT(fields({}, {"model.heads=2", "model.dropout=0.1"}), IsEmpty());
  EXPECT_THAT(
      fields({"model.kind=mlp"}, {"model.kind=mlp", "model.context=64"}),
      IsEmpty());
  const char* const synthetic = "model.kind=synthetic";
  EXPECT_THAT(fields({synthetic, "model.synthetic.parameters_per_stage=1000"},
                     {synthetic, "model.synthetic.parameters_per_stage=2000"}),
              ElementsAre("model.synthetic.parameters_per_stage"));
}

TEST(CarriedStateTest, AnotherOptimizerGoesOnWithWhatItKnowsOnly) {
  EXPECT_THAT(Find({}, {"train.optimizer.kind=lamb"}),
              ElementsAre(AllOf(
                  Field(&SpecViolation::field, "train.optimizer.kind"),
                  Field(&SpecViolation::message,
                        AllOf(HasSubstr("expected adamw"),
                              HasSubstr("got lamb"), HasSubstr("--resume"))))));
  EXPECT_THAT(Find({}, {"train.optimizer.kind=adam"}), IsEmpty());
  EXPECT_THAT(Find({}, {"train.optimizer.learning_rate=0.1"}), IsEmpty());
}

TEST(CarriedStateTest, TwoMomentaAreAnotherStateThanOne) {
  const Settings sgd = {"train.optimizer.kind=sgd"};
  const Settings shifted = {"train.optimizer.kind=sgd",
                            "parallel.schedule=2bw"};
  const Settings standard = {"train.optimizer.kind=sgd",
                             "parallel.schedule=2bw",
                             "train.optimizer.momentum_delay=standard"};

  EXPECT_THAT(Find(sgd, shifted),
              ElementsAre(Field(&SpecViolation::field, "parallel.schedule")));
  EXPECT_THAT(Find(shifted, standard),
              ElementsAre(Field(&SpecViolation::field,
                                "train.optimizer.momentum_delay")));
  EXPECT_THAT(Find(sgd, standard), IsEmpty());
}

TEST(CarriedStateTest, ADecisionNeedsItsEvidence) {
  const Settings by_step = {"train.optimizer.kind=onebit_lamb"};
  const Settings by_decision = {"train.optimizer.kind=onebit_lamb",
                                "train.optimizer.compress_after_step=auto"};

  EXPECT_THAT(Find(by_step, by_decision),
              ElementsAre(Field(&SpecViolation::field,
                                "train.optimizer.compress_after_step")));
  EXPECT_THAT(Find(by_decision, by_step), IsEmpty());
}

TEST(CarriedStateTest, AnotherCutOrNumberOfStagesIsPassedOver) {
  const auto takes = [](const Settings& former, const Settings& now) {
    return TakesCutOf(Spec(former), Spec(now));
  };

  EXPECT_TRUE(takes({"parallel.partition=3,1"}, {}));
  EXPECT_TRUE(takes({"parallel.partition=3,1"}, {"parallel.partition=3,1"}));
  EXPECT_FALSE(takes({"parallel.partition=3,1"}, {"parallel.partition=2,2"}));
  EXPECT_FALSE(takes({}, {"parallel.stages=1"}));
  EXPECT_TRUE(takes({}, {"parallel.replicas=4"}));
}

TEST(CarriedStateTest, TheCutOfTheNewestCheckpointIsKeptUnlessOneIsAskedFor) {
  const std::vector<FormerCheckpoint> checkpoints = {
      {"new", Spec({"parallel.partition=\"3,1\""})},
      {"old", Spec({"parallel.partition=\"2,2\""})}};
  v1::JobSpec measured = Spec({"parallel.partition=auto"});
  v1::JobSpec even = Spec({"parallel.partition=even"});
  v1::JobSpec deeper = Spec({"parallel.partition=auto", "model.layers=6"});
  v1::JobSpec of_nothing = Spec({"parallel.partition=auto"});

  KeepCut(checkpoints, &measured);
  KeepCut(checkpoints, &even);
  KeepCut(checkpoints, &deeper);
  KeepCut({{"unreadable", std::nullopt}, checkpoints[0]}, &of_nothing);

  EXPECT_EQ(measured.parallel().partition(), "3,1");
  EXPECT_EQ(even.parallel().partition(), "even");
  EXPECT_EQ(deeper.parallel().partition(), "auto");
  EXPECT_EQ(of_nothing.parallel().partition(), "auto");
}

TEST(CarriedStateTest, TheNewestCheckpointThatWorkersWouldTakeDecides) {
  const std::vector<FormerCheckpoint> checkpoints = {
      {"passed-over", Spec({"parallel.stages=1", "model.width=32"})},
      {"taken", Spec({"model.width=64"})},
      {"older", Spec({"model.width=32"})}};

  EXPECT_THAT(
      FindUncarried(checkpoints, Spec({"model.width=32"})),
      ElementsAre(Field(&SpecViolation::message,
                        HasSubstr("expected 64, as in checkpoint taken, "
                                  "got 32"))));
  EXPECT_THAT(FindUncarried(checkpoints, Spec({"model.width=64"})), IsEmpty());
  EXPECT_THAT(FindUncarried({{"unreadable", std::nullopt}, checkpoints[1]},
                            Spec({"model.width=32"})),
              IsEmpty());
  EXPECT_THAT(FindUncarried(std::vector<FormerCheckpoint>(), Spec({})),
              IsEmpty());
}

}  // namespace
}  // namespace deltapipe
