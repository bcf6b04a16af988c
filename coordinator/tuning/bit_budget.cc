#include "coordinator/tuning/bit_budget.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/mixed_sizes.h"
#include "base/status_macros.h"
#include "compression/delta/boundary_codec.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/tuning/codec_bits.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

/// A direction that sends more of its samples in full is in its first epoch.
constexpr double kMostlyValues = 0.5;
/// More beside a body is none of a message: frames that were sent again.
constexpr double kMostFrameBytes = 1000;
/// Ranges outside are errors of measurement.
constexpr double kLeastRange = 1.0 / 64;
constexpr double kMostRange = 64;

bool IsSameCodec(const BudgetDirection& direction, const std::string& codec) {
  const auto mine =
      CanonicalBoundaryCodec(direction.codec, direction.is_gradient);
  const auto other = CanonicalBoundaryCodec(codec, direction.is_gradient);
  return mine.ok() && other.ok() && *mine == *other;
}

BudgetDirection* Find(const LinkSample& sample, BudgetProblem* problem) {
  for (BudgetDirection& direction : problem->directions) {
    if (direction.boundary == sample.boundary &&
        direction.is_gradient == sample.is_gradient) {
      return &direction;
    }
  }
  return nullptr;
}

/// The share of first visits that explains `measured` bytes.
double ValueShare(const BudgetProblem& problem,
                  const BudgetDirection& direction, double measured) {
  const auto body =
      PredictBoundaryBytes(direction.codec, problem.microbatch_samples,
                           direction.elements_per_sample);
  if (!body.ok()) return 0;
  const double difference = body->first_visit - body->later_visit;
  if (std::fabs(difference) < 1) return 0;
  const double messages =
      static_cast<double>(problem.num_microbatches) * problem.num_replicas;
  const double share =
      (measured / messages - direction.frame_bytes - body->later_visit) /
      difference;
  return std::clamp(share, 0.0, 1.0);
}

/// What a message has beside its body, by `measured` bytes, where its share of
/// first visits does not explain them.
double FrameBytes(const BudgetProblem& problem,
                  const BudgetDirection& direction, double measured) {
  const auto predicted = PredictStepBytes(problem, direction, direction.codec);
  if (!predicted.ok()) return direction.frame_bytes;
  const double messages =
      static_cast<double>(problem.num_microbatches) * problem.num_replicas;
  return std::clamp(direction.frame_bytes + (measured - *predicted) / messages,
                    0.0, kMostFrameBytes);
}

std::string* CodecOf(const BudgetDirection& direction, v1::Tuning* tuning) {
  v1::BoundaryTuning* boundary = tuning->mutable_boundaries(direction.boundary);
  return direction.is_gradient ? boundary->mutable_activation_gradients()
                               : boundary->mutable_activations();
}

}  // namespace

bool BitAllocation::IsWithin(double budget) const {
  return std::fabs(bytes_per_step - budget) <= kBudgetTolerance * budget;
}

BudgetProblem BudgetProblemOf(const v1::Tuning& tuning, const v1::Plan& plan) {
  BudgetProblem problem;
  problem.microbatch_samples = std::max(1, plan.microbatch_samples());
  problem.num_microbatches = std::max(1, plan.num_microbatches());
  problem.num_replicas = std::max(1, plan.num_replicas());
  const double samples = static_cast<double>(problem.microbatch_samples) *
                         problem.num_microbatches;
  for (int b = 0; b < plan.links_size() && b < tuning.boundaries_size(); ++b) {
    const v1::LinkPlan& link = plan.links(b);
    const v1::BoundaryTuning& boundary = tuning.boundaries(b);
    for (const bool is_gradient : {false, true}) {
      BudgetDirection direction;
      direction.boundary = b;
      direction.is_gradient = is_gradient;
      direction.codec = is_gradient ? boundary.activation_gradients()
                                    : boundary.activations();
      const double raw =
          is_gradient ? link.gradient_raw_bytes() : link.activation_raw_bytes();
      direction.elements_per_sample =
          std::max<int64_t>(1, std::llround(raw / 4 / samples));
      problem.directions.push_back(direction);
    }
  }
  return problem;
}

void Calibrate(const std::vector<LinkSample>& samples, BudgetProblem* problem) {
  for (const LinkSample& sample : samples) {
    BudgetDirection* direction = Find(sample, problem);
    if (direction == nullptr || !IsSameCodec(*direction, sample.codec)) {
      continue;
    }
    const double share =
        ValueShare(*problem, *direction, sample.wire_bytes_per_step);
    direction->value_share = share;
    direction->frame_bytes =
        FrameBytes(*problem, *direction, sample.wire_bytes_per_step);
    if (share > kMostlyValues) direction->value_share = 0;
    const auto bits = ReadCodecBits(direction->codec, direction->is_gradient);
    if (bits.ok() && bits->bits <= 8 && !bits->is_nominal &&
        sample.relative_error > 0) {
      direction->range =
          std::clamp(sample.relative_error * std::exp2(bits->bits), kLeastRange,
                     kMostRange);
    }
  }
  // Those without a measurement are taken as the mean of the others.
  double sum = 0;
  int count = 0;
  for (const BudgetDirection& direction : problem->directions) {
    if (direction.range == 1) continue;
    sum += std::log(direction.range);
    ++count;
  }
  for (BudgetDirection& direction : problem->directions) {
    if (direction.range == 1 && count > 0) {
      direction.range = std::exp(sum / count);
    }
  }
}

absl::StatusOr<double> PredictStepBytes(const BudgetProblem& problem,
                                        const BudgetDirection& direction,
                                        const std::string& codec) {
  DP_ASSIGN_OR_RETURN(const BoundaryBytes body,
                      PredictBoundaryBytes(codec, problem.microbatch_samples,
                                           direction.elements_per_sample));
  const double bytes = direction.value_share * body.first_visit +
                       (1 - direction.value_share) * body.later_visit;
  return (bytes + direction.frame_bytes) * problem.num_microbatches *
         problem.num_replicas;
}

absl::StatusOr<v1::Tuning> ApplyBudget(const v1::Tuning& current,
                                       int64_t budget_bytes_per_step,
                                       const v1::Plan& plan,
                                       const std::vector<LinkSample>& samples) {
  if (budget_bytes_per_step < 0) {
    return FieldViolationsError(
        {{"budget_bytes_per_step",
          absl::StrCat("expected 0 (no budget) or more, got ",
                       budget_bytes_per_step)}},
        "INVALID_TUNING");
  }
  v1::Tuning next = current;
  next.set_budget_bytes_per_step(budget_bytes_per_step);
  if (budget_bytes_per_step > 0) {
    BudgetProblem problem = BudgetProblemOf(current, plan);
    Calibrate(samples, &problem);
    auto allocation = AllocateBits(problem, budget_bytes_per_step);
    if (absl::IsInvalidArgument(allocation.status())) {
      // First visits alone may exceed it now; later ones need not.
      for (BudgetDirection& direction : problem.directions) {
        direction.value_share = 0;
      }
      allocation = AllocateBits(problem, budget_bytes_per_step);
    }
    DP_RETURN_IF_ERROR(allocation.status());
    for (size_t d = 0; d < problem.directions.size(); ++d) {
      *CodecOf(problem.directions[d], &next) = allocation->codecs[d];
    }
  }
  if (DescribeChange(current, next).new_value.empty()) return current;
  MakeNextRevision(current, &next);
  return next;
}

absl::StatusOr<v1::Tuning> KeepBudget(const v1::Tuning& current,
                                      const v1::JobSpec& spec,
                                      const v1::Plan& plan,
                                      const std::vector<LinkSample>& samples) {
  const double budget = static_cast<double>(current.budget_bytes_per_step());
  if (budget <= 0) return current;
  BudgetProblem problem = BudgetProblemOf(current, plan);
  if (!MixedSizes(spec.data().sizes()).empty()) {
    double predicted = 0;
    for (const BudgetDirection& direction : problem.directions) {
      DP_ASSIGN_OR_RETURN(
          const double bytes,
          PredictStepBytes(problem, direction, direction.codec));
      predicted += bytes;
    }
    if (std::fabs(predicted - budget) <= kBudgetTolerance * budget) {
      return current;
    }
    return ApplyBudget(current, current.budget_bytes_per_step(), plan, {});
  }
  double measured = 0;
  size_t num_measured = 0;
  for (const LinkSample& sample : samples) {
    const BudgetDirection* direction = Find(sample, &problem);
    if (direction == nullptr || !IsSameCodec(*direction, sample.codec)) {
      continue;
    }
    measured += sample.wire_bytes_per_step;
    ++num_measured;
  }
  if (num_measured < problem.directions.size() ||
      std::fabs(measured - budget) <= kBudgetTolerance * budget) {
    return current;
  }
  return ApplyBudget(current, current.budget_bytes_per_step(), plan, samples);
}

}  // namespace deltapipe
