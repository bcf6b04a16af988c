#include "coordinator/schedule/saved_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

MATCHER_P3(IsClass, name, raw_bytes, stored_bytes, "") {
  return arg.name() == name && arg.raw_bytes() == raw_bytes &&
         arg.stored_bytes() == stored_bytes;
}

v1::JobSpec SpecOf(const std::string& policy) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_saved_activations(policy);
  return spec;
}

TEST(SavedMemoryTest, OnlyAPolicyPacks) {
  EXPECT_FALSE(PacksSavedActivations(SpecOf("")));
  EXPECT_FALSE(PacksSavedActivations(SpecOf("none")));
  EXPECT_TRUE(PacksSavedActivations(SpecOf("recompute(every=1)")));
}

TEST(SavedMemoryTest, ClassesAreSummedOverLayersAndTheLargestComesFirst) {
  const SavedMemory memory =
      SavedMemoryOf(SpecOf("fixed(int(4))"), TestingPackedProfile(), 0, 3);

  EXPECT_THAT(memory.classes,
              ElementsAre(IsClass("activation", 8'200'000, 1'080'000),
                          IsClass("mask", 400'000, 100'000),
                          IsClass("metadata", 0, 2'000)));
  EXPECT_EQ(memory.raw_bytes, 8'600'000);
  EXPECT_EQ(memory.stored_bytes, 1'182'000);
}

TEST(SavedMemoryTest, LayersThatWereNotMeasuredCountInFull) {
  v1::StageProfile profile = TestingPackedProfile();
  profile.mutable_layers(0)->clear_saved();

  const SavedMemory memory =
      SavedMemoryOf(SpecOf("fixed(int(4))"), profile, 0, 1);

  EXPECT_THAT(memory.classes,
              ElementsAre(IsClass("estimated", 500'000, 500'000)));
}

TEST(SavedMemoryTest, BudgetIsOfTheStageNotOfEachLayer) {
  const v1::StageProfile profile = TestingPackedProfile();
  for (const std::string policy : {"auto(0.5)", "auto(budget=0.5)"}) {
    const SavedMemory memory = SavedMemoryOf(SpecOf(policy), profile, 0, 3);

    EXPECT_EQ(memory.stored_bytes, (1 << 19) + 102'000) << policy;
    EXPECT_EQ(memory.raw_bytes, 8'600'000) << policy;
  }
  EXPECT_EQ(SavedMemoryOf(SpecOf("auto(16)"), profile, 0, 3).stored_bytes,
            1'182'000);
}

TEST(SavedMemoryTest, GroupsThatAreComputedAgainKeepOneInput) {
  const v1::StageProfile profile = TestingPackedProfile();
  const auto activation = [&](const std::string& policy, int first, int end) {
    for (const v1::SavedClass& saved :
         SavedMemoryOf(SpecOf(policy), profile, first, end).classes) {
      if (saved.name() == "activation") return saved.stored_bytes();
    }
    return int64_t{-1};
  };

  EXPECT_EQ(activation("recompute(every=1)", 1, 5), 4 * 500'000);
  EXPECT_EQ(activation("recompute(every=2)", 1, 5), 2 * 500'000);
  EXPECT_EQ(activation("recompute(3)", 1, 5), 2 * 500'000);
  EXPECT_EQ(activation("recompute(codec=int(8),every=9)", 1, 5), 500'000);
  EXPECT_EQ(activation("recompute(codec=int(8))", 1, 5), 4 * 500'000);
  // No layer gives back more than it has; the first group's input is small.
  EXPECT_EQ(activation("recompute(every=2)", 0, 2), 80'000 + 420'000);
  EXPECT_EQ(activation("recompute(every=2)", 4, 6), 500'000);
  EXPECT_EQ(
      SavedMemoryOf(SpecOf("recompute(every=2)"), profile, 1, 5).raw_bytes,
      4 * 4'000'000);
}

TEST(SavedMemoryTest, NoLayersTakeNothing) {
  const SavedMemory memory =
      SavedMemoryOf(SpecOf("fixed(int(4))"), TestingPackedProfile(), 2, 2);

  EXPECT_THAT(memory.classes, SizeIs(0));
  EXPECT_EQ(memory.raw_bytes, 0);
}

}  // namespace
}  // namespace deltapipe
