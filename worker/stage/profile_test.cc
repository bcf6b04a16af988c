// What the profile says of saved activations; times are not looked at.
#include "worker/stage/profile.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;

v1::JobSpec Spec(const std::string& policy, const std::string& kind = "gpt") {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(3);
  spec.mutable_model()->set_width(64);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(32);
  spec.mutable_train()->set_microbatch(4);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_activations(policy);
  spec.mutable_compression()->set_saved_probe_every(500);
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

struct Sums {
  int64_t raw = 0;
  int64_t stored = 0;
};

std::map<std::string, Sums> ClassesOf(const v1::LayerProfile& layer) {
  std::map<std::string, Sums> classes;
  for (const v1::SavedClass& saved : layer.saved()) {
    EXPECT_EQ(classes.count(saved.name()), 0u) << saved.name();
    classes[saved.name()] = {saved.raw_bytes(), saved.stored_bytes()};
  }
  return classes;
}

Sums SumOf(const v1::LayerProfile& layer) {
  Sums sums;
  for (const auto& [name, part] : ClassesOf(layer)) {
    sums.raw += part.raw;
    sums.stored += part.stored;
  }
  return sums;
}

TEST(ProfileTest, WithoutAPolicyNoClassesAreMeasured) {
  const auto profile = ProfileModel(Spec("none"), "cpu");

  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->layers_size(), 3);
  for (const v1::LayerProfile& layer : profile->layers()) {
    EXPECT_THAT(layer.saved(), IsEmpty());
    EXPECT_GT(layer.saved_bytes(), 0);
  }
}

TEST(ProfileTest, ClassesAreThoseOfTheJobsPolicy) {
  const auto plain = ProfileModel(Spec("none"), "cpu");
  const auto coarse = ProfileModel(Spec("fixed(int(2))"), "cpu");
  const auto fine = ProfileModel(Spec("fixed(int(8))"), "cpu");

  ASSERT_TRUE(plain.ok() && coarse.ok() && fine.ok())
      << coarse.status() << fine.status();
  for (int i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    const std::map<std::string, Sums> classes = ClassesOf(coarse->layers(i));
    ASSERT_THAT(classes, Contains(Key("activation")));
    EXPECT_THAT(classes, Not(Contains(Key("weight"))));
    EXPECT_GT(classes.at("metadata").stored, 0);
    const Sums packed = classes.at("activation");
    EXPECT_LT(packed.stored, 0.1 * static_cast<double>(packed.raw));
    const Sums finer = ClassesOf(fine->layers(i)).at("activation");
    EXPECT_EQ(finer.raw, packed.raw);
    EXPECT_GT(finer.stored, 2 * packed.stored);
    // The formula of the operators' documents knows no classes.
    const auto formula = static_cast<double>(plain->layers(i).saved_bytes());
    EXPECT_EQ(coarse->layers(i).saved_bytes(), plain->layers(i).saved_bytes());
    EXPECT_GT(static_cast<double>(SumOf(coarse->layers(i)).raw), 0.4 * formula);
    EXPECT_LT(static_cast<double>(SumOf(coarse->layers(i)).raw), 2.5 * formula);
  }
}

TEST(ProfileTest, WhatIsComputedAgainIsInTheBytesBefore) {
  const auto fixed = ProfileModel(Spec("fixed(int(8))"), "cpu");
  const auto again = ProfileModel(Spec("recompute(every=1)"), "cpu");

  ASSERT_TRUE(fixed.ok() && again.ok()) << again.status();
  EXPECT_EQ(SumOf(again->layers(1)).raw, SumOf(fixed->layers(1)).raw);
  EXPECT_LT(SumOf(again->layers(1)).stored, SumOf(again->layers(1)).raw / 5);
}

// Its masks are drawn again.
TEST(ProfileTest, DropoutTakesNoBytes) {
  v1::JobSpec spec = Spec("fixed(int(8))");
  const auto without = ProfileModel(spec, "cpu");
  spec.mutable_model()->set_dropout(0.1);
  const auto with = ProfileModel(spec, "cpu");

  ASSERT_TRUE(without.ok() && with.ok()) << with.status();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(SumOf(with->layers(i)).raw, SumOf(without->layers(i)).raw) << i;
  }
}

TEST(ProfileTest, PoliciesThatPlanHaveTheirPlan) {
  const auto profile = ProfileModel(Spec("auto(1024)", "mlp"), "cpu");

  ASSERT_TRUE(profile.ok()) << profile.status();
  // All of it fits; before the plan there are 4 bits.
  const Sums packed = ClassesOf(profile->layers(1)).at("activation");
  EXPECT_GT(packed.stored, 0.9 * static_cast<double>(packed.raw));
}

TEST(ProfileTest, ABudgetThatNoLayerCanKeepIsAnError) {
  const auto profile = ProfileModel(Spec("auto(0.001)"), "cpu");

  ASSERT_FALSE(profile.ok());
  EXPECT_THAT(std::string(profile.status().message()),
              HasSubstr("compression.saved_activations"));
}

TEST(ProfileTest, SameModelGivesTheSameBytes) {
  const auto first = ProfileModel(Spec("actnn(bits=2)"), "cpu");
  const auto second = ProfileModel(Spec("actnn(bits=2)"), "cpu");

  ASSERT_TRUE(first.ok() && second.ok()) << first.status();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(SumOf(first->layers(i)).stored, SumOf(second->layers(i)).stored);
  }
}

}  // namespace
}  // namespace deltapipe
