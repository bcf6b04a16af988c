// Tied weights of two stages that are not neighbours, on loopback ranks.
#include "worker/engine/tied_part.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

constexpr int kOwners = 2;
constexpr int kReplicas = 2;
constexpr int kRanks = kOwners * kReplicas;
constexpr size_t kOwn = 3;  // elements before the tied ones
constexpr size_t kTied = 5;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

TiedPartOptions Options(int owner, const std::string& kind) {
  TiedPartOptions options;
  ParameterLayout& layout = options.layout;
  const auto add = [&layout](const char* name, int64_t size) {
    ParameterSegment segment;
    segment.name = name;
    segment.shape = {size};
    segment.offset = layout.num_elements;
    segment.num_elements = size;
    layout.num_elements += size;
    layout.segments.push_back(segment);
  };
  add("z.own", kOwn);
  add("a.tied", 2);
  add("b.tied", kTied - 2);
  layout.num_tied = kTied;
  layout.tied_stages = {1, 4};
  options.stage = layout.tied_stages[static_cast<size_t>(owner)];
  options.num_replicas = kReplicas;
  options.optimizer.kind = kind;
  options.optimizer.momentum = 0;
  options.optimizer.compress_after_step = 2;
  return options;
}

class TiedPartTest : public ::testing::Test {
 protected:
  void MakeParts(const std::string& kind) {
    for (int rank = 0; rank < kRanks; ++rank) {
      auto part =
          TiedPart::Create(Options(rank / kReplicas, kind), ranks_.group(rank));
      ASSERT_TRUE(part.ok()) << part.status();
      parts_.push_back(*std::move(part));
    }
    weights_.assign(kRanks, std::vector<float>(kOwn + kTied, 1.0f));
    gradients_ = weights_;
  }

  /// Rank r's gradient is r + 1 in the tied part, and 100 in its own.
  void FillGradients() {
    for (size_t rank = 0; rank < kRanks; ++rank) {
      gradients_[rank].assign(kOwn + kTied, static_cast<float>(rank + 1));
      std::fill_n(gradients_[rank].begin(), kOwn, 100.0f);
    }
  }

  /// All ranks do the same, each on its own thread.
  template <typename Body>
  void OnEachRank(Body body) {
    ranks_.Run([&](int rank) {
      const absl::Status status = body(static_cast<size_t>(rank));
      EXPECT_TRUE(status.ok()) << "rank " << rank << ": " << status;
    });
  }

  absl::Status Average(size_t rank, int64_t step) {
    const auto format = parts_[rank]->Begin(step, 1.0, weights_[rank],
                                            absl::MakeSpan(gradients_[rank]));
    if (!format.ok()) return format.status();
    return parts_[rank]->Wait(Soon());
  }
  absl::Status Apply(size_t rank, int64_t step) {
    return parts_[rank]->Apply(step, 1.0, 1.0, absl::MakeSpan(weights_[rank]));
  }

  LoopbackRanks ranks_ = LoopbackRanks::Create(kRanks).value();
  std::vector<std::unique_ptr<TiedPart>> parts_;
  std::vector<std::vector<float>> weights_;  // of the stages, by rank
  std::vector<std::vector<float>> gradients_;
};

TEST_F(TiedPartTest, TheUpdateIsTheSumOverStagesAndTheMeanOverReplicas) {
  MakeParts("sgd");
  FillGradients();

  OnEachRank([&](size_t rank) {
    const absl::Status averaged = Average(rank, 0);
    return averaged.ok() ? Apply(rank, 0) : averaged;
  });

  // Replica 0 has 1 + 3, replica 1 has 2 + 4: 5 in the mean.
  for (const std::vector<float>& weights : weights_) {
    EXPECT_THAT(weights, ElementsAre(1, 1, 1, -4, -4, -4, -4, -4));
  }
}

TEST_F(TiedPartTest, TheFirstStageAloneCounts) {
  MakeParts("onebit_adam");
  FillGradients();
  std::vector<double> norms(kRanks);
  std::vector<double> variances(kRanks);

  OnEachRank([&](size_t rank) {
    const absl::Status averaged = Average(rank, 0);
    norms[rank] = parts_[rank]->CountedSquaredNorm();
    const absl::Status applied = averaged.ok() ? Apply(rank, 0) : averaged;
    variances[rank] = parts_[rank]->CountedEvidence().variance_sum;
    return applied;
  });

  EXPECT_THAT(norms, ElementsAre(5 * 25, 5 * 25, 0, 0));
  EXPECT_GT(variances[0], 0);
  EXPECT_THAT(variances, ElementsAre(variances[0], variances[0], 0, 0));
}

TEST_F(TiedPartTest, ASkippedStepLeavesWeightsAndResidualsAsTheyWere) {
  MakeParts("onebit_adam");
  const auto step = [&](int64_t index) {
    FillGradients();
    for (size_t rank = 0; rank < kRanks; ++rank) {
      for (size_t i = 0; i < kTied; ++i) {
        gradients_[rank][kOwn + i] *= static_cast<float>(i + 1);
      }
    }
    OnEachRank([&](size_t rank) {
      const absl::Status averaged = Average(rank, index);
      return averaged.ok() ? Apply(rank, index) : averaged;
    });
  };
  for (int64_t index = 0; index < 5; ++index) step(index);
  const auto weights = weights_;
  std::vector<SyncResiduals> residuals;
  for (const auto& part : parts_) residuals.push_back(*part->TakeResiduals());
  ASSERT_EQ(residuals[2].worker.size(), kTied);
  EXPECT_THAT(residuals[2].worker, Not(Each(0.0f)));

  FillGradients();
  gradients_[2][kOwn + 1] = std::numeric_limits<float>::infinity();
  OnEachRank([&](size_t rank) {
    const absl::Status averaged = Average(rank, 5);
    return averaged.ok() ? parts_[rank]->Skip() : averaged;
  });

  EXPECT_EQ(weights_, weights);
  for (size_t rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(parts_[rank]->TakeResiduals()->worker, residuals[rank].worker);
    EXPECT_EQ(parts_[rank]->TakeResiduals()->server, residuals[rank].server);
  }
  step(6);
  EXPECT_NE(weights_[0], weights[0]);
  for (const auto& of_rank : weights_) EXPECT_EQ(of_rank, weights_[0]);
}

TEST_F(TiedPartTest, WhoHoldsOtherWeightsIsNamed) {
  MakeParts("adamw");
  weights_[3][kOwn + 4] += 1e-6f;
  weights_[1][0] += 1;  // its own affair
  std::vector<absl::Status> verdicts(kRanks);

  ranks_.Run([&](int rank) {
    const size_t r = static_cast<size_t>(rank);
    verdicts[r] =
        parts_[r]->CheckEqual(7, 1, "after step 8", weights_[r], Soon());
  });

  for (const absl::Status& verdict : verdicts) {
    EXPECT_EQ(verdict.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(verdict.message()),
                HasSubstr("\"b.tied\" of stage 1, replica 0 and of stage 4, "
                          "replica 1 differ after step 8"));
  }
}

TEST_F(TiedPartTest, StateComesBackFromAmongTheStagesOwn) {
  MakeParts("adamw");
  FillGradients();
  OnEachRank([&](size_t rank) {
    const absl::Status averaged = Average(rank, 0);
    return averaged.ok() ? Apply(rank, 0) : averaged;
  });
  OptimizerState state = {{"momentum", {1, 2, 3}}};
  parts_[0]->AddState(&state);
  ASSERT_EQ(state.at("tied.momentum").size(), kTied);

  auto other = TiedPart::Create(Options(0, "adamw"), ranks_.group(0)).value();
  const absl::Status taken = other->TakeState(&state);

  EXPECT_TRUE(taken.ok()) << taken;
  EXPECT_THAT(state, ElementsAre(Pair("momentum", ElementsAre(1, 2, 3))));
  OptimizerState before;
  OptimizerState after;
  parts_[0]->AddState(&before);
  other->AddState(&after);
  EXPECT_EQ(after, before);
}

TEST_F(TiedPartTest, AStageThatIsNoOwnerIsRefused) {
  TiedPartOptions options = Options(0, "adamw");
  options.stage = 2;

  const auto stranger = TiedPart::Create(options, ranks_.group(0));
  const auto other = TiedPart::Create(Options(1, "adamw"), ranks_.group(0));

  EXPECT_EQ(stranger.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(stranger.status().message()),
              HasSubstr("tied weights of stages 1, 4: stage 2 as rank 0 of 4"));
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
