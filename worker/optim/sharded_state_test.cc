#include "worker/optim/sharded_state.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/cut_tensors.h"
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
    }
    for (size_t i = 0; i < ranges_.size(); ++i) {
      SharedNorms shared;
      shared.cut = CutTensors::Of(layout, ranges_, static_cast<int>(i));
      num_cut_ = shared.cut.count;
      shared.sum = [this, i](int64_t, absl::Span<double> values) {
        return sum_(i, values);
      };
      optimizers_.push_back(*Optimizer::Create(
          options, LayoutOfRange(layout, ranges_[i]), shared));
    }
  }
  int num_cut() const { return num_cut_; }

  /// Of lamb, whose shards need sums of each other: as threads would do it, but
  /// one after the other. Each shard is run up to its sums, from a copy of its
  /// state, and then anew with what all of them have said.
  void StepWithSums(int64_t step, double rate, double clip,
                    std::vector<float> gradient, std::vector<float>* weights) {
    std::vector<std::vector<double>> parts(ranges_.size());
    const OptimizerState before = Whole();
    sum_ = [&parts](size_t i, absl::Span<double> values) {
      parts[i].assign(values.begin(), values.end());
      return absl::CancelledError("only asked");
    };
    for (size_t i = 0; i < ranges_.size(); ++i) {
      optimizers_[i]->Prepare(step, rate, Part(*weights, i), Part(gradient, i));
      const std::vector<float> unchanged = *weights;
      EXPECT_EQ(optimizers_[i]->Apply(step, rate, clip, Part(*weights, i)).ok(),
                num_cut_ == 0);
      if (num_cut_ > 0) {
        EXPECT_EQ(*weights, unchanged);
      }
    }
    if (num_cut_ == 0) return;
    Import(before);
    sum_ = [&parts](size_t, absl::Span<double> values) {
      std::fill(values.begin(), values.end(), 0.0);
      for (const std::vector<double>& part : parts) {
        for (size_t k = 0; k < values.size(); ++k) values[k] += part[k];
      }
      return absl::OkStatus();
    };
    Step(step, rate, clip, std::move(gradient), weights);
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
  int num_cut_ = 0;
  std::function<absl::Status(size_t, absl::Span<double>)> sum_;
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

/// 1 to 4 shares, as many as ranks.
std::vector<int64_t> RandomShares(std::mt19937_64* random, int ranks,
                                  int64_t size) {
  std::vector<int64_t> cuts = {0, size};
  for (int i = 1; i < ranks; ++i) {
    cuts.push_back(
        static_cast<int64_t>((*random)() % static_cast<uint64_t>(size + 1)));
  }
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

// Tensors that no share cuts, to the bit; the squares of others are added up in
// another order, in double, so that a norm is off by some 1e-16.
TEST(ShardedLambTest, EqualsTheWholeForAnyCut) {
  std::mt19937_64 random(kSeed + 2);
  RecordProperty("seed", static_cast<int>(kSeed + 2));
  const ParameterLayout layout = WithGroups(LayoutOf({30, 5, 601, 1, 17, 83}));
  const ToyProblem problem(layout, kSeed);
  OptimizerOptions options;
  options.kind = "lamb";
  options.weight_decay = 0.01;
  double largest = 0;
  int num_cut = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const auto cuts = RandomShares(&random, 1 + trial % 4, layout.num_elements);
    SCOPED_TRACE(::testing::PrintToString(cuts));
    ShardedOptimizers sharded(options, layout, cuts);
    ShardedOptimizers whole(options, layout, {0, layout.num_elements});
    std::vector<float> weights(problem.start().begin(), problem.start().end());
    std::vector<float> sharded_weights = weights;
    num_cut += sharded.num_cut();

    for (int64_t step = 0; step < 20; ++step) {
      const double clip = step % 2 == 0 ? 1.0 : 0.375;
      whole.Step(step, 1e-2, clip, problem.Gradient(0, step, weights),
                 &weights);
      sharded.StepWithSums(step, 1e-2, clip,
                           problem.Gradient(0, step, sharded_weights),
                           &sharded_weights);
    }

    for (const ParameterSegment& segment : layout.segments) {
      const int64_t end = segment.offset + segment.num_elements;
      const bool is_cut = std::any_of(
          cuts.begin(), cuts.end(),
          [&](int64_t cut) { return cut > segment.offset && cut < end; });
      double squares = 0, distance = 0;
      for (int64_t i = segment.offset; i < end; ++i) {
        const double expected = weights[static_cast<size_t>(i)];
        const double got = sharded_weights[static_cast<size_t>(i)];
        squares += expected * expected;
        distance += (got - expected) * (got - expected);
        if (!is_cut) {
          ASSERT_EQ(got, expected) << segment.name;
        }
      }
      const double relative = std::sqrt(distance / squares);
      EXPECT_LE(relative, 1e-6) << segment.name;
      largest = std::max(largest, relative);
    }
    if (sharded.num_cut() == 0) {
      EXPECT_EQ(sharded.Whole(), whole.Whole());
    }
  }
  EXPECT_GT(num_cut, 20);
  printf("[ figures  ] a cut tensor is off by %.2g at most\n", largest);
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
