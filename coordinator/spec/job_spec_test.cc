#include "coordinator/spec/job_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "coordinator/spec/spec_reading.h"
#include "google/protobuf/util/message_differencer.h"

namespace deltapipe {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr char kGood[] = R"yaml(name: text
data: {path: corpus.txt}
)yaml";

std::vector<std::string> Errors(const std::string& text,
                                const std::vector<std::string>& sets = {}) {
  std::vector<std::string> lines;
  const SpecReading reading = SpecReading::FromText(text, "t.yaml", sets);
  for (const SpecViolation& violation : reading.violations()) {
    lines.push_back(violation.ToString());
  }
  return lines;
}

TEST(JobSpecTest, MinimalSpecTakesEveryDefault) {
  const auto spec = ParseJobSpec(kGood, "t.yaml", {});

  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->seed(), 17);
  EXPECT_EQ(spec->model().kind(), "gpt");
  EXPECT_EQ(spec->train().clip_norm(), 1.0);
  EXPECT_EQ(spec->train().optimizer().learning_rate(), 3e-3);
  EXPECT_EQ(spec->compression().activations(), "auto");
  EXPECT_EQ(spec->network().emulate().bandwidth(), "unlimited");
  EXPECT_EQ(spec->failure().detection_budget(), "10s");
  EXPECT_THAT(ValidateJobSpec(*spec), IsEmpty());
}

TEST(JobSpecTest, WrittenZeroStaysZero) {
  const auto spec = ParseJobSpec(
      std::string(kGood) + "train: {clip_norm: 0, verify_every: 0}\n", "t.yaml",
      {});

  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->train().clip_norm(), 0);
  EXPECT_EQ(spec->train().verify_every(), 0);
  EXPECT_EQ(spec->train().steps(), 1000);
}

TEST(JobSpecTest, FillDefaultsIsIdempotentAndKeepsWrittenZeros) {
  v1::JobSpec spec;
  spec.mutable_train()->set_clip_norm(0);
  spec.mutable_train()->mutable_optimizer()->set_weight_decay(0);

  FillDefaults(&spec);
  v1::JobSpec twice = spec;
  FillDefaults(&twice);

  EXPECT_EQ(spec.train().clip_norm(), 0);
  EXPECT_EQ(spec.train().optimizer().weight_decay(), 0);
  EXPECT_EQ(spec.train().batch(), 32);
  EXPECT_TRUE(MessageDifferencer::Equals(spec, twice));
}

TEST(JobSpecTest, ReportsEveryViolationAtOnceInTheOrderOfTheFile) {
  const std::string text = R"yaml(name: Text!
model: {kind: gtp, layers: 2, width: 100, heads: 3}
data:
  limit: 600KB
train:
  steps: 0
  stepps: 10
  batch: abc
  clip_norm: -1
  optimizer: {kind: adamx}
parallel: {stages: 4, replicas: [2]}
compression:
  activations: "int(9)"
network:
  emulate: {bandwidth: 100mbps, latency: 10}
stragglers: none
)yaml";

  EXPECT_THAT(
      Errors(text),
      ElementsAre(
          "t.yaml:1:7: error: name: expected 1..63 of a-z, 0-9 and '-', with "
          "no '-' at either end, got 'Text!'",
          "t.yaml:2:15: error: model.kind: expected gpt, mlp, resnet, "
          "image_mlp or "
          "synthetic, got "
          "'gtp' (did you mean 'gpt'?)",
          StartsWith("t.yaml:4:10: error: data.limit: size '600KB': 'KB' is "
                     "read in two ways"),
          "t.yaml:6:10: error: train.steps: expected 1..1000000000, got 0",
          "t.yaml:7:3: error: train.stepps: unknown field (did you mean "
          "'steps'?)",
          "t.yaml:8:10: error: train.batch: expected a number, got 'abc'",
          "t.yaml:9:14: error: train.clip_norm: expected 0..1000000000, got -1",
          "t.yaml:10:21: error: train.optimizer.kind: expected sgd, adam, "
          "adamw, lamb, onebit_adam, onebit_lamb or zero_one_adam, got 'adamx' "
          "(did you mean 'adam'?)",
          "t.yaml:11:20: error: parallel.stages: expected at most one stage "
          "per layer (model.layers: 2), got 4",
          "t.yaml:11:33: error: parallel.replicas: expected a number, got a "
          "list",
          StartsWith("t.yaml:13:16: error: compression.activations: codec "
                     "\"int(9)\": column 5"),
          StartsWith("t.yaml:15:24: error: network.emulate.bandwidth: "
                     "bandwidth '100mbps': 'mbps' is read in two ways"),
          StartsWith("t.yaml:15:42: error: network.emulate.latency: "),
          "t.yaml:16:13: error: stragglers: expected fields, such as {policy: "
          "...}, got 'none'"));
}

TEST(JobSpecTest, DataPathIsRequiredUnlessSynthetic) {
  EXPECT_THAT(Errors("name: a\n"),
              ElementsAre("t.yaml:1:1: error: data.path: expected the path of "
                          "a text to train on, got nothing"));
  EXPECT_THAT(Errors("name: a\nmodel: {kind: synthetic}\n"), IsEmpty());
}

TEST(JobSpecTest, FieldsMustFitEachOther) {
  EXPECT_THAT(
      Errors(std::string(kGood) + "model: {width: 100, heads: 3}\n"
                                  "train: {batch: 30, microbatch: 4}\n"
                                  "parallel: {replicas: 2}\n"
                                  "compression: {gradients: identity}\n"),
      ElementsAre(
          "t.yaml:3:28: error: model.heads: expected a divisor of model.width "
          "(100), got 3",
          "t.yaml:4:16: error: train.batch: expected a multiple of "
          "parallel.replicas x train.microbatch (2 x 4 = 8), such as 24 or 32, "
          "got 30",
          "t.yaml:6:26: error: compression.gradients: expected auto, none or "
          "cast(bf16) with train.optimizer.kind adamw (onebit_adam, "
          "onebit_lamb and zero_one_adam compress), got 'identity'"));
}

constexpr char kImages[] =
    "name: t\n"
    "model: {kind: resnet}\n"
    "data: {kind: fashion_mnist, path: images}\n";

TEST(JobSpecTest, ImagesAndTextHaveModelsOfTheirOwn) {
  EXPECT_THAT(Errors(kImages), ElementsAre());
  EXPECT_THAT(
      Errors(std::string(kGood) + "model: {kind: image_mlp}\n"),
      ElementsAre(EndsWith("data.kind: expected fashion_mnist with model.kind "
                           "image_mlp, got bytes")));
  EXPECT_THAT(
      Errors("name: t\ndata: {kind: fashion_mnist, path: images}\n"),
      ElementsAre(EndsWith(
          "data.kind: expected bytes with model.kind gpt, got fashion_mnist")));
  EXPECT_THAT(Errors("name: t\nmodel: {kind: resnet}\n"
                     "data: {kind: fashion_mnist}\n"),
              ElementsAre(EndsWith("data.path: expected the path of a folder "
                                   "of images to train on, got nothing")));
  EXPECT_THAT(Errors("name: t\ndata: {path: x, validation: 0.95}\n"),
              ElementsAre(EndsWith("data.validation: expected at most 0.9 of a "
                                   "text, the rest of which is trained on, got "
                                   "0.95")));
}

std::vector<std::string> ErrorsOfImages(const std::string& data,
                                        const std::string& rest = "") {
  return Errors(
      "name: t\nmodel: {kind: resnet}\n"
      "data: {kind: fashion_mnist, path: images, validation: 1, " +
      data + "}\n" + rest);
}

TEST(JobSpecTest, ViewsFitMicrobatchesAndCodecs) {
  EXPECT_THAT(ErrorsOfImages("views: 4"), ElementsAre());
  EXPECT_THAT(ErrorsOfImages("views: 65"),
              ElementsAre(EndsWith("data.views: expected a number of views "
                                   "from 1 to 64, or unbounded, got '65'")));
  EXPECT_THAT(
      ErrorsOfImages("views: 3"),
      ElementsAre(EndsWith("data.views: expected a divisor of train.microbatch "
                           "(4), which holds all views of its samples, got "
                           "3")));
  EXPECT_THAT(ErrorsOfImages("views: unbounded"), ElementsAre());
  EXPECT_THAT(
      ErrorsOfImages("views: unbounded",
                     "compression: {activations: \"delta(int(4))\",\n"
                     "  activation_gradients: \"ef(int(4))\"}\n"),
      ElementsAre(EndsWith("compression.activations: expected a codec that "
                           "remembers no sample, such as int(8), with "
                           "data.views: unbounded, which never shows a tensor "
                           "twice, got 'delta(int(4))'"),
                  EndsWith("got 'ef(int(4))'")));
  EXPECT_THAT(ErrorsOfImages("views: unbounded",
                             "compression: {activations: \"int(4)\"}\n"),
              ElementsAre());
}

TEST(JobSpecTest, MixedSizesAreForAConvolutionalNetwork) {
  EXPECT_THAT(ErrorsOfImages("sizes: \"28:0.5,14:0.5\""), ElementsAre());
  EXPECT_THAT(ErrorsOfImages("sizes: \"28:0.5\""),
              ElementsAre(HasSubstr("data.sizes: expected sizes and their")));
  EXPECT_THAT(
      Errors("name: t\nmodel: {kind: image_mlp}\n"
             "data: {kind: fashion_mnist, path: x, sizes: \"14:1\"}\n"),
      ElementsAre(EndsWith("data.sizes: expected nothing with model.kind "
                           "image_mlp, which takes images of one size, got "
                           "'14:1'; resnet takes any")));
}

TEST(JobSpecTest, MixedSizesInStagesGoWithCodecsThatRememberNothing) {
  const std::string mixed = "sizes: \"28:0.5,14:0.5\"";
  const auto errors = [&](const std::string& activations,
                          const std::string& gradients, int stages = 2) {
    return ErrorsOfImages(
        mixed,
        absl::StrCat("parallel: {stages: ", stages,
                     "}\ncompression: {activations: \"", activations,
                     "\", activation_gradients: \"", gradients, "\"}\n"));
  };

  EXPECT_THAT(errors("auto", "auto"), ElementsAre());
  EXPECT_THAT(errors("int(4,axis=column)", "none"), ElementsAre());
  EXPECT_THAT(
      errors("delta(int(4))", "ef(int(4))"),
      ElementsAre(EndsWith("compression.activations: expected a codec that "
                           "remembers nothing, such as int(8), with "
                           "data.sizes, which brings the images of each "
                           "micro-batch to another size, got 'delta(int(4))'"),
                  EndsWith("got 'ef(int(4))'")));
  // Of these the memory is the codec's own.
  EXPECT_THAT(errors("lowrank(4)", "int(4,channel=slow)"),
              ElementsAre(EndsWith("got 'lowrank(4)'"),
                          EndsWith("got 'int(4,channel=slow)'")));
  EXPECT_THAT(errors("delta(int(4))", "auto", /*stages=*/1), ElementsAre());
  EXPECT_THAT(ErrorsOfImages("sizes: \"28:1\"",
                             "parallel: {stages: 2}\n"
                             "compression: {activations: \"delta(int(4))\"}\n"),
              ElementsAre());
}

TEST(JobSpecTest, AListOfGroupsIsReadWithItsDefaults) {
  const auto spec = ParseJobSpec(std::string(kGood) + R"yaml(train:
  optimizer:
    groups:
      - {match: "*.bias", weight_decay: 0}
      - match: blocks.0.*
        learning_rate_scale: 0
)yaml",
                                 "t.yaml", {});

  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto& groups = spec->train().optimizer().groups();
  ASSERT_EQ(groups.size(), 2);
  EXPECT_EQ(groups[0].match(), "*.bias");
  EXPECT_EQ(groups[0].learning_rate_scale(), 1);
  EXPECT_TRUE(groups[0].has_weight_decay());
  EXPECT_EQ(groups[1].match(), "blocks.0.*");
  EXPECT_EQ(groups[1].learning_rate_scale(), 0);
  EXPECT_FALSE(groups[1].has_weight_decay());
}

TEST(JobSpecTest, ListsSurviveYaml) {
  const v1::JobSpec spec = *ParseJobSpec(
      "name: quoted\n", "t.yaml",
      {"model.kind=synthetic", "model.synthetic.parameters_per_stage=9",
       "train.optimizer.groups=[{match: \"*.bias\", weight_decay: 0}, "
       "{match: 'a: b', learning_rate_scale: 2}]"});

  const auto again = ParseJobSpec(JobSpecYaml(spec), "again", {});

  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(spec.train().optimizer().groups_size(), 2);
  EXPECT_TRUE(MessageDifferencer::Equals(spec, *again)) << JobSpecYaml(spec);
}

TEST(JobSpecTest, MistakesInListsHaveTheirPlace) {
  EXPECT_THAT(
      Errors(std::string(kGood) + R"yaml(train:
  optimizer:
    groups:
      - {match: head.*, learning_rate_scale: -1}
      - {mach: a}
      - b
      - {weight_decay: 0}
)yaml"),
      ElementsAre(
          "t.yaml:6:46: error: train.optimizer.groups[0].learning_rate_scale: "
          "expected 0..1000, got -1",
          StartsWith("t.yaml:7:9: error: train.optimizer.groups[1].match: "
                     "expected the names of parameters"),
          "t.yaml:7:10: error: train.optimizer.groups[1].mach: unknown field "
          "(did you mean 'match'?)",
          "t.yaml:8:9: error: train.optimizer.groups[2]: expected fields, such "
          "as {match: ...}, got 'b'",
          StartsWith("t.yaml:9:9: error: train.optimizer.groups[3].match: ")));
  EXPECT_THAT(Errors(std::string(kGood) + "train: {optimizer: {groups: 3}}\n"),
              ElementsAre("t.yaml:3:29: error: train.optimizer.groups: "
                          "expected a list, such as [{match: ...}], got '3'"));
}

TEST(JobSpecTest, ElementsOfListsAreSetAndAdded) {
  const std::string text =
      std::string(kGood) + "train: {optimizer: {groups: [{match: '*'}]}}\n";

  const auto spec =
      ParseJobSpec(text, "t.yaml",
                   {"train.optimizer.groups[0].match=*.bias",
                    "train.optimizer.groups[1]={match: head.*, weight_decay: "
                    "0.5}",
                    "train.optimizer.groups[1].learning_rate_scale=3"});

  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto& groups = spec->train().optimizer().groups();
  ASSERT_EQ(groups.size(), 2);
  EXPECT_EQ(groups[0].match(), "*.bias");
  EXPECT_EQ(groups[1].match(), "head.*");
  EXPECT_EQ(groups[1].weight_decay(), 0.5);
  EXPECT_EQ(groups[1].learning_rate_scale(), 3);
  EXPECT_EQ(ParseJobSpec(text, "t.yaml", {"train.optimizer.groups="})
                ->train()
                .optimizer()
                .groups_size(),
            0);
}

TEST(JobSpecTest, AGroupThatCountsForNoParameterIsNamed) {
  const auto errors = [](const std::string& groups,
                         const std::vector<std::string>& more = {}) {
    std::vector<std::string> sets = {"train.optimizer.groups=" + groups};
    sets.insert(sets.end(), more.begin(), more.end());
    return Errors(kGood, sets);
  };

  EXPECT_THAT(
      errors("[{match: '*.bias'}, {match: '*.gain'}]"),
      ElementsAre(
          AllOf(HasSubstr("train.optimizer.groups[1].match: '*.gain' matches "
                          "no parameter of the model, which has parameters "
                          "such as embedding.token.weight, "),
                HasSubstr("blocks.0.norm1.weight"),
                HasSubstr("head.output.weight"), Not(HasSubstr("blocks.1")))));
  EXPECT_THAT(errors("[{match: 'blocks.4.*'}]"), SizeIs(1));
  EXPECT_THAT(errors("[{match: 'blocks.4.*'}]", {"model.layers=5"}), IsEmpty());
  EXPECT_THAT(errors("[{match: '*'}, {match: 'head.*'}]"),
              ElementsAre(HasSubstr("groups[1].match: 'head.*' matches nothing "
                                    "that an earlier group does not match")));
  EXPECT_THAT(errors("[{match: head.output.*}]", {"model.tied=on"}), SizeIs(1));
  const std::string synthetic = "model.kind=synthetic";
  EXPECT_THAT(errors("[{match: '*'}]", {synthetic}),
              ElementsAre(HasSubstr("groups[0].match: '*' matches no parameter "
                                    "of the model, which has none")));
  EXPECT_THAT(errors("[{match: '*'}]",
                     {synthetic, "model.synthetic.parameters_per_stage=9"}),
              IsEmpty());
  // What cannot be known yet, or was said already.
  EXPECT_THAT(errors("[{match: nothing}]", {"model.layers=0"}),
              ElementsAre(HasSubstr("model.layers")));
}

TEST(JobSpecTest, ABatchHasNoMoreSamplesThanAreEmulated) {
  const std::string text =
      "name: a\nmodel: {kind: synthetic, synthetic: {samples: 40}}\n";

  EXPECT_THAT(Errors(text, {"train.batch=40"}), IsEmpty());
  EXPECT_THAT(Errors(text, {"train.batch=44"}),
              ElementsAre(HasSubstr("train.batch: expected at most "
                                    "model.synthetic.samples (40), got 44")));
}

TEST(JobSpecTest, PathsIntoListsThatLeadNowhereAreNamed) {
  const auto error = [](const std::string& set) {
    const auto errors = Errors(kGood, {set});
    return errors.size() == 1 ? errors[0] : "not one error";
  };

  EXPECT_THAT(error("train.optimizer.groups[1].match=a"),
              HasSubstr("train.optimizer.groups: has 0 elements: expected [0] "
                        "to [0]"));
  EXPECT_THAT(error("train.optimizer.groups.match=a"),
              HasSubstr("is a list: expected an element of it, such as "
                        "groups[0].match"));
  EXPECT_THAT(error("train[0].steps=1"), HasSubstr("train: is no list"));
  EXPECT_THAT(error("train.optimizer.groups[x].match=a"),
              HasSubstr("unknown field"));
  EXPECT_THAT(error("train.optimizer.groups[0]=3"),
              HasSubstr("expected fields, such as {match: ...}, got '3'"));
}

TEST(JobSpecTest, StateIsSharedOutWhereNothingIsCompressed) {
  const auto errors = [](const std::string& kind, int nodes) {
    return Errors(
        std::string(kGood) + "train: {optimizer: {shard_state: on}}\n",
        {"train.optimizer.kind=" + kind, "parallel.replicas=4",
         "parallel.nodes=" + std::to_string(nodes)});
  };
  for (const char* kind : {"sgd", "adam", "adamw", "lamb"}) {
    EXPECT_THAT(errors(kind, 0), IsEmpty()) << kind;
  }
  EXPECT_THAT(errors("adamw", 2),
              ElementsAre(HasSubstr("expected off with parallel.nodes")));
  // 3/4 (4 + 1/8) and 3/4 2/8 bytes.
  for (const char* kind : {"onebit_adam", "onebit_lamb", "zero_one_adam"}) {
    EXPECT_THAT(
        errors(kind, 0),
        ElementsAre(HasSubstr("at least 3.09 bytes per parameter and step (4 "
                              "replicas), since weights travel "
                              "exactly, in place of 0.188")))
        << kind;
  }
}

TEST(JobSpecTest, OnlyAGptTiesItsHeadToItsEmbedding) {
  const std::vector<std::string> tied = {"model.tied=on"};
  EXPECT_THAT(Errors(kGood, tied), IsEmpty());
  for (const std::string kind : {"mlp", "synthetic"}) {
    EXPECT_THAT(Errors(kGood, {"model.kind=" + kind, "model.tied=on"}),
                ElementsAre(HasSubstr("model.tied: expected off with "
                                      "model.kind " +
                                      kind + ", got on")));
    EXPECT_THAT(Errors(kGood, {"model.kind=" + kind, "model.tied=off"}),
                IsEmpty());
  }
}

TEST(JobSpecTest, PrecisionsFitModelAndLossScale) {
  const auto errors = [](const std::string& train) {
    return Errors(std::string(kGood) + "train: {" + train + "}\n");
  };
  EXPECT_THAT(errors("precision: bf16"), IsEmpty());
  EXPECT_THAT(errors("precision: fp16, loss_scale: auto"), IsEmpty());
  EXPECT_THAT(errors("precision: fp16, loss_scale: 1024"), IsEmpty());
  EXPECT_THAT(errors("precision: fp16, loss_scale: 0.5"),
              ElementsAre(HasSubstr("train.loss_scale: expected auto, or a "
                                    "number from 1 to 16777216, got '0.5'")));
  EXPECT_THAT(errors("precision: fp16, loss_scale: big"),
              ElementsAre(HasSubstr("got 'big'")));
  EXPECT_THAT(
      errors("precision: bf16, loss_scale: 1024"),
      ElementsAre(HasSubstr("expected auto with train.precision bf16")));
  EXPECT_THAT(errors("precision: bf32"),
              ElementsAre(HasSubstr("expected fp32, bf16 or fp16")));
  EXPECT_THAT(Errors("name: a\nmodel: {kind: synthetic}\n"
                     "train: {precision: bf16}\n"),
              ElementsAre(HasSubstr("train.precision: expected fp32 with "
                                    "model.kind synthetic")));
}

// They were accepted and trained in fp32 without a word.
TEST(JobSpecTest, OptimizersThatDoNotCompressRefuseGradientCodecs) {
  for (const char* kind : {"sgd", "adamw", "lamb"}) {
    const auto errors = [kind](const std::string& codec) {
      return Errors(std::string(kGood),
                    {std::string("train.optimizer.kind=") + kind,
                     "compression.gradients=" + codec});
    };
    for (const char* codec : {"sign(block=0)", "int(4)", "cast(fp16)"}) {
      EXPECT_THAT(errors(codec),
                  ElementsAre(HasSubstr("expected auto, none or cast(bf16)")))
          << kind << " " << codec;
    }
    for (const char* codec : {"auto", "none", "cast(bf16)"}) {
      EXPECT_THAT(errors(codec), IsEmpty()) << kind << " " << codec;
    }
  }
}

TEST(JobSpecTest, OneBitLambTakesGradientCodecs) {
  for (const char* codec : {"auto", "none", "identity", "sign(block=0)"}) {
    EXPECT_THAT(Errors(kGood, {"train.optimizer.kind=onebit_lamb",
                               std::string("compression.gradients=") + codec}),
                IsEmpty())
        << codec;
  }
}

TEST(JobSpecTest, EpsilonIsPositiveWhereItDivides) {
  for (const char* kind : {"adamw", "lamb", "onebit_lamb"}) {
    EXPECT_THAT(Errors(kGood, {std::string("train.optimizer.kind=") + kind,
                               "train.optimizer.epsilon=0"}),
                ElementsAre(HasSubstr("train.optimizer.epsilon: expected more "
                                      "than 0")))
        << kind;
  }
  v1::JobSpec sgd = *ParseJobSpec(kGood, "t.yaml", {});
  sgd.mutable_train()->mutable_optimizer()->set_kind("sgd");
  sgd.mutable_train()->mutable_optimizer()->set_epsilon(0);
  EXPECT_THAT(ValidateJobSpec(sgd), IsEmpty());
}

TEST(JobSpecTest, OneBitLambLearnsItsVarianceBeforeItCompresses) {
  const std::vector<std::string> sets = {"train.optimizer.kind=onebit_lamb"};
  const std::string text =
      std::string(kGood) + "train: {optimizer: {compress_after_step: ";

  EXPECT_THAT(Errors(text + "0}}\n", sets),
              ElementsAre(HasSubstr("train.optimizer.compress_after_step: "
                                    "expected 1 or more")));
  EXPECT_THAT(Errors(text + "1}}\n", sets), IsEmpty());
}

TEST(JobSpecTest, CompressionBeginsWithinTheRun) {
  const auto errors = [](const std::string& begin,
                         const std::string& kind = "onebit_lamb",
                         const std::string& codec = "auto") {
    return Errors(std::string(kGood),
                  {"train.steps=100", "train.optimizer.kind=" + kind,
                   "train.optimizer.compress_after_step=" + begin,
                   "compression.gradients=" + codec});
  };

  EXPECT_THAT(errors("100"), IsEmpty()) << "never";
  EXPECT_THAT(errors("16.5%"), IsEmpty());
  EXPECT_THAT(errors("auto"), IsEmpty());
  EXPECT_THAT(
      errors("101"),
      ElementsAre(AllOf(HasSubstr("train.optimizer.compress_after_step: "
                                  "expected at most train.steps (100)"),
                        HasSubstr("got 101"))));
  EXPECT_THAT(errors("100%"),
              ElementsAre(HasSubstr("expected a number of steps such as")));
  EXPECT_THAT(errors("soon"),
              ElementsAre(HasSubstr("expected a number of steps such as")));
  EXPECT_THAT(errors("auto", "zero_one_adam"), IsEmpty());
  // Where nothing is ever compressed it does not matter.
  EXPECT_THAT(errors("101", "onebit_lamb", "none"), IsEmpty());
}

TEST(JobSpecTest, ARunMadeShorterThanItsWarmUpIsNoMistake) {
  const std::string text =
      std::string(kGood) +
      "train: {steps: 1000, optimizer: {kind: onebit_lamb, "
      "compress_after_step: 200}}\n";

  EXPECT_THAT(Errors(text, {"train.steps=100"}), IsEmpty());
  const auto spec = ParseJobSpec(text, "t.yaml", {"train.steps=100"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->train().optimizer().compress_after_step(), "100");
  EXPECT_THAT(Errors(std::string(kGood) +
                     "train: {steps: 100, optimizer: {kind: onebit_lamb, "
                     "compress_after_step: 200}}\n"),
              ElementsAre(HasSubstr("expected at most train.steps (100)")));
}

TEST(JobSpecTest, NodesDivideTheReplicas) {
  const auto errors = [](const std::string& nodes) {
    return Errors(std::string(kGood), {"parallel.replicas=4", "train.batch=64",
                                       "parallel.nodes=" + nodes});
  };

  EXPECT_THAT(errors("2"), IsEmpty());
  EXPECT_THAT(errors("8"),
              ElementsAre(HasSubstr("parallel.nodes: expected at most "
                                    "parallel.replicas (4), got 8")));
  EXPECT_THAT(errors("3"), ElementsAre(HasSubstr("expected a divisor")));
}

TEST(JobSpecTest, GradientsAreRoundedInsideNodesOfSeveralReplicas) {
  const auto errors = [](const std::string& nodes) {
    return Errors(std::string(kGood), {"parallel.replicas=4", "train.batch=64",
                                       "compression.node_gradients=cast(bf16)",
                                       "parallel.nodes=" + nodes});
  };

  EXPECT_THAT(errors("2"), IsEmpty());
  for (const char* nodes : {"0", "1", "4"}) {
    EXPECT_THAT(errors(nodes),
                ElementsAre(HasSubstr(
                    "compression.node_gradients: expected none unless "
                    "parallel.nodes (" +
                    std::string(nodes) + ") puts several of")));
  }
}

TEST(JobSpecTest, StepsWithoutAFlushDemandMicrobatchesAndAFittingOptimizer) {
  const auto errors = [](const std::vector<std::string>& more) {
    std::vector<std::string> sets = {"parallel.schedule=2bw",
                                     "parallel.stages=4", "model.layers=4",
                                     "train.batch=32", "train.microbatch=8"};
    sets.insert(sets.end(), more.begin(), more.end());
    return Errors(std::string(kGood), sets);
  };

  EXPECT_THAT(errors({}), IsEmpty());
  EXPECT_THAT(errors({"train.microbatch=16"}),
              ElementsAre(HasSubstr(
                  "parallel.schedule: expected at least as many micro-batches "
                  "a step as stages (4) with 2bw, got 2; a smaller "
                  "train.microbatch makes more of them")));
  EXPECT_THAT(errors({"parallel.replicas=2"}),
              ElementsAre(HasSubstr("stages (4) with 2bw, got 2")));
  EXPECT_THAT(errors({"train.optimizer.kind=zero_one_adam"}),
              ElementsAre(HasSubstr("parallel.schedule: expected gpipe or 1f1b "
                                    "with zero_one_adam")));
  for (const char* policy : {"drop", "auto"}) {
    EXPECT_THAT(errors({std::string("stragglers.policy=") + policy}),
                ElementsAre(HasSubstr(
                    "stragglers.policy: expected none or detect with "
                    "parallel.schedule: 2bw, whose steps overlap, got " +
                    std::string(policy))));
  }
  EXPECT_THAT(errors({"stragglers.policy=detect"}), IsEmpty());
}

TEST(JobSpecTest, ThePartitionHasTheLayersOfAllStages) {
  const auto errors = [](const std::string& partition) {
    return Errors(std::string(kGood), {"parallel.stages=2", "model.layers=4",
                                       "parallel.partition=" + partition});
  };

  for (const char* partition : {"auto", "even", "2,2", "3,1"}) {
    EXPECT_THAT(errors(partition), IsEmpty()) << partition;
  }
  for (const char* partition : {"3,2", "4", "2,1,1"}) {
    EXPECT_THAT(errors(partition),
                ElementsAre(HasSubstr(
                    "parallel.partition: expected the layers of "
                    "parallel.stages (2) stages, model.layers (4) in all")))
        << partition;
  }
  EXPECT_THAT(errors("0,4"),
              ElementsAre(HasSubstr("expected auto, even or the layers")));
  EXPECT_THAT(
      Errors(std::string(kGood), {"model.kind=synthetic", "parallel.stages=2",
                                  "model.layers=4", "parallel.partition=2,2"}),
      Contains(HasSubstr("expected auto with model.kind synthetic")));
}

TEST(JobSpecTest, StragglersAreCheckedAtSubmit) {
  const auto errors = [](const std::string& set,
                         const std::string& microbatch = "4") {
    return Errors(std::string(kGood),
                  {"stragglers.policy=drop", "train.batch=32",
                   "train.microbatch=" + microbatch, "stragglers." + set});
  };

  EXPECT_THAT(errors("max_drop_rate=0.05"), IsEmpty());
  EXPECT_THAT(errors("tau=150ms"), IsEmpty());
  EXPECT_THAT(errors("max_drop_rate=0"),
              ElementsAre(HasSubstr("stragglers.max_drop_rate: expected")));
  EXPECT_THAT(errors("max_drop_rate=1.5"),
              ElementsAre(HasSubstr("stragglers.max_drop_rate: expected")));
  EXPECT_THAT(errors("tau=0ms"),
              ElementsAre(HasSubstr("stragglers.tau: expected more than 0")));
  EXPECT_THAT(
      errors("policy=often"),
      ElementsAre(HasSubstr("expected none, detect, drop, rebalance or auto")));
  EXPECT_THAT(errors("tau=auto", "32"),
              ElementsAre(HasSubstr("nothing to drop")));
  EXPECT_THAT(errors("inject=\"slow:rank=0,x=1.5;lognormal:1\""), IsEmpty());
  EXPECT_THAT(errors("inject=\"slow:rank=7,x=1.5\""),
              ElementsAre(HasSubstr("stragglers.inject: ")));
  EXPECT_THAT(errors("inject=\"input:rank=0,by=20ms\""), IsEmpty());
  EXPECT_THAT(errors("inject=\"input:rank=7,by=20ms\""),
              ElementsAre(HasSubstr("stragglers.inject: ")));
  EXPECT_THAT(
      errors("inject=\"input:rank=0,by=soon\""),
      ElementsAre(HasSubstr("injected latency 'input:rank=0,by=soon'")));
  EXPECT_THAT(errors("inject=sometimes"), ElementsAre(HasSubstr("sometimes")));
}

TEST(JobSpecTest, MovingWorkNeedsWorkAndSomebodyToMoveItTo) {
  const auto errors = [](const std::string& policy,
                         const std::string& microbatch, int replicas) {
    return Errors(std::string(kGood),
                  {"stragglers.policy=" + policy, "train.batch=32",
                   absl::StrCat("parallel.replicas=", replicas),
                   "train.microbatch=" + microbatch});
  };

  EXPECT_THAT(errors("rebalance", "4", 2), IsEmpty());
  EXPECT_THAT(errors("auto", "4", 2), IsEmpty());
  EXPECT_THAT(errors("auto", "4", 1), IsEmpty()) << "which may drop";
  EXPECT_THAT(
      errors("rebalance", "4", 1),
      ElementsAre(HasSubstr("stragglers.policy: expected none or detect "
                            "with one replica")));
  EXPECT_THAT(errors("rebalance", "16", 2),
              ElementsAre(HasSubstr("nothing to move, got rebalance")));
}

TEST(JobSpecTest, NcclNeedsGpus) {
  const auto errors = [](const std::string& device) {
    return Errors(std::string(kGood),
                  {"network.transport=nccl", "parallel.device=" + device});
  };

  EXPECT_THAT(
      errors("cpu"),
      ElementsAre(
          "--set network.transport=nccl: error: network.transport: "
          "expected tcp with parallel.device cpu, got nccl, which moves bytes "
          "between GPUs: take tcp, or parallel.device cuda"));
  EXPECT_THAT(errors("cuda"), IsEmpty());
  EXPECT_THAT(errors("auto"), IsEmpty());
}

TEST(JobSpecTest, HostMemoryIsNoOtherThanTheDevicesOnACpu) {
  const auto errors = [](const std::string& policy, const std::string& device) {
    return Errors(std::string(kGood),
                  {"compression.saved_activations=" + policy,
                   "parallel.device=" + device});
  };

  for (const char* policy :
       {"offload(int(4))", "auto(8,offload=2)", "lean(auto(8,offload=2))"}) {
    EXPECT_THAT(
        errors(policy, "cpu"),
        ElementsAre(AllOf(
            HasSubstr("compression.saved_activations: expected no offload with "
                      "parallel.device cpu, whose memory is the host's, got "),
            HasSubstr(std::string(policy) +
                      ": take fixed(codec), or auto without offload, or "
                      "parallel.device cuda"))));
    EXPECT_THAT(errors(policy, "cuda"), IsEmpty());
    // The workers' device is not known yet.
    EXPECT_THAT(errors(policy, "auto"), IsEmpty());
  }
  EXPECT_THAT(errors("auto(8)", "cpu"), IsEmpty());
}

TEST(JobSpecTest, BoundaryTensorsFitOneMessage) {
  // 250 x 1,024 x 1,024 x 4 bytes are 1,000 MiB.
  const std::string text = std::string(kGood) +
                           "model: {context: 1024, width: 1024}\n"
                           "train: {batch: 251, microbatch: 251}\n"
                           "parallel: {stages: 2}\n";

  EXPECT_THAT(Errors(text),
              ElementsAre(HasSubstr("train.microbatch: expected tensors of at "
                                    "most")));
  EXPECT_THAT(Errors(text, {"train.batch=250", "train.microbatch=250"}),
              IsEmpty());
  EXPECT_THAT(Errors(text, {"parallel.stages=1"}), IsEmpty());
}

TEST(JobSpecTest, FieldsOfAnotherKindAreRefusedUnlessTheKindWasOverridden) {
  const std::string text =
      std::string(kGood) +
      "train: {optimizer: {kind: adamw, compress_after_step: 9}}\n";
  EXPECT_THAT(
      Errors(text),
      ElementsAre("t.yaml:3:55: error: train.optimizer.compress_after_step: "
                  "expected only with train.optimizer.kind: onebit_adam, "
                  "onebit_lamb or zero_one_adam, got it with adamw"));
  EXPECT_THAT(Errors(text, {"train.optimizer.kind=lamb"}), IsEmpty());
}

TEST(JobSpecTest, OverridesReplaceAndNameThemselves) {
  const auto spec = ParseJobSpec(
      std::string(kGood) + "train: {steps: 5}\n", "t.yaml",
      {"train.steps=7", "compression.activations=delta(int(4),first=int(8))",
       "network.emulate={bandwidth: 10Mbit/s}", "data.path=a b#c.txt",
       "train.steps=8"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->train().steps(), 8);
  EXPECT_EQ(spec->compression().activations(), "delta(int(4),first=int(8))");
  EXPECT_EQ(spec->network().emulate().bandwidth(), "10Mbit/s");
  EXPECT_EQ(spec->data().path(), "a b#c.txt");

  EXPECT_THAT(
      Errors(kGood, {"train.batch=0", "train.bacth=1", "steps", "seed.x=1",
                     "train.steps=ten"}),
      ElementsAre("--set train.batch=0: error: train.batch: expected "
                  "1..1048576, got 0",
                  "--set train.bacth=1: error: train.bacth: unknown field (did "
                  "you mean 'batch'?)",
                  "--set steps: error: expected path.of.field=value",
                  "--set seed.x=1: error: seed: holds a value, not a field 'x'",
                  "--set train.steps=ten: error: train.steps: expected a "
                  "number, got 'ten'"));
}

TEST(JobSpecTest, OverrideMendsARangeInTheFile) {
  EXPECT_THAT(
      Errors(std::string(kGood) + "train: {batch: 0}\n", {"train.batch=64"}),
      IsEmpty());
}

TEST(JobSpecTest, DuplicateKeysAreRefused) {
  EXPECT_THAT(Errors("name: a\ndata: {path: x}\nname: b\n"),
              ElementsAre("t.yaml:3:1: error: name: given twice: expected each "
                          "field once"));
}

TEST(JobSpecTest, BrokenYamlIsOneErrorWithItsPlace) {
  EXPECT_THAT(Errors("name: a\nmodel: {kind: gpt\ntrain: 3\n"),
              ElementsAre(StartsWith("t.yaml:3:6: error: not YAML: ")));
  EXPECT_THAT(Errors("- a\n- b\n"),
              ElementsAre("t.yaml:1:1: error: expected fields such as 'name: "
                          "text', got a list"));
  EXPECT_THAT(Errors(std::string(100000, '[')),
              ElementsAre(HasSubstr("not YAML: nested too deeply")));
  EXPECT_THAT(
      Errors("name: a\n---\nname: b\n"),
      ElementsAre(HasSubstr("t.yaml:3:1: error: expected one YAML document, "
                            "got another one here")));
}

TEST(JobSpecTest, ALooseCommaIsAnErrorAndNoEndlessLoop) {
  // Symptom: deltapipe ate all memory on a spec of one ','.
  for (const std::string text : {",", "{name: a},", "name: a\n,"}) {
    const std::vector<std::string> errors = Errors(text);
    ASSERT_EQ(errors.size(), 1) << text;
    EXPECT_THAT(errors[0], HasSubstr("YAML"));
  }
}

TEST(JobSpecTest, WhatIsNotUtf8IsRefusedWithItsPlace) {
  // Symptom: such a path was accepted, and no message could carry it.
  EXPECT_THAT(Errors("name: \xc3\xa9\ndata: {path: \xc3\xa9\xff}\n"),
              ElementsAre("t.yaml:2:15: error: not UTF-8: write the file in "
                          "UTF-8"));
  EXPECT_THAT(Errors(kGood, {"data.path=\xff"}),
              ElementsAre(HasSubstr("error: not UTF-8")));
}

TEST(JobSpecTest, AnEmptyLastDocumentIsNone) {
  EXPECT_EQ(Errors(std::string(kGood) + "---\n"), Errors(kGood));
}

TEST(JobSpecTest, UnquotedCodecInBracesIsExplained) {
  const std::vector<std::string> errors =
      Errors(std::string(kGood) +
             "compression: {activations: delta(int(4),first=int(8))}\n");

  ASSERT_FALSE(errors.empty());
  EXPECT_THAT(errors,
              ::testing::Contains(HasSubstr("a comma needs quotes inside")));
}

TEST(JobSpecTest, NumbersOfAllSpellings) {
  const auto spec = ParseJobSpec(
      R"yaml({"name": "j", "seed": "18446744073709551615",
          "data": {"path": "x"}, "train": {"steps": 1e3, "clipNorm": 2}})yaml",
      "t.json", {});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->seed(), UINT64_MAX);
  EXPECT_EQ(spec->train().steps(), 1000);
  EXPECT_EQ(spec->train().clip_norm(), 2);

  EXPECT_THAT(
      Errors(std::string(kGood) +
             "seed: -1\ntrain: {steps: 3.5, batch: \"32\", microbatch: "
             "99999999999, clip_norm: .nan}\nmodel: {layers: }\n"),
      ElementsAre(
          HasSubstr("seed: expected a whole number, 0 or more, got -1"),
          HasSubstr("train.steps: expected a whole number, got 3.5"),
          HasSubstr("train.batch: expected a number, got the text '32'"),
          HasSubstr("train.microbatch: expected 1..65536, got 99999999999"),
          HasSubstr("train.clip_norm: expected a number, got '.nan'"),
          HasSubstr("model.layers: expected a number, got nothing")));
}

TEST(JobSpecTest, YamlRoundTripKeepsEveryField) {
  const auto spec = ParseJobSpec(
      R"yaml(name: round-trip
seed: 3
model: {kind: mlp, width: 96}
data: {path: "odd: name #1.txt", limit: 1.5MB, validation: 0.1}
train: {optimizer: {kind: onebit_lamb, learning_rate: 0.0123456789012345,
                    compress_after_step: 5, epsilon: 1e-10}, clip_norm: 0}
compression: {activations: "delta(int(4),first=int(8))", gradients: none}
network: {emulate: {bandwidth: 100Mbit/s, latency: 10ms}}
)yaml",
      "t.yaml", {});
  ASSERT_TRUE(spec.ok()) << spec.status();

  const std::string yaml = JobSpecYaml(*spec);
  const auto again = ParseJobSpec(yaml, "again.yaml", {});

  ASSERT_TRUE(again.ok()) << again.status() << "\n" << yaml;
  MessageDifferencer differencer;
  std::string difference;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(*spec, *again)) << difference << yaml;
  EXPECT_EQ(JobSpecYaml(*again), yaml);
}

TEST(JobSpecTest, LoadNamesAMissingFile) {
  const auto spec = LoadJobSpec("/nonexistent/job.yaml", {});

  EXPECT_EQ(spec.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr("/nonexistent/job.yaml"));
}

}  // namespace
}  // namespace deltapipe
