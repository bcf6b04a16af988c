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
  for (const std::string policy :
       {"auto(0.5)", "auto(budget=0.5)", "auto(0.5,slowdown=0.1)",
        "lean(auto(0.5))", "lean(derivative=4,policy=auto(0.5))"}) {
    const SavedMemory memory = SavedMemoryOf(SpecOf(policy), profile, 0, 3);

    EXPECT_EQ(memory.stored_bytes, (1 << 19) + 102'000) << policy;
    EXPECT_EQ(memory.raw_bytes, 8'600'000) << policy;
  }
  EXPECT_EQ(SavedMemoryOf(SpecOf("auto(16)"), profile, 0, 3).stored_bytes,
            1'182'000);
}

TEST(SavedMemoryTest, BudgetIsSharedByWhatIsInFlight) {
  const v1::JobSpec spec = SpecOf("auto(4)");
  const SavedMemory alone = SavedMemoryOf(spec, TestingPackedProfile(), 0, 3);
  constexpr int64_t kMetadata = 2'000;
  for (const int in_flight : {1, 2, 4}) {
    SavedMemory memory = alone;

    SetInFlight(spec, in_flight, &memory);

    EXPECT_EQ(memory.in_flight, in_flight);
    EXPECT_EQ(memory.stored_bytes, (4 << 20) / in_flight + kMetadata);
    EXPECT_EQ(memory.raw_bytes, alone.raw_bytes);
  }
}

TEST(SavedMemoryTest, WhatABudgetLeavesOverStaysUnused) {
  const v1::JobSpec spec = SpecOf("auto(64)");
  SavedMemory memory = SavedMemoryOf(spec, TestingPackedProfile(), 0, 3);

  SetInFlight(spec, 2, &memory);

  EXPECT_THAT(memory.classes,
              ElementsAre(IsClass("activation", 8'200'000, 8'200'000),
                          IsClass("mask", 400'000, 100'000),
                          IsClass("metadata", 0, 2'000)));
}

TEST(SavedMemoryTest, AClassThatIsWholeLeavesItsRoomToTheOthers) {
  const v1::JobSpec spec = SpecOf("auto(1)");
  SavedMemory memory;
  for (const char* name : {"activation", "relu"}) {
    const bool is_relu = name == std::string("relu");
    v1::SavedClass saved;
    saved.set_name(name);
    saved.set_raw_bytes(is_relu ? 100'000 : 8'000'000);
    saved.set_stored_bytes(is_relu ? 50'000 : 100'000);
    memory.classes.push_back(saved);
  }

  SetInFlight(spec, 1, &memory);

  EXPECT_THAT(memory.classes,
              ElementsAre(IsClass("activation", 8'000'000, (1 << 20) - 100'000),
                          IsClass("relu", 100'000, 100'000)));
}

TEST(SavedMemoryTest, OtherPoliciesKeepAsMuchForEachInFlight) {
  const v1::JobSpec spec = SpecOf("fixed(int(4))");
  SavedMemory memory = SavedMemoryOf(spec, TestingPackedProfile(), 0, 3);

  SetInFlight(spec, 4, &memory);

  EXPECT_EQ(memory.in_flight, 4);
  EXPECT_EQ(memory.stored_bytes, 1'182'000);
}

TEST(SavedMemoryTest, TheLargestGroupThatIsComputedAgainComesOnTop) {
  v1::StageProfile profile;
  for (const int64_t raw : {500, 900, 300}) {
    v1::SavedClass* const saved = profile.add_layers()->add_saved();
    saved->set_name("activation");
    saved->set_raw_bytes(raw);
    saved->set_stored_bytes(100);
  }
  const auto recomputed = [&](const std::string& policy, int first, int end) {
    return SavedMemoryOf(SpecOf(policy), profile, first, end).recomputed_bytes;
  };

  // The last layer's input is gone when the second one is computed again.
  EXPECT_EQ(recomputed("recompute(every=1)", 0, 3), 800 - 100);
  EXPECT_EQ(recomputed("recompute(every=1)", 2, 3), 200);
  // A group keeps its first layer's input alone.
  EXPECT_EQ(recomputed("recompute(every=2)", 0, 3), 400 + 900 - 100);
  EXPECT_EQ(recomputed("recompute(every=2)", 1, 3), 800 + 300);
  EXPECT_EQ(recomputed("lean(recompute(every=9))", 0, 3), 400 + 900 + 300);
  EXPECT_EQ(recomputed("fixed(int(4))", 0, 3), 0);
  EXPECT_EQ(recomputed("auto(16)", 0, 3), 0);
}

// On the last stage the head's tensors are gone by then.
TEST(SavedMemoryTest, WhatTheHeadKeptIsGoneWhenLayersAreComputedAgain) {
  v1::StageProfile profile;
  for (int i = 0; i < 3; ++i) {
    v1::LayerProfile* const layer = profile.add_layers();
    const auto add = [&](const char* name, int64_t raw, int64_t stored) {
      v1::SavedClass* const saved = layer->add_saved();
      saved->set_name(name);
      saved->set_raw_bytes(raw);
      saved->set_stored_bytes(stored);
    };
    const bool has_head = i == 2;
    add("activation", has_head ? 1050 : 1000, has_head ? 150 : 100);
    if (has_head) add("head", 300, 300);
  }
  const auto recomputed = [&](const std::string& policy, int first, int end) {
    return SavedMemoryOf(SpecOf(policy), profile, first, end).recomputed_bytes;
  };

  // 900 of the layer, less 50 and 300 of the head.
  EXPECT_EQ(recomputed("recompute(every=1)", 2, 3), 900 - 350);
  // The first layer comes later: less what the other one kept, too.
  EXPECT_EQ(recomputed("recompute(every=1)", 1, 3), 900 - 350);
  EXPECT_EQ(recomputed("recompute(every=2)", 1, 3), 900 + 1000 - 350);
  EXPECT_EQ(recomputed("recompute(every=1)", 0, 2), 900);
}

TEST(SavedMemoryTest, LayersThatAreComputedAgainArePartOfABudget) {
  const v1::StageProfile profile = TestingPackedProfile();
  // Inputs take nothing here: a block wins its 3.8 MB, and takes 4 MB while it
  // is computed again.
  const auto planned = [&](const std::string& policy, int in_flight) {
    const v1::JobSpec spec = SpecOf(policy);
    v1::StageProfile without_inputs = profile;
    for (v1::LayerProfile& layer : *without_inputs.mutable_layers()) {
      layer.set_output_elements(0);
      for (v1::SavedClass& saved : *layer.mutable_saved()) {
        if (saved.name() != "activation") continue;
        saved.set_stored_bytes(saved.raw_bytes());
      }
    }
    SavedMemory memory = SavedMemoryOf(spec, without_inputs, 1, 5);
    SetInFlight(spec, in_flight, &memory);
    return memory;
  };
  constexpr int64_t kMask = 50'000;
  constexpr int64_t kMetadata = 1'000;

  // The first one is computed again when the others, which are kept as they
  // are, are gone: it needs no room.
  const SavedMemory exact = planned("auto(12,slowdown=0.2)", 1);
  EXPECT_EQ(exact.stored_bytes, 3 * (3'800'000 + kMask) + 4 * kMetadata);
  EXPECT_EQ(exact.recomputed_bytes, 0);
  // Not here: the budget is used, whatever for.
  const SavedMemory packed = planned("auto(7,slowdown=0.2)", 1);
  EXPECT_EQ(packed.stored_bytes, (7 << 20) + 4'000);
  EXPECT_EQ(packed.recomputed_bytes, 0);
  // For two micro-batches both, one block at a time.
  const SavedMemory two = planned("auto(20,slowdown=0.2)", 2);
  EXPECT_EQ(two.stored_bytes, 2 * (3'800'000 + kMask) + 4 * kMetadata);
  EXPECT_EQ(two.recomputed_bytes, 0);
  EXPECT_EQ(planned("auto(64,slowdown=0.2)", 1).recomputed_bytes, 0);
}

TEST(SavedMemoryTest, HostMemoryIsBesideTheBudget) {
  const v1::JobSpec spec = SpecOf("auto(4,offload=2)");
  SavedMemory memory = SavedMemoryOf(spec, TestingPackedProfile(), 0, 3);

  SetInFlight(spec, 2, &memory);

  EXPECT_EQ(memory.stored_bytes, (2 << 20) + 2'000);
  EXPECT_EQ(memory.host_bytes, 1 << 20);
  // At most what the tensors take there that the device has no room for.
  const v1::JobSpec large = SpecOf("auto(4,offload=1000)");
  SetInFlight(large, 2, &memory);
  EXPECT_NEAR(static_cast<double>(memory.host_bytes),
              (8'200'000 - (2 << 20) + 100'000) * 0.254, 1000);
  const v1::JobSpec roomy = SpecOf("auto(64,offload=2)");
  SetInFlight(roomy, 2, &memory);
  EXPECT_EQ(memory.host_bytes, 0);
}

TEST(SavedMemoryTest, WhatWasMeasuredInHostMemoryIsNoClass) {
  const v1::JobSpec spec = SpecOf("offload(int(8))");
  v1::StageProfile profile = TestingPackedProfile();
  for (int i = 0; i < 3; ++i) {
    v1::SavedClass* const saved = profile.mutable_layers(i)->add_saved();
    saved->set_name("in host memory");
    saved->set_stored_bytes(1'000'000);
  }
  const SavedMemory without = SavedMemoryOf(spec, TestingPackedProfile(), 0, 3);

  SavedMemory memory = SavedMemoryOf(spec, profile, 0, 3);
  SetInFlight(spec, 2, &memory);

  EXPECT_EQ(memory.host_bytes, 3'000'000);
  EXPECT_EQ(memory.stored_bytes, without.stored_bytes);
  EXPECT_EQ(memory.classes.size(), without.classes.size());
  // Layers that were measured alone say nothing of a plan for the stage.
  EXPECT_EQ(
      SavedMemoryOf(SpecOf("auto(64,offload=2)"), profile, 0, 3).host_bytes, 0);
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
