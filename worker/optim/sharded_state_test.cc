#include "worker/optim/sharded_state.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 1054;

/// One optimizer for each range between neighbouring cuts.
class ShardedOptimizers {
 public:
  ShardedOptimizers(const OptimizerOptions& options,
                    const ParameterLayout& layout,
                    const std::vector<int64_t>& cuts)
      : num_elements_(layout.num_elements) {
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      ranges_.push_back({cuts[i], cuts[i + 1]});
      optimizers_.push_back(
          *Optimizer::Create(options, LayoutOfRange(layout, ranges_.back())));
    }
  }

  /// Returns the squared norm, summed over the shards.
  double Step(int64_t step, double rate, double clip,
              std::vector<float> gradient, std::vector<float>* weights) {
    double squares = 0;
    for (size_t i = 0; i < ranges_.size(); ++i) {
      optimizers_[i]->Prepare(step, rate, Part(*weights, i), Part(gradient, i));
      squares += optimizers_[i]->MeanGradientSquaredNorm();
      EXPECT_TRUE(
          optimizers_[i]->Apply(step, rate, clip, Part(*weights, i)).ok());
    }
    return squares;
  }

  OptimizerState Whole() const {
    OptimizerState whole;
    for (size_t i = 0; i < ranges_.size(); ++i) {
      EXPECT_TRUE(PutStateOfRange(optimizers_[i]->ExportState(), num_elements_,
                                  ranges_[i], &whole)
                      .ok());
    }
    return whole;
  }
  void Import(const OptimizerState& whole) {
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const auto part = StateOfRange(whole, num_elements_, ranges_[i]);
      ASSERT_TRUE(part.ok()) << part.status();
      const absl::Status status = optimizers_[i]->ImportState(*part);
      ASSERT_TRUE(status.ok()) << status;
    }
  }

 private:
  absl::Span<float> Part(std::vector<float>& values, size_t i) const {
    return absl::MakeSpan(values).subspan(
        static_cast<size_t>(ranges_[i].begin),
        static_cast<size_t>(ranges_[i].end - ranges_[i].begin));
  }

  const int64_t num_elements_;
  std::vector<ElementRange> ranges_;
  std::vector<std::unique_ptr<Optimizer>> optimizers_;
};

std::vector<int64_t> RandomCuts(std::mt19937_64* random, int64_t size) {
  std::vector<int64_t> cuts = {0, size};
  for (uint64_t i = (*random)() % 6; i > 0; --i) {
    cuts.push_back(
        static_cast<int64_t>((*random)() % static_cast<uint64_t>(size + 1)));
  }
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

class ShardedStateTest : public ::testing::TestWithParam<std::string> {
 protected:
  ShardedStateTest()
      : layout_(WithGroups(LayoutOf({30, 5, 601, 1, 17}))),
        problem_(layout_, kSeed) {
    options_.kind = GetParam();
    options_.weight_decay = 0.01;
    RecordProperty("seed", static_cast<int>(kSeed));
  }

  OptimizerOptions options_;
  const ParameterLayout layout_;
  const ToyProblem problem_;
};

TEST_P(ShardedStateTest, AnyCutGivesTheBitsOfTheWhole) {
  std::mt19937_64 random(kSeed);
  for (int trial = 0; trial < 20; ++trial) {
    const auto cuts = RandomCuts(&random, layout_.num_elements);
    ShardedOptimizers sharded(options_, layout_, cuts);
    ShardedOptimizers whole(options_, layout_, {0, layout_.num_elements});
    std::vector<float> weights(problem_.start().begin(),
                               problem_.start().end());
    std::vector<float> sharded_weights = weights;

    for (int64_t step = 0; step < 10; ++step) {
      const double clip = step % 2 == 0 ? 1.0 : 0.375;
      const double norm = whole.Step(
          step, 1e-3, clip, problem_.Gradient(0, step, weights), &weights);
      const double sharded_norm = sharded.Step(
          step, 1e-3, clip, problem_.Gradient(0, step, sharded_weights),
          &sharded_weights);
      EXPECT_NEAR(sharded_norm, norm, 1e-13 * norm);
    }

    EXPECT_EQ(sharded_weights, weights) << ::testing::PrintToString(cuts);
    EXPECT_EQ(sharded.Whole(), whole.Whole()) << ::testing::PrintToString(cuts);
  }
}

TEST_P(ShardedStateTest, StatePassesFromOneCutToAnother) {
  std::mt19937_64 random(kSeed + 1);
  std::vector<float> expected(problem_.start().begin(), problem_.start().end());
  std::vector<float> weights = expected;
  ShardedOptimizers whole(options_, layout_, {0, layout_.num_elements});
  OptimizerState state = whole.Whole();

  for (int64_t step = 0; step < 12; ++step) {
    whole.Step(step, 1e-3, 1.0, problem_.Gradient(0, step, expected),
               &expected);
    ShardedOptimizers sharded(options_, layout_,
                              RandomCuts(&random, layout_.num_elements));
    sharded.Import(state);
    sharded.Step(step, 1e-3, 1.0, problem_.Gradient(0, step, weights),
                 &weights);
    state = sharded.Whole();
    ASSERT_EQ(weights, expected) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ShardedStateTest,
                         ::testing::Values("sgd", "adam", "adamw"),
                         [](const auto& info) { return info.param; });

TEST(LayoutOfRangeTest, CutSegmentsKeepNamesAndGroups) {
  const ParameterLayout part =
      LayoutOfRange(WithGroups(LayoutOf({30, 5, 601, 1})), {28, 40});

  ASSERT_EQ(part.segments.size(), 3);
  EXPECT_EQ(part.num_elements, 12);
  EXPECT_EQ(part.segments[0].name, "t0");
  EXPECT_EQ(part.segments[0].num_elements, 2);
  EXPECT_EQ(part.segments[0].learning_rate_scale, 0.25);
  EXPECT_EQ(part.segments[1].weight_decay, 0.05);
  EXPECT_EQ(part.segments[2].offset, 7);
  EXPECT_EQ(part.segments[2].shape, Shape{5});
  EXPECT_TRUE(part.segments[2].has_weight_decay);
}

TEST(StateOfRangeTest, AVectorOfAnotherSizeIsNamed) {
  OptimizerState whole = {{"momentum", std::vector<float>(9)}};

  const auto part = StateOfRange(whole, 10, {0, 5});
  const absl::Status put = PutStateOfRange(whole, 10, {0, 5}, &whole);

  EXPECT_THAT(part.status().message(),
              HasSubstr("\"momentum\": expected 10 values, got 9"));
  EXPECT_THAT(put.message(), HasSubstr("expected 5 values, got 9"));
}

}  // namespace
}  // namespace deltapipe
