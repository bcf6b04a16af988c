#include "coordinator/tuning/bit_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "coordinator/errors/error_details.h"
#include "coordinator/tuning/codec_bits.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

BudgetProblem Problem(int num_boundaries, int64_t elements,
                      const std::string& activations,
                      const std::string& gradients) {
  BudgetProblem problem;
  problem.microbatch_samples = 2;
  problem.num_microbatches = 8;
  problem.num_replicas = 2;
  for (int b = 0; b < num_boundaries; ++b) {
    problem.directions.push_back({b, false, activations, elements});
    problem.directions.push_back({b, true, gradients, elements});
  }
  return problem;
}

/// What `bits` per value would send, without any overhead.
int64_t BytesOf(const BudgetProblem& problem, double bits) {
  double values = 0;
  for (const BudgetDirection& direction : problem.directions) {
    values += static_cast<double>(direction.elements_per_sample);
  }
  return static_cast<int64_t>(values * problem.microbatch_samples *
                              problem.num_microbatches * problem.num_replicas *
                              bits / 8);
}

std::vector<int> BitsOf(const BudgetProblem& problem,
                        const BitAllocation& allocation) {
  std::vector<int> bits;
  for (size_t d = 0; d < allocation.codecs.size(); ++d) {
    bits.push_back(
        ReadCodecBits(allocation.codecs[d], problem.directions[d].is_gradient)
            ->bits);
  }
  return bits;
}

TEST(BitBudgetTest, EqualDirectionsGetEqualBits) {
  const BudgetProblem problem = Problem(7, 100000, "int(8)", "int(8)");

  const auto allocation = AllocateBits(problem, BytesOf(problem, 4.14));

  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_THAT(BitsOf(problem, *allocation), Each(4));
}

TEST(BitBudgetTest, EightTimesTheRangeIsTwoBitsMore) {
  BudgetProblem problem = Problem(2, 100000, "int(8)", "int(8)");
  problem.directions[2].range = 8;

  const auto allocation = AllocateBits(problem, BytesOf(problem, 4.65));

  ASSERT_TRUE(allocation.ok()) << allocation.status();
  const std::vector<int> bits = BitsOf(problem, *allocation);
  EXPECT_EQ(bits[2] - bits[0], 2) << allocation->codecs[2];
}

TEST(BitBudgetTest, WrappersAndFirstStay) {
  const BudgetProblem problem =
      Problem(3, 65536, "delta(int(4),first=int(8),store=fp32)", "int(8)");

  const auto allocation = AllocateBits(problem, BytesOf(problem, 2.2));

  ASSERT_TRUE(allocation.ok()) << allocation.status();
  EXPECT_THAT(allocation->codecs[0],
              AllOf(HasSubstr("delta(int(2"), HasSubstr("first=int(8)"),
                    HasSubstr("store=fp32")));
  EXPECT_THAT(allocation->codecs[1], HasSubstr("round=stochastic"));
}

TEST(BitBudgetTest, InfeasibleBudgetNamesTheLeast) {
  const BudgetProblem problem = Problem(2, 100000, "int(4)", "int(8)");

  const auto allocation = AllocateBits(problem, BytesOf(problem, 0.5));

  EXPECT_EQ(allocation.status().code(), absl::StatusCode::kInvalidArgument);
  const auto violations = FieldViolationsOf(allocation.status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "budget_bytes_per_step");
  EXPECT_THAT(violations[0].description, HasSubstr("expected at least 1"));
  EXPECT_EQ(ReasonOf(allocation.status())->reason, "BUDGET_TOO_SMALL");
}

TEST(BitBudgetTest, TheLeastThatIsNamedIsFeasible) {
  const BudgetProblem problem = Problem(2, 100000, "int(4)", "int(8)");
  const auto some = AllocateBits(problem, BytesOf(problem, 8));
  ASSERT_TRUE(some.ok());

  const auto least =
      AllocateBits(problem, static_cast<int64_t>(std::ceil(some->least_bytes)));

  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_THAT(BitsOf(problem, *least), Each(1));
}

TEST(BitBudgetTest, AmpleBudgetSendsEverythingAsItIs) {
  const BudgetProblem problem = Problem(1, 1000, "int(4)", "int(8)");

  const auto allocation = AllocateBits(problem, BytesOf(problem, 100));

  EXPECT_THAT(BitsOf(problem, *allocation), Each(32));
  EXPECT_EQ(allocation->bytes_per_step, allocation->most_bytes);
}

TEST(BitBudgetTest, NoBoundariesNoBudget) {
  EXPECT_EQ(AllocateBits(BudgetProblem(), 1000).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// 300 random shapes: within 3 % wherever the mean is 1.6 to 7 bits, or 2.2 with
// a single boundary.
TEST(BitBudgetTest, RandomShapesMeetTheirBudget) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const char* kActivations[] = {"int(4)",
                                "delta(int(4),first=int(8))",
                                "delta(int(2,block=32))",
                                "ef(int(3))",
                                "cast(bf16)",
                                "none"};
  const char* kGradients[] = {"int(8)", "int(8,round=stochastic)", "cast(fp16)",
                              "int(6,block=128)"};
  for (int i = 0; i < 300; ++i) {
    BudgetProblem problem;
    problem.microbatch_samples = pick(1, 8);
    problem.num_microbatches = pick(1, 32);
    problem.num_replicas = pick(1, 4);
    const int num_boundaries = pick(1, 9);
    const int64_t elements = 1 << pick(12, 20);
    for (int b = 0; b < num_boundaries; ++b) {
      for (const bool is_gradient : {false, true}) {
        BudgetDirection direction;
        direction.boundary = b;
        direction.is_gradient = is_gradient;
        direction.codec =
            is_gradient ? kGradients[pick(0, 3)] : kActivations[pick(0, 5)];
        direction.elements_per_sample = elements + pick(0, 4096);
        direction.range = std::exp2(pick(-20, 20) / 10.0);
        problem.directions.push_back(direction);
      }
    }
    const double bits = pick(num_boundaries == 1 ? 2200 : 1600, 7000) / 1000.0;
    const int64_t budget = BytesOf(problem, bits);

    const auto allocation = AllocateBits(problem, budget);

    ASSERT_TRUE(allocation.ok()) << allocation.status();
    EXPECT_TRUE(allocation->IsWithin(static_cast<double>(budget)))
        << num_boundaries << " boundaries, " << bits << " bits: got "
        << allocation->bytes_per_step / static_cast<double>(budget);
    if (HasFailure()) return;
  }
}

TEST(BitBudgetTest, ThousandStagesAreQuick) {
  BudgetProblem problem = Problem(1023, 1 << 16, "int(4)", "int(8)");
  for (size_t d = 0; d < problem.directions.size(); ++d) {
    problem.directions[d].range = 1 + static_cast<double>(d % 7);
  }
  const int64_t budget = BytesOf(problem, 4);

  const auto allocation = AllocateBits(problem, budget);

  ASSERT_TRUE(allocation.ok());
  EXPECT_TRUE(allocation->IsWithin(static_cast<double>(budget)));
}

/// A job of 4 stages, its links measured as a world would that the model does
/// not know: a share of values, and errors of its own.
class BudgetLoopTest : public ::testing::Test {
 protected:
  BudgetLoopTest() {
    plan_.set_num_stages(4);
    plan_.set_num_replicas(2);
    plan_.set_num_microbatches(8);
    plan_.set_microbatch_samples(2);
    plan_.set_activation_codec("delta(int(4),first=int(8))");
    plan_.set_activation_gradient_codec("int(8,round=stochastic)");
    plan_.set_gradient_codec("none");
    for (int b = 0; b < 3; ++b) {
      v1::LinkPlan* link = plan_.add_links();
      link->set_boundary(b);
      link->set_activation_raw_bytes(4.0 * 16 * 50000);
      link->set_gradient_raw_bytes(4.0 * 16 * 50000);
    }
    tuning_ = InitialTuning("text-1", v1::JobSpec(), plan_);
  }

  std::vector<LinkSample> Measure() {
    BudgetProblem world = BudgetProblemOf(tuning_, plan_);
    std::vector<LinkSample> samples;
    for (BudgetDirection& direction : world.directions) {
      direction.value_share = direction.is_gradient ? 0 : value_share_;
      LinkSample sample;
      sample.boundary = direction.boundary;
      sample.is_gradient = direction.is_gradient;
      sample.codec = direction.codec;
      sample.steps = 1;
      direction.frame_bytes = frame_bytes_;
      sample.wire_bytes_per_step =
          *PredictStepBytes(world, direction, direction.codec);
      const int bits =
          ReadCodecBits(direction.codec, direction.is_gradient)->bits;
      sample.relative_error = std::exp2(-bits) * (direction.boundary + 1.0) *
                              (direction.is_gradient ? 2 : 1);
      samples.push_back(sample);
    }
    return samples;
  }
  double Sent() {
    double total = 0;
    for (const LinkSample& sample : Measure()) {
      total += sample.wire_bytes_per_step;
    }
    return total;
  }

  v1::JobSpec spec_;
  v1::Plan plan_;
  v1::Tuning tuning_;
  double value_share_ = 0.3;
  double frame_bytes_ = 100;
};

TEST_F(BudgetLoopTest, MeetsTheBudgetWithinFiveSteps) {
  for (const double megabytes : {2.7, 3.3, 4.1, 5.0}) {
    const auto budget = static_cast<int64_t>(megabytes * 1e6);
    auto next = ApplyBudget(tuning_, budget, plan_, {});
    ASSERT_TRUE(next.ok()) << next.status();
    tuning_ = *next;
    for (int step = 0; step < 5; ++step) {
      next = KeepBudget(tuning_, spec_, plan_, Measure());
      ASSERT_TRUE(next.ok()) << next.status();
      tuning_ = *next;
    }
    EXPECT_NEAR(Sent() / static_cast<double>(budget), 1, kBudgetTolerance);
  }
}

TEST_F(BudgetLoopTest, FollowsWhatItMeasures) {
  tuning_ = *ApplyBudget(tuning_, 4000000, plan_, Measure());
  const uint32_t revision = tuning_.revision();
  EXPECT_EQ(KeepBudget(tuning_, spec_, plan_, Measure())->revision(), revision);

  value_share_ = 0;
  tuning_ = *KeepBudget(tuning_, spec_, plan_, Measure());

  EXPECT_GT(tuning_.revision(), revision);
  EXPECT_NEAR(Sent() / 4e6, 1, kBudgetTolerance);
}

// Small messages of which each is acknowledged by itself stayed above the
// budget for good: that a frame has 100 bytes was taken for granted.
TEST_F(BudgetLoopTest, WhatComesBesideSmallBodiesIsMeasured) {
  for (v1::LinkPlan& link : *plan_.mutable_links()) {
    link.set_activation_raw_bytes(4.0 * 16 * 1000);
    link.set_gradient_raw_bytes(4.0 * 16 * 1000);
  }
  for (v1::BoundaryTuning& boundary : *tuning_.mutable_boundaries()) {
    boundary.set_activations("int(8)");
  }
  value_share_ = 0;
  frame_bytes_ = 224;
  tuning_ = *ApplyBudget(tuning_, 90000, plan_, {});
  ASSERT_GT(Sent() / 90000, 1 + kBudgetTolerance);

  for (int step = 0; step < 5; ++step) {
    tuning_ = *KeepBudget(tuning_, spec_, plan_, Measure());
  }

  EXPECT_NEAR(Sent() / 90000, 1, kBudgetTolerance);
}

TEST_F(BudgetLoopTest, FirstEpochDoesNotStarveTheLaterOnes) {
  value_share_ = 1;

  const auto next = ApplyBudget(tuning_, 3000000, plan_, Measure());

  ASSERT_TRUE(next.ok()) << next.status();
  tuning_ = *next;
  value_share_ = 0;
  EXPECT_NEAR(Sent() / 3e6, 1, kBudgetTolerance);
}

// A step of small images sends a third: that is no reason for more bits.
TEST_F(BudgetLoopTest, OfMixedSizesTheMeanKeepsTheBudget) {
  for (v1::BoundaryTuning& boundary : *tuning_.mutable_boundaries()) {
    boundary.set_activations("int(8)");
    boundary.set_activation_gradients("int(8,round=stochastic)");
  }
  tuning_ = *ApplyBudget(tuning_, 4000000, plan_, {});
  std::vector<LinkSample> small = Measure();
  for (LinkSample& sample : small) sample.wire_bytes_per_step /= 3;
  const uint32_t of_one_size =
      KeepBudget(tuning_, spec_, plan_, small)->revision();
  spec_.mutable_data()->set_sizes("28:0.5,14:0.5");

  const auto kept = KeepBudget(tuning_, spec_, plan_, small);

  EXPECT_GT(of_one_size, tuning_.revision());
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->revision(), tuning_.revision());
  // Bits that somebody set miss it.
  tuning_.mutable_boundaries(0)->set_activations("int(8)");
  const auto again = KeepBudget(tuning_, spec_, plan_, small);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_GT(again->revision(), tuning_.revision());
  EXPECT_EQ(KeepBudget(*again, spec_, plan_, small)->revision(),
            again->revision());
}

TEST_F(BudgetLoopTest, EndOfABudgetLeavesTheBits) {
  tuning_ = *ApplyBudget(tuning_, 3000000, plan_, {});

  const auto next = ApplyBudget(tuning_, 0, plan_, {});

  EXPECT_EQ(DescribeChange(tuning_, *next).new_value,
            "budget_bytes_per_step=0");
  EXPECT_EQ(KeepBudget(*next, spec_, plan_, Measure())->revision(),
            next->revision());
}

TEST_F(BudgetLoopTest, RefusalsChangeNothing) {
  EXPECT_EQ(ApplyBudget(tuning_, -1, plan_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ApplyBudget(tuning_, 1000, plan_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
