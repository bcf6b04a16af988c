#include "coordinator/tuning/tuner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "coordinator/schedule/build_plan.h"
#include "coordinator/schedule/testing_specs.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/codec_bits.h"
#include "coordinator/tuning/setting_search.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kTrueRange = 1.6;

/// A simulated job: its steps take what the pipeline simulator says, its links
/// measure their rate with noise.
class TunerTest : public ::testing::Test {
 protected:
  TunerTest() : seed_(std::random_device()()), random_(seed_) {
    RecordProperty("seed", static_cast<int>(seed_));
    PlanInputs inputs;
    inputs.spec = TestingGpt2XlSpec();
    spec_ = inputs.spec;
    plan_ = BuildPlan(inputs)->plan;
    tuning_ = InitialTuning("gpt2xl-1", spec_, plan_);
    tuning_.mutable_tuner()->set_mode(v1::Tuner::APPLY);
    rates_.assign(14, 1e9);
    compute_seconds_ = 32 * 0.18;
  }

  SettingSearch World() {
    SettingFacts facts;
    facts.bits_per_second = rates_;
    facts.compute_seconds = compute_seconds_;
    BudgetProblem problem = BudgetProblemOf(tuning_, plan_);
    for (BudgetDirection& direction : problem.directions) {
      direction.range = kTrueRange;
    }
    return *SettingSearch::Create(spec_, plan_, problem, facts);
  }
  double StepSeconds() { return *World().PresentStepSeconds(); }

  /// Over all pairs of bits forwards and backwards within the error budget.
  double BestFixedSeconds() {
    const SettingSearch world = World();
    double best = 1e300;
    for (int forward = 0; forward < 9; ++forward) {
      for (int backward = 0; backward < 9; ++backward) {
        BitSetting setting;
        for (size_t d = 0; d < rates_.size(); ++d) {
          setting.push_back(d % 2 == 0 ? forward : backward);
        }
        const double error =
            std::max(world.ErrorOf(0, forward), world.ErrorOf(1, backward));
        if (error > tuning_.tuner().error_budget() * 1.0001) continue;
        best = std::min(best, *world.StepSeconds(setting, 1));
      }
    }
    return best;
  }

  double Noise(double share) {
    return std::uniform_real_distribution<double>(1 - share,
                                                  1 + share)(random_);
  }

  /// One step; a change comes into force two steps later.
  std::optional<TunerProposal> Step() {
    if (pending_.has_value() && --pending_steps_ == 0) {
      tuning_ = *pending_;
      pending_.reset();
    }
    TunerObservation observation;
    observation.step = step_++;
    observation.compute_seconds = compute_seconds_ * Noise(0.02);
    const BudgetProblem problem = BudgetProblemOf(tuning_, plan_);
    for (size_t d = 0; d < problem.directions.size(); ++d) {
      const BudgetDirection& direction = problem.directions[d];
      LinkSample link;
      link.boundary = direction.boundary;
      link.is_gradient = direction.is_gradient;
      link.codec = direction.codec;
      link.steps = 1;
      link.wire_bytes_per_step =
          *PredictStepBytes(problem, direction, direction.codec);
      link.bits_per_second = rates_[d] * Noise(noise_);
      const CodecBits bits =
          *ReadCodecBits(direction.codec, direction.is_gradient);
      link.relative_error = kTrueRange * std::exp2(-bits.bits);
      observation.links.push_back(link);
    }
    const auto proposal =
        ProposeTuning(tuning_, spec_, plan_, observation, &state_);
    EXPECT_TRUE(proposal.ok()) << proposal.status();
    if (proposal->has_value() && !pending_.has_value() &&
        tuning_.tuner().mode() == v1::Tuner::APPLY) {
      pending_ = (*proposal)->tuning;
      pending_steps_ = 2;
    }
    return *proposal;
  }
  int ProposalsIn(int steps) {
    int count = 0;
    for (int i = 0; i < steps; ++i) count += Step().has_value() ? 1 : 0;
    return count;
  }

  const unsigned seed_;
  std::mt19937 random_;
  v1::JobSpec spec_;
  v1::Plan plan_;
  v1::Tuning tuning_;
  TunerState state_;
  std::vector<double> rates_;
  double compute_seconds_ = 0;
  double noise_ = 0.03;
  int64_t step_ = 0;
  std::optional<v1::Tuning> pending_;
  int pending_steps_ = 0;
};

TEST_F(TunerTest, FallenLinkIsMadeUpForWithinTenSteps) {
  ProposalsIn(40);  // settles at 1 Gbit/s
  rates_.assign(rates_.size(), 100e6);
  const double fallen = StepSeconds();

  ProposalsIn(10);

  EXPECT_GE(BestFixedSeconds() / StepSeconds(), 0.9)
      << "seed " << seed_ << ": " << StepSeconds() << " s, best "
      << BestFixedSeconds() << " s, without a change " << fallen << " s";
  EXPECT_LT(StepSeconds(), fallen / 1.3);
}

TEST_F(TunerTest, OneFallenLinkPaysForItself) {
  ProposalsIn(40);
  const v1::Tuning before = tuning_;
  rates_[6] = 60e6;  // activations of boundary 3

  ProposalsIn(10);

  EXPECT_GE(BestFixedSeconds() / StepSeconds(), 0.9) << "seed " << seed_;
  EXPECT_GE(ReadCodecBits(tuning_.boundaries(0).activations(), false)->bits, 8);
  EXPECT_LT(ReadCodecBits(tuning_.boundaries(3).activations(), false)->bits,
            ReadCodecBits(before.boundaries(3).activations(), false)->bits);
}

TEST_F(TunerTest, FreeLinksGetMoreBits) {
  rates_.assign(rates_.size(), 1e9);
  const int before =
      ReadCodecBits(tuning_.boundaries(0).activations(), false)->bits;

  ProposalsIn(20);

  EXPECT_GT(ReadCodecBits(tuning_.boundaries(0).activations(), false)->bits,
            before);
  EXPECT_GE(BestFixedSeconds() / StepSeconds(), 0.95);
}

TEST_F(TunerTest, RecoveredLinkGetsItsBitsBack) {
  ProposalsIn(40);
  const v1::Tuning before = tuning_;
  rates_.assign(rates_.size(), 100e6);
  ProposalsIn(20);
  EXPECT_NE(DescribeChange(before, tuning_).new_value, "");
  rates_.assign(rates_.size(), 1e9);

  ProposalsIn(20);

  EXPECT_EQ(DescribeChange(before, tuning_).new_value, "");
}

class SteadyLinksTest : public TunerTest,
                        public ::testing::WithParamInterface<double> {};

TEST_P(SteadyLinksTest, DoNotMakeItFlap) {
  noise_ = 0.05;
  rates_.assign(rates_.size(), GetParam());
  ProposalsIn(30);

  EXPECT_LE(ProposalsIn(200), 2) << "seed " << seed_;
}

INSTANTIATE_TEST_SUITE_P(BitsPerSecond, SteadyLinksTest,
                         ::testing::Values(40e6, 100e6, 250e6, 600e6, 1e9));

TEST_F(TunerTest, ErrorBudgetBoundsTheBits) {
  rates_.assign(rates_.size(), 5e6);
  tuning_.mutable_tuner()->set_error_budget(0.11);

  ProposalsIn(20);

  for (const v1::BoundaryTuning& boundary : tuning_.boundaries()) {
    EXPECT_EQ(ReadCodecBits(boundary.activations(), false)->bits, 4);
    EXPECT_EQ(ReadCodecBits(boundary.activation_gradients(), true)->bits, 4);
    EXPECT_THAT(boundary.activations(), HasSubstr("first=int(8)"));
  }
}

TEST_F(TunerTest, ProposesOnceAndSaysWhy) {
  tuning_.mutable_tuner()->set_mode(v1::Tuner::PROPOSE);
  noise_ = 0;
  rates_.assign(rates_.size(), 20e6);

  std::optional<TunerProposal> proposal;
  int count = 0;
  for (int i = 0; i < 50; ++i) {
    const auto next = Step();
    if (!next.has_value()) continue;
    proposal = next;
    ++count;
  }

  EXPECT_EQ(count, 1);
  ASSERT_TRUE(proposal.has_value());
  EXPECT_EQ(proposal->tuning.revision(), tuning_.revision() + 1);
  EXPECT_LT(proposal->step_seconds_then, proposal->step_seconds_now);
  EXPECT_THAT(proposal->reason,
              AllOf(HasSubstr("runs at 20 Mbit/s"), HasSubstr("int(3)"),
                    HasSubstr("budget 0.2)")));
}

TEST_F(TunerTest, OffOrUnderABudgetItIsSilent) {
  rates_.assign(rates_.size(), 20e6);
  tuning_.mutable_tuner()->set_mode(v1::Tuner::OFF);
  EXPECT_EQ(ProposalsIn(10), 0);

  tuning_.mutable_tuner()->set_mode(v1::Tuner::APPLY);
  tuning_.set_budget_bytes_per_step(1000000);
  EXPECT_EQ(ProposalsIn(10), 0);
}

}  // namespace
}  // namespace deltapipe
