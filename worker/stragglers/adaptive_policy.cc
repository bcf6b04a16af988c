#include "worker/stragglers/adaptive_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kIgnoredSteps = 5;
constexpr int kProbeEvery = 20;
constexpr size_t kRealisedSteps = 100;
constexpr double kDropTolerance = 0.02;
constexpr double kSpeedupTolerance = 0.9;
constexpr size_t kCutSteps = 50;
// The replica that is cut most, over the mean of the others: no jitter any
// more.
constexpr double kOutlier = 1.5;
// Whole steps kept for planning, in multiples of measured_steps.
constexpr int kWholeFactor = 3;
// Leaves room for windows that drop more than the average.
constexpr double kPlannedPartOfCap = 0.9;

}  // namespace

double AdaptivePolicy::Bucket::RealisedDrop() const {
  double planned = 0, executed = 0;
  for (const Realised& step : realised) {
    planned += step.planned;
    executed += step.executed;
  }
  return planned > 0 ? 1 - executed / planned
                     : std::numeric_limits<double>::quiet_NaN();
}

double AdaptivePolicy::Bucket::RealisedSpeedup() const {
  double seconds = 0;
  for (const Realised& step : realised) seconds += step.step_seconds;
  if (seconds <= 0) return std::numeric_limits<double>::quiet_NaN();
  return (1 - RealisedDrop()) * plan.uncut_step_seconds *
         static_cast<double>(realised.size()) / seconds;
}

AdaptivePolicy::AdaptivePolicy(std::string name, Remedies remedies,
                               const SyncPolicyOptions& options)
    : name_(std::move(name)),
      remedies_(remedies),
      options_(options),
      admission_(options) {
  slowness_.planner.max_drop_share = kPlannedPartOfCap * options.max_drop_share;
  slowness_.may_drop = remedies.may_drop;
  slowness_.may_rebalance = remedies.may_rebalance;
  if (options.max_microbatches > 0) {
    slowness_.max_microbatches = options.max_microbatches;
  }
}

void AdaptivePolicy::NoteChange(const StepStart& start) {
  if (start.plan_revision == plan_revision_ && start.planned == planned_) {
    return;
  }
  plan_revision_ = start.plan_revision;
  planned_ = start.planned;
  buckets_.clear();
  // Steps of before the change are in flight: they only count for the budget.
  for (Begun& begun : begun_) begun.num_decisions = -1;
  cuts_.clear();
  has_outlier_ = false;
  decided_advice_ = {};
  advice_ = {};
}

absl::Status AdaptivePolicy::BeginStep(const StepStart& start) {
  DP_RETURN_IF_ERROR(admission_.BeginStep(start));
  NoteChange(start);
  // Going back: what was begun will not be observed.
  while (!begun_.empty() && begun_.back().start.step >= start.step) {
    begun_.pop_back();
  }
  Bucket& bucket = buckets_[start.bucket];
  last_bucket_ = start.bucket;
  Use use = Use::kWhole;
  if (bucket.num_begun < kIgnoredSteps || admission_.is_replay()) {
    use = Use::kIgnored;
  } else if (bucket.state == StragglerState::kDropping &&
             bucket.num_begun % kProbeEvery != 0) {
    use = Use::kEnforced;
  }
  tau_seconds_ = use == Use::kEnforced ? bucket.plan.tau_seconds : kInfinity;
  ++bucket.num_begun;
  begun_.push_back({start, use, bucket.num_decisions});
  return absl::OkStatus();
}

bool AdaptivePolicy::Admit(int microbatch, double elapsed_seconds) {
  return admission_.Admit(microbatch, elapsed_seconds, tau_seconds_);
}

absl::Status AdaptivePolicy::EndStep(const StepObservation& observation) {
  while (!begun_.empty() && begun_.front().start.step < observation.step) {
    begun_.pop_front();
  }
  if (begun_.empty() || begun_.front().start.step != observation.step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "observations of step ", observation.step, ", which was not begun"));
  }
  const Begun begun = std::move(begun_.front());
  begun_.pop_front();
  if (observation.replicas.size() != begun.start.planned.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", observation.step, " has observations of ",
                     observation.replicas.size(), " replicas, expected ",
                     begun.start.planned.size()));
  }
  for (size_t r = 0; r < observation.replicas.size(); ++r) {
    if (observation.replicas[r].planned == begun.start.planned[r]) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("step ", observation.step, ": replica ", r, " planned ",
                     observation.replicas[r].planned,
                     " micro-batches, expected ", begun.start.planned[r]));
  }
  const int num_dropped =
      observation.num_planned() - observation.num_executed();
  admission_.Record(observation.step, num_dropped);
  num_dropped_ += num_dropped;
  const auto found = buckets_.find(begun.start.bucket);
  if (begun.num_decisions < 0 || found == buckets_.end()) {
    return absl::OkStatus();
  }
  Bucket& bucket = found->second;
  CountCuts(observation);
  Observe(observation, begun, &bucket);
  const bool has_enough = bucket.whole.size() >= options_.measured_steps;
  std::string why;
  switch (bucket.state) {
    case StragglerState::kMeasuring:
      if (has_enough) return Decide(&bucket);
      break;
    case StragglerState::kDropping:
      if (HasMispredicted(bucket, &why)) {
        ++num_mispredictions_;
        MeasureAnew(std::move(why), &bucket);
      } else if (bucket.num_since_decision >= options_.retune_steps) {
        return Decide(&bucket);
      } else if (has_outlier_ && remedies_.may_rebalance) {
        MeasureAnew(advice_.why, &bucket);
      }
      break;
    case StragglerState::kOff:
    case StragglerState::kRebalancing:
      if (has_enough &&
          bucket.num_whole_since_decision >= options_.measured_steps) {
        return Decide(&bucket);
      }
      break;
  }
  return absl::OkStatus();
}

void AdaptivePolicy::CountCuts(const StepObservation& observation) {
  std::vector<bool> cut;
  for (const ReplicaObservation& replica : observation.replicas) {
    cut.push_back(replica.is_cut());
  }
  cuts_.push_back(std::move(cut));
  if (cuts_.size() > kCutSteps) cuts_.pop_front();
  advice_ = decided_advice_;
  has_outlier_ = false;
  std::vector<int> num_cuts(observation.replicas.size(), 0);
  for (const std::vector<bool>& step : cuts_) {
    for (size_t r = 0; r < step.size(); ++r) num_cuts[r] += step[r] ? 1 : 0;
  }
  const auto most = std::max_element(num_cuts.begin(), num_cuts.end());
  if (advice_.is_advised || *most <= static_cast<int>(kCutSteps / 2)) return;
  const int rank = static_cast<int>(most - num_cuts.begin());
  const int others =
      std::accumulate(num_cuts.begin(), num_cuts.end(), 0) - *most;
  has_outlier_ =
      *most * static_cast<double>(num_cuts.size() - 1) > kOutlier * others;
  advice_.is_advised = true;
  advice_.rank = rank;
  advice_.why = absl::StrCat("replica ", rank, " was cut in ", *most,
                             " of the last ", cuts_.size(), " steps");
}

void AdaptivePolicy::Observe(const StepObservation& observation,
                             const Begun& begun, Bucket* bucket) {
  if (begun.use == Use::kIgnored) return;
  if (begun.use == Use::kWhole && observation.is_uncut()) {
    bucket->whole.push_back(observation);
    // While everything is whole there is no need for old steps.
    const int factor =
        bucket->state == StragglerState::kDropping ? kWholeFactor : 1;
    while (bucket->whole.size() > factor * options_.measured_steps) {
      bucket->whole.pop_front();
    }
    ++bucket->num_whole_since_decision;
  }
  if (begun.num_decisions != bucket->num_decisions) return;
  ++bucket->num_since_decision;
  if (begun.use == Use::kEnforced) {
    bucket->realised.push_back({static_cast<double>(observation.num_planned()),
                                static_cast<double>(observation.num_executed()),
                                observation.StepSeconds()});
    if (bucket->realised.size() > kRealisedSteps) bucket->realised.pop_front();
  }
}

bool AdaptivePolicy::HasMispredicted(const Bucket& bucket,
                                     std::string* why) const {
  if (bucket.realised.size() < kRealisedSteps) return false;
  const double drop = bucket.RealisedDrop();
  const double speedup = bucket.RealisedSpeedup();
  if (std::abs(drop - bucket.plan.drop_share) > kDropTolerance) {
    *why = absl::StrFormat("%.1f %% was dropped, %.1f %% predicted", 100 * drop,
                           100 * bucket.plan.drop_share);
    return true;
  }
  if (speedup < kSpeedupTolerance * bucket.plan.speedup) {
    *why = absl::StrFormat("the speed-up was %.3f, %.3f predicted", speedup,
                           bucket.plan.speedup);
    return true;
  }
  return false;
}

void AdaptivePolicy::MeasureAnew(std::string why, Bucket* bucket) {
  bucket->state = StragglerState::kMeasuring;
  bucket->why = std::move(why);
  bucket->plan = {};
  bucket->whole.clear();
  bucket->realised.clear();
  // Steps in flight are of the time before.
  ++bucket->num_decisions;
}

absl::Status AdaptivePolicy::Decide(Bucket* bucket) {
  const std::vector<StepObservation> whole(bucket->whole.begin(),
                                           bucket->whole.end());
  DP_ASSIGN_OR_RETURN(const SlownessVerdict verdict,
                      JitterOrPersistent(whole, slowness_));
  ++bucket->num_decisions;
  bucket->num_since_decision = 0;
  bucket->num_whole_since_decision = 0;
  bucket->realised.clear();
  bucket->why = verdict.why;
  bucket->plan = {};
  decided_advice_ = {};
  switch (verdict.remedy) {
    case Remedy::kNone:
      bucket->state = StragglerState::kOff;
      break;
    case Remedy::kDrop:
      bucket->state = StragglerState::kDropping;
      bucket->plan = verdict.drop;
      break;
    case Remedy::kRebalance:
      bucket->state = StragglerState::kRebalancing;
      decided_advice_.is_advised = true;
      decided_advice_.rank = verdict.replica;
      decided_advice_.counts = verdict.counts;
      decided_advice_.why = verdict.why;
      break;
  }
  if (decided_advice_.is_advised) advice_ = decided_advice_;
  return absl::OkStatus();
}

StragglerGauges AdaptivePolicy::gauges() const {
  StragglerGauges gauges;
  gauges.num_dropped = num_dropped_;
  gauges.num_mispredictions = num_mispredictions_;
  const auto found = buckets_.find(last_bucket_);
  if (found == buckets_.end()) return gauges;
  const Bucket& bucket = found->second;
  gauges.state = bucket.state;
  gauges.why = bucket.why;
  gauges.is_tau_enforced = tau_seconds_ < kInfinity;
  gauges.tau_seconds = bucket.plan.tau_seconds;
  gauges.drain_seconds = bucket.plan.drain_seconds;
  gauges.predicted_drop_share = bucket.plan.drop_share;
  gauges.predicted_speedup = bucket.plan.speedup;
  gauges.realised_drop_share = bucket.RealisedDrop();
  gauges.realised_speedup = bucket.RealisedSpeedup();
  gauges.num_decisions = bucket.num_decisions;
  return gauges;
}

}  // namespace deltapipe
