#include "worker/optim/dead_rows.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/testing/onebit_replicas.h"
#include "worker/optim/testing/replica_comparison.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {

void PrintTo(const ElementRange& range, std::ostream* out) {
  *out << "[" << range.begin << ", " << range.end << ")";
}

namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

ParameterLayout LayoutOfShapes(const std::vector<Shape>& shapes) {
  ParameterLayout layout;
  for (const Shape& shape : shapes) {
    ParameterSegment segment;
    segment.name = "t" + std::to_string(layout.segments.size());
    segment.shape = shape;
    segment.offset = layout.num_elements;
    segment.num_elements = NumElements(shape);
    segment.has_weight_decay = shape.size() >= 2;
    layout.num_elements += segment.num_elements;
    layout.segments.push_back(segment);
  }
  return layout;
}

class DeadRowsTest : public ::testing::Test {
 protected:
  // Rows [0, 3), [3, 6), [6, 9), [9, 12); a vector [12, 17); nothing; a row
  // [17, 21).
  DeadRowsTest() : rows_(LayoutOfShapes({{4, 3}, {5}, {0, 7}, {1, 2, 2}})) {}

  DeadRows<double> rows_;
  std::vector<double> momentum_ = std::vector<double>(21, 0.5);
  std::vector<double> variance_ = std::vector<double>(21, 0.0);
};

TEST_F(DeadRowsTest, RowsOfMatricesAndWholeVectorsAreFound) {
  variance_[4] = 1e-30;  // in [3, 6)
  variance_[11] = 2;     // in [9, 12)
  variance_[17] = 3;

  rows_.Find(variance_);

  EXPECT_THAT(rows_.excluded(),
              ElementsAre(ElementRange{0, 3}, ElementRange{6, 9},
                          ElementRange{12, 17}));
  EXPECT_THAT(rows_.live(0),
              ElementsAre(ElementRange{3, 6}, ElementRange{9, 12}));
  EXPECT_THAT(rows_.live(1), IsEmpty());
  EXPECT_THAT(rows_.live(2), IsEmpty());
  EXPECT_THAT(rows_.live(3), ElementsAre(ElementRange{17, 21}));
  EXPECT_EQ(rows_.num_live_elements(0), 6);
}

TEST_F(DeadRowsTest, WithoutDeadRowsATensorIsOneRange) {
  std::fill(variance_.begin(), variance_.end(), 1.0);

  rows_.Find(variance_);

  EXPECT_THAT(rows_.excluded(), IsEmpty());
  EXPECT_THAT(rows_.live(0), ElementsAre(ElementRange{0, 12}));
}

TEST_F(DeadRowsTest, AWokenRowHasTheMeanVarianceOfItsTensor) {
  std::fill(variance_.begin() + 3, variance_.begin() + 6, 2.0);
  std::fill(variance_.begin() + 9, variance_.begin() + 12, 4.0);
  rows_.Find(variance_);
  rows_.SetWoken({1, 0, 1, 0});  // [0, 3) and the vector

  const auto joined =
      rows_.Join(absl::MakeSpan(momentum_), absl::MakeSpan(variance_));

  ASSERT_EQ(joined.size(), 2);
  EXPECT_FALSE(joined[0].was_tensor_dead);
  EXPECT_TRUE(joined[1].was_tensor_dead);
  EXPECT_THAT(absl::MakeSpan(variance_).subspan(0, 3), Each(3.0));
  // Nothing is live in its own: all that was live before.
  EXPECT_THAT(absl::MakeSpan(variance_).subspan(12, 5), Each(3.0));
  EXPECT_THAT(absl::MakeSpan(momentum_).subspan(0, 3), Each(0.0));
  EXPECT_THAT(absl::MakeSpan(momentum_).subspan(3, 3), Each(0.5));
  EXPECT_THAT(rows_.excluded(),
              ElementsAre(ElementRange{6, 9}, ElementRange{17, 21}));
  EXPECT_THAT(rows_.live(0),
              ElementsAre(ElementRange{0, 6}, ElementRange{9, 12}));
}

TEST_F(DeadRowsTest, WhereNothingLivesAWokenRowHasVarianceOne) {
  rows_.Find(variance_);
  rows_.SetWoken({0, 1, 0, 0, 0, 0});

  rows_.Join(absl::MakeSpan(momentum_), absl::MakeSpan(variance_));

  EXPECT_THAT(rows_.live(0), ElementsAre(ElementRange{3, 6}));
  EXPECT_THAT(absl::MakeSpan(variance_).subspan(3, 3), Each(1.0));
}

TEST_F(DeadRowsTest, ForgottenFlagsWakeNothing) {
  rows_.Find(variance_);
  rows_.SetWoken({1, 1, 1, 1, 1, 1});
  rows_.Forget();

  EXPECT_THAT(rows_.Join(absl::MakeSpan(momentum_), absl::MakeSpan(variance_)),
              IsEmpty());
  EXPECT_EQ(rows_.excluded().size(), 6);
}

// The optimizers that compress, with an embedding of which three rows in four
// never have a gradient: rows 4i to 4i + 2 of 40.
class DeadRowsOfOptimizersTest : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr uint64_t kSeed = 12;
  static constexpr int64_t kRows = 40;
  static constexpr int64_t kColumns = 7;
  static constexpr int64_t kWarmUp = 20;
  static constexpr int kRanks = 3;
  static constexpr double kRate = 1e-3;

  DeadRowsOfOptimizersTest()
      : layout_(LayoutOfShapes({{kRows, kColumns}, {33}, {2, 9}})),
        problem_(layout_, kSeed) {
    RecordProperty("seed", static_cast<int>(kSeed));
    options_.kind = GetParam();
    options_.weight_decay = 0.01;
    options_.compress_after_step = kWarmUp;
    options_.local_step_scaler = 100;
    options_.local_step_clipper = 4;
  }

  static bool IsDead(int64_t row) { return row % 4 != 3; }

  /// `waking_row` has a gradient on rank 1 alone.
  void Step(OneBitReplicas<float>* replicas, int64_t step,
            int64_t waking_row = -1) const {
    auto gradients =
        GradientsOf<float>(problem_, step, kRanks, false, replicas->weights());
    for (int rank = 0; rank < kRanks; ++rank) {
      for (int64_t row = 0; row < kRows; ++row) {
        if (!IsDead(row) || (row == waking_row && rank == 1)) continue;
        const auto begin =
            gradients[static_cast<size_t>(rank)].begin() + row * kColumns;
        std::fill(begin, begin + kColumns, 0.0f);
      }
    }
    replicas->Step(step, std::move(gradients), kRate, 0);
  }

  static std::vector<float> Row(const std::vector<float>& values, int64_t row) {
    return {values.begin() + row * kColumns,
            values.begin() + (row + 1) * kColumns};
  }

  const ParameterLayout layout_;
  const ToyProblem problem_;
  OptimizerOptions options_;
};

TEST_P(DeadRowsOfOptimizersTest, UnusedRowsStayAndOweNothing) {
  OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
  for (int64_t step = 0; step < kWarmUp; ++step) Step(&replicas, step);
  const std::vector<float> frozen = replicas.weights()[0];

  for (int64_t step = kWarmUp; step < kWarmUp + 1000; ++step) {
    Step(&replicas, step);
  }

  EXPECT_NE(replicas.weights()[0], frozen);
  const auto momentum = replicas.optimizer(0).ExportState().at("momentum");
  for (int64_t row = 0; row < kRows; ++row) {
    if (!IsDead(row)) {
      EXPECT_NE(Row(replicas.weights()[0], row), Row(frozen, row)) << row;
      continue;
    }
    for (int rank = 0; rank < kRanks; ++rank) {
      ASSERT_EQ(Row(replicas.weights()[static_cast<size_t>(rank)], row),
                Row(frozen, row))
          << row;
      ASSERT_THAT(Row(replicas.worker_residual(rank), row), Each(0.0f)) << row;
    }
    ASSERT_THAT(Row(replicas.server_residual(), row), Each(0.0f)) << row;
    ASSERT_THAT(Row(momentum, row), Each(0.0f)) << row;
  }
}

TEST_P(DeadRowsOfOptimizersTest, AWakingRowJoinsWithTheNextStep) {
  constexpr int64_t kWaking = 5;
  const int64_t waking_step = kWarmUp + 30;
  OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
  for (int64_t step = 0; step < waking_step; ++step) Step(&replicas, step);
  const std::vector<float> before = Row(replicas.weights()[0], kWaking);

  Step(&replicas, waking_step, kWaking);
  ASSERT_EQ(replicas.num_excluded(), 30);
  EXPECT_EQ(Row(replicas.weights()[0], kWaking), before);
  // What was brought is owed, not lost.
  EXPECT_THAT(Row(replicas.worker_residual(0), kWaking), Each(0.0f));
  EXPECT_THAT(Row(replicas.worker_residual(1), kWaking),
              testing::Not(testing::Contains(0.0f)));

  Step(&replicas, waking_step + 1);
  EXPECT_EQ(replicas.num_excluded(), 29);
  for (size_t i = 0; i < kColumns; ++i) {
    EXPECT_NE(Row(replicas.weights()[0], kWaking)[i], before[i]) << i;
  }
  EXPECT_TRUE(ReplicasAreEqual(replicas.weights()));
}

// In local steps of 0/1 Adam nothing travels: a row that has a gradient in one
// wakes at the next synchronisation point.
TEST_P(DeadRowsOfOptimizersTest, ARowThatWakesInALocalStepWaitsForTheNextSync) {
  if (GetParam() != "zero_one_adam") return;
  constexpr int64_t kWaking = 5;
  options_.local_step_scaler = 2;  // synchronises after steps 21, 22, 24, 28
  OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
  for (int64_t step = 0; step < kWarmUp + 4; ++step) Step(&replicas, step);
  const std::vector<float> before = Row(replicas.weights()[0], kWaking);

  Step(&replicas, kWarmUp + 4, kWaking);
  ASSERT_EQ(replicas.last_format(), SyncFormat::kNone);
  for (int64_t step = kWarmUp + 5; step < kWarmUp + 8; ++step) {
    Step(&replicas, step);
  }
  ASSERT_EQ(replicas.last_format(), SyncFormat::kCompressed);
  for (const auto& weights : replicas.weights()) {
    EXPECT_EQ(Row(weights, kWaking), before);
  }
  EXPECT_THAT(Row(replicas.worker_residual(1), kWaking),
              testing::Not(testing::Contains(0.0f)));

  Step(&replicas, kWarmUp + 8);
  EXPECT_NE(Row(replicas.weights()[0], kWaking), before);
}

TEST_P(DeadRowsOfOptimizersTest, ASkippedStepWakesNothing) {
  auto optimizer = MakeFlatOptimizer<float>(options_, layout_);
  std::vector<float> weights(problem_.start().begin(), problem_.start().end());
  std::vector<float> gradient(weights.size());
  for (int64_t step = 0; step < kWarmUp + 2; ++step) {
    gradient = problem_.Gradient(0, step, weights);
    std::fill_n(gradient.begin(), 5 * kColumns, 0.0f);
    optimizer->Prepare(step, kRate, weights, absl::MakeSpan(gradient));
    optimizer->Apply(step, kRate, 1.0, absl::MakeSpan(weights));
  }
  const auto state = optimizer->ExportState();

  const auto request =
      optimizer->Prepare(kWarmUp + 2, kRate, weights, absl::MakeSpan(gradient));
  ASSERT_EQ(request.excluded.size(), 5);
  optimizer->Wake({1, 1, 1, 1, 1});
  optimizer->Skip();

  EXPECT_EQ(optimizer->ExportState(), state);
  EXPECT_EQ(
      optimizer->Prepare(kWarmUp + 3, kRate, weights, absl::MakeSpan(gradient))
          .excluded.size(),
      5);
}

TEST_P(DeadRowsOfOptimizersTest, ImportedStateKnowsTheDeadRows) {
  OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
  for (int64_t step = 0; step < kWarmUp + 2; ++step) Step(&replicas, step);
  auto resumed = MakeFlatOptimizer<float>(options_, layout_);
  ASSERT_TRUE(resumed->ImportState(replicas.optimizer(0).ExportState()).ok());
  std::vector<float> gradient(replicas.weights()[0].size());

  const auto request = resumed->Prepare(
      kWarmUp + 2, kRate, replicas.weights()[0], absl::MakeSpan(gradient));

  ASSERT_EQ(request.excluded.size(), 30);
  EXPECT_EQ(request.excluded[3], (ElementRange{4 * kColumns, 5 * kColumns}));
}

INSTANTIATE_TEST_SUITE_P(Kinds, DeadRowsOfOptimizersTest,
                         ::testing::Values("onebit_adam", "onebit_lamb",
                                           "zero_one_adam"),
                         [](const auto& info) { return info.param; });

// In full precision, with weight decay: of all kinds, and in the warm-up of
// those that compress.
class UnusedRowsTest : public DeadRowsOfOptimizersTest {};

TEST_P(UnusedRowsTest, StayUntouchedInFullPrecision) {
  options_.momentum_shift = GetParam() == "sgd" ? 1 : 0;
  OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
  const std::vector<float> start = replicas.weights()[0];
  auto alone = MakeFlatOptimizer<float>(options_, layout_);
  std::vector<float> never = start;
  std::vector<float> zero(start.size());

  for (int64_t step = 0; step < kWarmUp; ++step) {
    Step(&replicas, step);
    std::fill(zero.begin(), zero.end(), 0.0f);
    alone->Prepare(step, kRate, never, absl::MakeSpan(zero));
    alone->Apply(step, kRate, 1.0, absl::MakeSpan(never));
  }

  EXPECT_EQ(replicas.last_format(), SyncFormat::kPlain);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto weights = Row(replicas.weights()[0], row);
    if (IsDead(row)) {
      EXPECT_EQ(weights, Row(start, row)) << row;
    } else {
      EXPECT_NE(weights, Row(start, row)) << row;
    }
  }
  EXPECT_EQ(never, start);
}

// Decay acts from the first gradient on, also where later ones are zero.
TEST_P(UnusedRowsTest, DecayFromTheirFirstGradientOn) {
  constexpr int64_t kWaking = 5;
  OneBitReplicas<float> decaying(options_, layout_, kRanks, problem_.start());
  options_.weight_decay = 0;
  OneBitReplicas<float> plain(options_, layout_, kRanks, problem_.start());

  for (int64_t step = 0; step < 4; ++step) {
    Step(&decaying, step, step == 1 ? kWaking : -1);
    Step(&plain, step, step == 1 ? kWaking : -1);
  }

  EXPECT_NE(Row(decaying.weights()[0], kWaking),
            Row(plain.weights()[0], kWaking));
  EXPECT_EQ(Row(decaying.weights()[0], kWaking + 1),
            Row(plain.weights()[0], kWaking + 1));
}

INSTANTIATE_TEST_SUITE_P(Kinds, UnusedRowsTest,
                         ::testing::Values("sgd", "adam", "adamw", "lamb",
                                           "onebit_adam", "onebit_lamb",
                                           "zero_one_adam"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace deltapipe
