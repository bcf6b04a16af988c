#include "worker/engine/weight_versions.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "worker/stage/testing/elementwise_stage.h"

namespace deltapipe {
namespace {

WeightVersions::MakeStage Make() {
  return []() -> absl::StatusOr<std::unique_ptr<Stage>> {
    v1::JobSpec spec;
    spec.mutable_model()->set_layers(1);
    spec.mutable_model()->set_context(1);
    spec.mutable_model()->set_width(2);
    return {std::make_unique<ElementwiseStage>(spec, 0, 1)};
  };
}

std::unique_ptr<WeightVersions> Create(int delay) {
  auto versions = WeightVersions::Create(Make(), delay);
  EXPECT_TRUE(versions.ok()) << versions.status();
  std::vector<float> zeros((*versions)->newest()->weights().size());
  EXPECT_TRUE((*versions)->Restore(0, zeros, {}).ok());
  return *std::move(versions);
}

/// Adds one to every weight.
void Update(int64_t step, WeightVersions* versions) {
  for (float& weight : versions->BeginUpdate(step)) weight += 1;
  ASSERT_TRUE(versions->EndUpdate(step).ok());
}

TEST(WeightVersionsTest, WithoutDelayStepsSeeEveryUpdate) {
  const auto versions = Create(0);

  for (int64_t step = 0; step < 5; ++step) {
    EXPECT_EQ(versions->Of(step)->weights()[0], static_cast<float>(step));
    EXPECT_EQ(versions->DelayOf(step), 0);
    Update(step, versions.get());
    EXPECT_EQ(versions->newest()->weights()[1], static_cast<float>(step + 1));
    EXPECT_TRUE(versions->former().empty());
  }
}

TEST(WeightVersionsTest, WithDelayStepsSeeAllUpdatesButTheLast) {
  const auto versions = Create(1);

  for (int64_t step = 0; step < 6; ++step) {
    // Both steps that are under way before update `step` ends.
    for (const int64_t of : {step, step + 1}) {
      const int64_t seen = std::max<int64_t>(of - 1, 0);
      EXPECT_EQ(versions->Of(of)->weights()[0], static_cast<float>(seen));
      EXPECT_EQ(versions->DelayOf(of), of - seen);
    }
    const float* under_way = versions->Of(step + 1)->weights().data();
    const float before = *under_way;
    Update(step, versions.get());
    EXPECT_EQ(*under_way, before);
    EXPECT_EQ(versions->newest()->weights()[0], static_cast<float>(step + 1));
    EXPECT_EQ(versions->former()[0], static_cast<float>(step));
  }
}

TEST(WeightVersionsTest, RestoredVersionsGoOnAsTheyWere) {
  for (int64_t done = 0; done < 5; ++done) {
    const auto whole = Create(1);
    for (int64_t step = 0; step < done; ++step) Update(step, whole.get());
    const absl::Span<const float> newest = whole->newest()->weights();

    const auto restored = Create(1);
    ASSERT_TRUE(restored->Restore(done, newest, whole->former()).ok());

    for (int64_t step = done; step < done + 3; ++step) {
      for (const int64_t of : {step, step + 1}) {
        EXPECT_EQ(restored->Of(of)->weights()[0], whole->Of(of)->weights()[0]);
        EXPECT_EQ(restored->DelayOf(of), whole->DelayOf(of)) << done << of;
      }
      Update(step, whole.get());
      Update(step, restored.get());
    }
  }
}

TEST(WeightVersionsTest, WithoutAFormerVersionBothAreTheNewest) {
  const auto versions = Create(1);
  const std::vector<float> weights(versions->newest()->weights().size(), 7);
  ASSERT_TRUE(versions->Restore(3, weights, {}).ok());

  EXPECT_EQ(versions->Of(3)->weights()[0], 7);
  EXPECT_EQ(versions->Of(4)->weights()[0], 7);
  EXPECT_EQ(versions->DelayOf(3), 0);
  EXPECT_EQ(versions->DelayOf(4), 1);
}

TEST(WeightVersionsTest, OtherSizesAndDelaysAreRefused) {
  EXPECT_EQ(WeightVersions::Create(Make(), 2).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Create(1)->Restore(3, std::vector<float>(3), {}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
