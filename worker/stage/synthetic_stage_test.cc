#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr double kDrift = 0.1;

class SyntheticStageTest : public ::testing::Test {
 protected:
  SyntheticStageTest() {
    spec_.set_seed(17);
    spec_.mutable_model()->set_context(64);
    spec_.mutable_model()->set_width(128);
    v1::SyntheticSpec* synthetic = spec_.mutable_model()->mutable_synthetic();
    synthetic->set_forward_time("20ms");
    synthetic->set_backward_time("30ms");
    synthetic->set_drift(kDrift);
    synthetic->set_parameters_per_stage(100);
  }

  std::unique_ptr<Stage> Make(int stage) {
    auto made = MakeSyntheticStage(spec_, stage, 3);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  static std::vector<float> Visit(Stage* stage, uint64_t key, int64_t epoch = 0,
                                  bool needs_backward = true) {
    const std::vector<uint64_t> keys = {key};
    StageInput input;
    input.num_samples = 1;
    input.epoch = epoch;
    input.sample_keys = keys;
    input.needs_backward = needs_backward;
    StageOutput output;
    EXPECT_TRUE(stage->Forward(input, &output).ok());
    return {output.activation.values.begin(), output.activation.values.end()};
  }

  v1::JobSpec spec_;
};

/// ||a - b|| / ||b||.
double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

TEST_F(SyntheticStageTest, ActivationsDriftByTheirShareInEachEpoch) {
  auto stage = Make(0);
  for (const uint64_t key : {3, 500000}) {
    std::vector<float> before = Visit(stage.get(), key);
    ASSERT_EQ(before.size(), 64u * 128u);
    for (int64_t epoch = 1; epoch < 5; ++epoch) {
      const std::vector<float> now = Visit(stage.get(), key, epoch);
      EXPECT_NEAR(Distance(now, before), kDrift, 0.05 * kDrift);
      before = now;
    }
  }
}

TEST_F(SyntheticStageTest, SamplesAndStagesHaveNothingInCommon) {
  auto first = Make(0);
  auto second = Make(1);
  const std::vector<float> a = Visit(first.get(), 3);

  EXPECT_NEAR(Distance(Visit(first.get(), 4), a), std::sqrt(2.0), 0.1);
  EXPECT_NEAR(Distance(Visit(second.get(), 3), a), std::sqrt(2.0), 0.1);
}

TEST_F(SyntheticStageTest, RemembersNothingOfEarlierVisits) {
  auto stage = Make(0);
  const std::vector<float> third = Visit(stage.get(), 3, 2);
  Visit(stage.get(), 3, 5);

  EXPECT_EQ(Visit(stage.get(), 3, 2), third);
  EXPECT_EQ(Visit(Make(0).get(), 3, 2, /*needs_backward=*/false), third);
}

TEST_F(SyntheticStageTest, TakesItsTimeAndGivesGradientsOfTheBoundarysShape) {
  auto stage = Make(1);

  const Nanos begin = Clock::Real()->Now();
  Visit(stage.get(), 3);
  const Nanos middle = Clock::Real()->Now();
  const auto gradient = stage->Backward(0, {});
  const Nanos end = Clock::Real()->Now();

  ASSERT_TRUE(gradient.ok()) << gradient.status();
  EXPECT_EQ(gradient->values.size(), 64u * 128u);
  EXPECT_GE(middle - begin, std::chrono::milliseconds(20));
  EXPECT_GE(end - middle, std::chrono::milliseconds(30));
  EXPECT_EQ(stage->Backward(0, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(SyntheticStageTest, TellsOfItsLayersWhileItsBackwardRuns) {
  spec_.mutable_model()->set_layers(13);
  auto stage = Make(1);  // four of them
  std::vector<std::pair<int64_t, Nanos>> told;
  Visit(stage.get(), 3);

  ASSERT_TRUE(stage->WatchNextBackward([&](int64_t num_final) {
    told.emplace_back(num_final, Clock::Real()->Now());
  }));
  const Nanos begin = Clock::Real()->Now();
  ASSERT_TRUE(stage->Backward(0, {}).ok());
  const Nanos end = Clock::Real()->Now();

  EXPECT_EQ(
      stage->gradient_order(),
      (std::vector<ElementRange>{{75, 100}, {50, 75}, {25, 50}, {0, 25}}));
  ASSERT_EQ(told.size(), 3u);
  for (int64_t i = 0; i < 3; ++i) {
    const auto& [num_final, when] = told[static_cast<size_t>(i)];
    EXPECT_EQ(num_final, 25 * (i + 1));
    EXPECT_GE(when - begin, std::chrono::milliseconds(30) * (i + 1) / 4);
  }
  EXPECT_GE(end - begin, std::chrono::milliseconds(30));
}

TEST_F(SyntheticStageTest, EndsOfThePipelineSendNothingBeyondThem) {
  auto first = Make(0);
  auto last = Make(2);
  Visit(first.get(), 3);

  EXPECT_TRUE(Visit(last.get(), 3).empty());
  const auto gradient = first->Backward(0, {});
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  EXPECT_TRUE(gradient->values.empty());
  EXPECT_EQ(last->parameters().num_elements, 100);
  EXPECT_EQ(last->weights().size(), 100u);
}

}  // namespace
}  // namespace deltapipe
