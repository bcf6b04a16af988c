#include "worker/optim/optimizer_fields.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(OptimizerFieldsTest, DefaultsAreThoseOfAJobSpec) {
  const OptimizerSettings settings;

  const auto options = settings.OptionsOf(1000);

  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->kind, "adamw");
  EXPECT_EQ(options->weight_decay, 0.01);
  EXPECT_EQ(options->compress_after_step, 200);  // 20%
  EXPECT_EQ(options->num_steps, 1000);
  EXPECT_EQ(settings.RateOf().rate, 3e-3);
  EXPECT_DOUBLE_EQ(settings.RateOf().final_rate, 3e-4);
  EXPECT_EQ(settings.RateOf().decay, LearningRateDecay::kConstant);
}

TEST(OptimizerFieldsTest, GroupsAreSetAndAdded) {
  OptimizerSettings settings;
  const std::vector<std::pair<std::string, std::string>> fields = {
      {"groups[0].match", "*.bias"},
      {"groups[0].weight_decay", "0"},
      {"groups[1].match", "t*"},
      {"groups[1].learning_rate_scale", "0.5"},
      {"groups[0].match", "*.gain"}};

  for (const auto& [name, text] : fields) {
    const absl::Status status = SetOptimizerField(name, text, &settings);
    ASSERT_TRUE(status.ok()) << status;
  }

  ASSERT_EQ(settings.groups.size(), 2);
  EXPECT_EQ(settings.groups[0].match, "*.gain");
  EXPECT_EQ(settings.groups[0].learning_rate_scale, 1);
  EXPECT_EQ(settings.groups[0].weight_decay, 0);
  EXPECT_EQ(settings.groups[1].learning_rate_scale, 0.5);
  EXPECT_FALSE(settings.groups[1].weight_decay.has_value());
}

TEST(OptimizerFieldsTest, WhatIsNoGroupsFieldIsNamedAndChangesNothing) {
  OptimizerSettings settings;
  const auto error = [&](const std::string& name, const std::string& text) {
    return std::string(SetOptimizerField(name, text, &settings).message());
  };

  EXPECT_THAT(error("groups[1].match", "a"), HasSubstr("up to groups[0]"));
  EXPECT_THAT(error("groups[x].match", "a"), HasSubstr("unknown field"));
  EXPECT_THAT(error("groups[0]", "a"), HasSubstr("unknown field"));
  EXPECT_THAT(error("groups[0].mach", "a"), HasSubstr("did you mean 'match'"));
  EXPECT_THAT(error("groups[0].weight_decay", "-1"),
              HasSubstr("expected a number from 0 to 10, got \"-1\""));
  EXPECT_TRUE(settings.groups.empty());
}

TEST(OptimizerFieldsTest, EveryFieldIsTakenByItsName) {
  OptimizerSettings settings;
  const std::vector<std::pair<std::string, std::string>> fields = {
      {"kind", "zero_one_adam"},
      {"lr_final", "0.5"},
      {"learning_rate", "0.25"},
      {"lr_warmup_steps", "7"},
      {"lr_schedule", "cosine"},
      {"compress_after_step", "33"},
      {"weight_decay", "0.125"},
      {"beta1", "0.5"},
      {"beta2", "0.75"},
      {"epsilon", "1e-6"},
      {"momentum", "0.625"},
      {"max_coefficient", "3"},
      {"min_coefficient", "0.5"},
      {"coefficient_beta", "0.25"},
      {"factor_max", "2"},
      {"factor_min", "0.375"},
      {"factor_threshold", "0.0625"},
      {"variance_update_scaler", "5"},
      {"local_step_scaler", "6"},
      {"local_step_clipper", "8"},
  };

  for (const auto& [name, text] : fields) {
    const absl::Status status = SetOptimizerField(name, text, &settings);
    ASSERT_TRUE(status.ok()) << status;
  }

  const auto options = settings.OptionsOf(1000);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->kind, "zero_one_adam");
  EXPECT_EQ(settings.RateOf().final_rate, 0.125);
  EXPECT_EQ(settings.RateOf().warmup_steps, 7);
  EXPECT_EQ(settings.RateOf().decay, LearningRateDecay::kCosine);
  EXPECT_EQ(options->compress_after_step, 33);
  EXPECT_EQ(options->weight_decay, 0.125);
  EXPECT_EQ(options->beta1, 0.5);
  EXPECT_EQ(options->beta2, 0.75);
  EXPECT_EQ(options->epsilon, 1e-6);
  EXPECT_EQ(options->momentum, 0.625);
  EXPECT_EQ(options->max_coefficient, 3);
  EXPECT_EQ(options->min_coefficient, 0.5);
  EXPECT_EQ(options->coefficient_beta, 0.25);
  EXPECT_EQ(options->factor_max, 2);
  EXPECT_EQ(options->factor_min, 0.375);
  EXPECT_EQ(options->factor_threshold, 0.0625);
  EXPECT_EQ(options->variance_update_scaler, 5);
  EXPECT_EQ(options->local_step_scaler, 6);
  EXPECT_EQ(options->local_step_clipper, 8);
}

TEST(OptimizerFieldsTest, MistakesNameTheFieldAndWhatWasExpected) {
  OptimizerSettings settings;
  const auto message = [&](const std::string& name, const std::string& text) {
    return SetOptimizerField(name, text, &settings).ToString();
  };

  EXPECT_THAT(message("weight_deacy", "0"),
              AllOf(HasSubstr("unknown field \"weight_deacy\""),
                    HasSubstr("did you mean 'weight_decay'?")));
  EXPECT_THAT(message("kind", "onebit_lam"),
              AllOf(HasSubstr("unknown optimizer \"onebit_lam\""),
                    HasSubstr("did you mean 'onebit_lamb'?")));
  EXPECT_THAT(message("beta1", "1.5"),
              AllOf(HasSubstr("field beta1: expected a number from 0 to"),
                    HasSubstr("got \"1.5\"")));
  EXPECT_THAT(message("learning_rate", "nan"), HasSubstr("got \"nan\""));
  EXPECT_THAT(message("lr_warmup_steps", "2.5"), HasSubstr("a whole number"));
  EXPECT_THAT(message("local_step_clipper", "0"), HasSubstr("from 1 to"));
  EXPECT_THAT(message("compress_after_step", "soon"), HasSubstr("auto"));
  EXPECT_THAT(message("lr_schedule", "step"), HasSubstr("linear or cosine"));
}

TEST(OptimizerFieldsTest, CompressionBeginsWithinTheRun) {
  OptimizerSettings settings;
  ASSERT_TRUE(SetOptimizerField("compress_after_step", "21", &settings).ok());
  EXPECT_TRUE(settings.OptionsOf(20).ok());  // adamw does not compress
  ASSERT_TRUE(SetOptimizerField("kind", "onebit_adam", &settings).ok());

  EXPECT_TRUE(settings.OptionsOf(21).ok());
  EXPECT_THAT(settings.OptionsOf(20).status().ToString(),
              HasSubstr("field compress_after_step: 21 lies beyond the run of "
                        "20 steps"));
}

TEST(OptimizerFieldsTest, AutoIsADecision) {
  OptimizerSettings settings;
  ASSERT_TRUE(SetOptimizerField("kind", "onebit_adam", &settings).ok());
  ASSERT_TRUE(SetOptimizerField("compress_after_step", "auto", &settings).ok());

  const auto options = settings.OptionsOf(20);

  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->compress_after_step, kCompressByDecision);
}

}  // namespace
}  // namespace deltapipe
