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

std::vector<SpecViolation> Find(const Settings& former, const Settings& now,
                                const v1::Tuning& tuning = {}) {
  return FindUncarried(Spec(former), Spec(now), tuning, "step-000000050-g7");
}

std::vector<std::string> Fields(const Settings& former, const Settings& now,
                                const v1::Tuning& tuning = {}) {
  std::vector<std::string> fields;
  for (const auto& violation : Find(former, now, tuning)) {
    fields.push_back(violation.field);
  }
  return fields;
}

Settings With(Settings settings, const std::string& setting) {
  settings.push_back(setting);
  return settings;
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
  EXPECT_THAT(Fields({}, {"model.kind=mlp"}), ElementsAre("model.kind"));
  EXPECT_THAT(Fields({}, {"model.layers=6", "model.context=64"}),
              ElementsAre("model.layers", "model.context"));
  EXPECT_THAT(Fields({}, {"model.tied=on"}), ElementsAre("model.tied"));
  EXPECT_THAT(Fields({}, {"model.heads=2", "model.dropout=0.1"}), IsEmpty());
  const Settings mlp = {"model.kind=mlp"};
  EXPECT_THAT(Fields(mlp, With(mlp, "model.width=64")),
              ElementsAre("model.width"));
  EXPECT_THAT(Fields(mlp, With(mlp, "model.layers=6")),
              ElementsAre("model.layers"));
  EXPECT_THAT(Fields(mlp, With(mlp, "model.context=64")), IsEmpty());
  const Settings synthetic = {"model.kind=synthetic",
                              "model.synthetic.parameters_per_stage=1000"};
  EXPECT_THAT(Fields(synthetic, {"model.kind=synthetic",
                                 "model.synthetic.parameters_per_stage=2000"}),
              ElementsAre("model.synthetic.parameters_per_stage"));
  EXPECT_THAT(Fields(synthetic, With(synthetic, "model.context=64")),
              IsEmpty());
}

TEST(CarriedStateTest, FieldsOfModelsOfImagesCountAlike) {
  const Settings images = {"data.kind=fashion_mnist", "model.layers=6"};
  const Settings resnet = With(images, "model.kind=resnet");
  const Settings image_mlp = With(images, "model.kind=image_mlp");

  for (const Settings& model : {resnet, image_mlp}) {
    EXPECT_THAT(Fields(model, With(model, "model.width=64")),
                ElementsAre("model.width"));
    EXPECT_THAT(Fields(model, With(model, "model.layers=7")),
                ElementsAre("model.layers"));
    EXPECT_THAT(Fields(model, With(model, "model.context=64")), IsEmpty());
  }
  EXPECT_THAT(Fields(resnet, image_mlp), ElementsAre("model.kind"));
  EXPECT_THAT(Fields(resnet, With(resnet, "model.norm=fixup")),
              ElementsAre("model.norm"));
}

// mlp has the same parameters for any context, synthetic models for any width,
// too; but records and residuals are of tensors of context x width.
TEST(CarriedStateTest, WhatBoundariesKeepOfSamplesHasAShapeToo) {
  for (const char* const codec :
       {"compression.activations=delta(int(4),first=int(8))",
        "compression.activation_gradients=ef(int(4))"}) {
    const Settings gpt = {codec};
    const Settings mlp = {codec, "model.kind=mlp"};
    const Settings synthetic = {codec, "model.kind=synthetic"};

    EXPECT_THAT(Fields(gpt, With(gpt, "model.context=64")),
                ElementsAre("model.context"));
    EXPECT_THAT(Fields(mlp, With(mlp, "model.context=64")),
                ElementsAre("model.context"));
    EXPECT_THAT(Fields(mlp, {codec, "model.kind=mlp", "model.context=64",
                             "model.width=64"}),
                ElementsAre("model.width", "model.context"));
    EXPECT_THAT(Fields(synthetic, {codec, "model.kind=synthetic",
                                   "model.context=64", "model.width=64"}),
                ElementsAre("model.context", "model.width"));
    EXPECT_THAT(Fields(mlp, With(mlp, "model.dropout=0.1")), IsEmpty());
  }
  EXPECT_THAT(
      Find({"model.kind=mlp", "compression.activations=delta(int(4))"},
           {"model.kind=mlp", "model.context=64"})[0]
          .message,
      AllOf(HasSubstr("expected 128, as in checkpoint step-000000050-g7, got "
                      "64: what delta(int(4)) keeps of each sample at a "
                      "boundary has another shape"),
            HasSubstr("take 128, or leave out --resume")));
}

TEST(CarriedStateTest, ImagesKeepWhatTheirParametersSay) {
  const Settings resnet = {"data.kind=fashion_mnist", "model.kind=resnet",
                           "compression.activations=delta(int(4))"};

  EXPECT_THAT(Fields(resnet, With(resnet, "model.context=64")), IsEmpty());
  EXPECT_THAT(Fields(resnet, With(resnet, "model.width=64")),
              ElementsAre("model.width"));
}

TEST(CarriedStateTest, TheCodecsInForceSayWhetherAnythingWasKept) {
  const Settings mlp = {"model.kind=mlp"};
  const Settings narrow = With(mlp, "model.context=64");
  v1::Tuning tuning;
  v1::BoundaryTuning* boundary = tuning.add_boundaries();
  boundary->set_activations("int(4)");
  boundary->set_activation_gradients("int(8)");

  EXPECT_THAT(Fields(With(mlp, "compression.activations=delta(int(4))"), narrow,
                     tuning),
              IsEmpty());
  boundary->set_activations("delta(int(4),first=int(8))");
  EXPECT_THAT(Fields(mlp, narrow, tuning), ElementsAre("model.context"));
}

TEST(CarriedStateTest, RecordsThatBeginAnewMayHaveAnotherShape) {
  const Settings mlp = {"model.kind=mlp",
                        "compression.activations=delta(int(4))"};
  const Settings narrow = With(mlp, "model.context=64");

  EXPECT_THAT(Fields(mlp, With(narrow, "parallel.replicas=1")), IsEmpty());
  EXPECT_THAT(Fields(With(mlp, "checkpoint.records=forget"), narrow),
              IsEmpty());
  EXPECT_THAT(
      Fields(With(mlp, "parallel.stages=1"), With(narrow, "parallel.stages=1")),
      IsEmpty());
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
