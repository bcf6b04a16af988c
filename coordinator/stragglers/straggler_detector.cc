#include "coordinator/stragglers/straggler_detector.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr size_t kWindow = 8;
constexpr int kLasting = 6;
constexpr double kMinShift = 0.10;
constexpr double kClearedShift = 0.05;
constexpr double kSigmas = 6;
// Of the median of so many normal values, over that of a single one: 1.253 over
// the root of 8.
constexpr double kMedianDeviation = 0.443;
// From the median absolute deviation of a normal distribution to its standard
// deviation, 1.4826, and what 8 values lie closer to their own median, 1.129.
constexpr double kMadToSigma = 1.674;
// Noise below this is not believed.
constexpr double kMinNoise = 0.002;
constexpr double kMinCorrelation = 0.9;
// The key of the one finding that concerns all workers.
constexpr int kAll = -1;

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half]
                                : (values[half - 1] + values[half]) / 2;
}

/// Of two values the lower one: one slow replica of two makes no slow stage.
double LowerMedian(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double MedianOf(const std::deque<double>& values) {
  return Median(std::vector<double>(values.begin(), values.end()));
}

double ComputeSeconds(const WorkerTimings& worker) {
  return Mean(worker.forward_seconds) + Mean(worker.backward_seconds);
}

/// Correlation and spread of forwards and backwards of the same micro-batch,
/// each divided by its worker's mean, over all workers and steps.
struct Alikeness {
  double correlation = 0;
  double spread = 0;
};

Alikeness ForwardAndBackward(const std::deque<StepTimings>& steps) {
  double count = 0, forward_squares = 0, backward_squares = 0, products = 0;
  for (const StepTimings& step : steps) {
    for (const WorkerTimings& worker : step.workers) {
      const double forward_mean = Mean(worker.forward_seconds);
      const double backward_mean = Mean(worker.backward_seconds);
      if (forward_mean <= 0 || backward_mean <= 0) continue;
      for (size_t m = 0; m < worker.forward_seconds.size(); ++m) {
        const double forward = worker.forward_seconds[m] / forward_mean - 1;
        const double backward = worker.backward_seconds[m] / backward_mean - 1;
        forward_squares += forward * forward;
        backward_squares += backward * backward;
        products += forward * backward;
        ++count;
      }
    }
  }
  if (count == 0 || forward_squares <= 0 || backward_squares <= 0) return {};
  return {products / std::sqrt(forward_squares * backward_squares),
          std::sqrt((forward_squares + backward_squares) / (2 * count))};
}

StragglerCause CauseOf(int signal) {
  constexpr std::array<StragglerCause, 4> kCauses = {
      StragglerCause::kCompute, StragglerCause::kActivationLink,
      StragglerCause::kGradientLink, StragglerCause::kInput};
  return kCauses[signal];
}

FixedWork WorkOf(StragglerCause cause) {
  switch (cause) {
    case StragglerCause::kActivationLink:
    case StragglerCause::kGradientLink:
      return {false, true, false};
    case StragglerCause::kInput:
      return {false, false, true};
    default:
      return {true, false, false};
  }
}

}  // namespace

absl::string_view StragglerCauseName(StragglerCause cause) {
  switch (cause) {
    case StragglerCause::kCompute:
      return "compute";
    case StragglerCause::kActivationLink:
      return "activation link";
    case StragglerCause::kGradientLink:
      return "gradient link";
    case StragglerCause::kInput:
      return "input";
    case StragglerCause::kStageImbalance:
      return "stage imbalance";
    case StragglerCause::kSequenceLength:
      return "sequence length";
  }
  return "";
}

std::string StragglerFinding::text() const {
  std::string who =
      scope.stage < 0 ? "all stages" : absl::StrCat("stage ", scope.stage);
  if (scope.replica >= 0) absl::StrAppend(&who, ", replica ", scope.replica);
  std::string what;
  switch (cause) {
    case StragglerCause::kInput:
      what = absl::StrFormat("waits for input for %.0f %% of its compute",
                             100 * shift);
      break;
    case StragglerCause::kSequenceLength:
      what = absl::StrFormat("micro-batches differ in length by %.0f %%",
                             100 * shift);
      break;
    case StragglerCause::kStageImbalance:
      what = absl::StrFormat("computes %.2f times as long as other stages",
                             1 + shift);
      break;
    default:
      what = absl::StrFormat("%s takes %.2f times as long",
                             StragglerCauseName(cause), 1 + shift);
  }
  return absl::StrFormat("%s: %s, %.3g s lost per step", who, what,
                         seconds_lost_per_step);
}

bool StragglerDetector::Key::operator<(const Key& other) const {
  return std::tie(stage, replica, signal) <
         std::tie(other.stage, other.replica, other.signal);
}

void StragglerDetector::Clear() {
  window_.clear();
  shifts_.clear();
  own_first_.clear();
  found_.clear();
  findings_.clear();
}

absl::Status StragglerDetector::Add(StepTimings timings) {
  DP_RETURN_IF_ERROR(WhatIf::Create(schedule_, {timings}).status());
  if (!window_.empty() &&
      (window_.back().num_stages != timings.num_stages ||
       window_.back().num_replicas != timings.num_replicas)) {
    Clear();
  }
  const int64_t step = timings.step;
  AddShifts(timings);
  window_.push_back(std::move(timings));
  if (window_.size() > kWindow) window_.pop_front();
  if (window_.size() < kWindow) return absl::OkStatus();
  Judge(step);
  DropUnmeasured();
  JudgeSequenceLength(step);
  findings_.clear();
  if (found_.empty()) return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(
      const WhatIf what_if,
      WhatIf::Create(schedule_,
                     std::vector<StepTimings>(window_.begin(), window_.end())));
  Price(what_if);
  return absl::OkStatus();
}

StragglerDetector::Signal StragglerDetector::SignalOf(StragglerCause cause) {
  switch (cause) {
    case StragglerCause::kActivationLink:
      return kActivationSend;
    case StragglerCause::kGradientLink:
      return kGradientSend;
    case StragglerCause::kInput:
      return kLoad;
    default:
      return kCompute;
  }
}

std::vector<StragglerBaseline> StragglerDetector::baselines() const {
  std::vector<StragglerBaseline> baselines;
  for (const auto& [key, seconds] : own_first_) {
    baselines.push_back(
        {{key.stage, key.replica}, CauseOf(key.signal), seconds});
  }
  return baselines;
}

void StragglerDetector::Restore(
    const std::vector<StragglerFinding>& findings,
    const std::vector<StragglerBaseline>& baselines) {
  Clear();
  for (const StragglerBaseline& baseline : baselines) {
    own_first_[{baseline.scope.stage, baseline.scope.replica,
                SignalOf(baseline.cause)}] = baseline.seconds;
  }
  for (const StragglerFinding& finding : findings) {
    found_[{finding.scope.stage, finding.scope.replica,
            SignalOf(finding.cause)}] = finding;
  }
  findings_ = findings;
}

bool StragglerDetector::HasSignal(const WorkerTimings& worker, Signal signal) {
  switch (signal) {
    case kActivationSend:
      return !worker.activation_send_seconds.empty();
    case kGradientSend:
      return !worker.gradient_send_seconds.empty();
    case kLoad:
      return !worker.load_seconds.empty();
    default:
      return true;
  }
}

double StragglerDetector::SignalSeconds(const WorkerTimings& worker,
                                        Signal signal) {
  switch (signal) {
    case kActivationSend:
      return Mean(worker.activation_send_seconds);
    case kGradientSend:
      return Mean(worker.gradient_send_seconds);
    case kLoad:
      return Mean(worker.load_seconds);
    default:
      return ComputeSeconds(worker);
  }
}

void StragglerDetector::AddShifts(const StepTimings& timings) {
  std::vector<double> stage_seconds;
  for (int stage = 0; stage < timings.num_stages; ++stage) {
    std::vector<double> compute;
    for (int replica = 0; replica < timings.num_replicas; ++replica) {
      // A replica that executed nothing tells nothing.
      if (timings.At(stage, replica).forward_seconds.empty()) continue;
      compute.push_back(ComputeSeconds(timings.At(stage, replica)));
      for (const Signal signal :
           {kCompute, kActivationSend, kGradientSend, kLoad}) {
        if (!HasSignal(timings.At(stage, replica), signal)) continue;
        AddShift({stage, replica, signal},
                 ShiftOfWorker(timings, stage, replica, signal));
      }
    }
    stage_seconds.push_back(LowerMedian(std::move(compute)));
  }
  for (int stage = 0; stage < timings.num_stages; ++stage) {
    double others = 0;
    for (const double seconds : stage_seconds) others += seconds;
    others =
        (others - stage_seconds[stage]) / std::max(1, timings.num_stages - 1);
    if (others > 0) {
      AddShift({stage, kAll, kCompute}, stage_seconds[stage] / others - 1);
    }
  }
}

double StragglerDetector::ShiftOfWorker(const StepTimings& timings, int stage,
                                        int replica, Signal signal) {
  const auto value_of = [&](int other) {
    return SignalSeconds(timings.At(stage, other), signal);
  };
  const double value = value_of(replica);
  std::vector<double> others;
  for (int other = 0; other < timings.num_replicas; ++other) {
    if (other == replica) continue;
    if (timings.At(stage, other).forward_seconds.empty()) continue;
    others.push_back(value_of(other));
  }
  if (timings.num_replicas == 1) {
    std::vector<double>& first = own_first_[{stage, replica, signal}];
    if (first.size() < kWindow) first.push_back(value);
    others = first;
  }
  if (others.empty()) return 0;
  const double usual = Median(others);
  const double scale =
      signal == kLoad ? ComputeSeconds(timings.At(stage, replica)) : usual;
  return scale > 0 ? (value - usual) / scale : 0;
}

void StragglerDetector::AddShift(const Key& key, double shift) {
  Shifts& shifts = shifts_[key];
  shifts.push_back(shift);
  if (shifts.size() > kWindow) shifts.pop_front();
}

double StragglerDetector::Noise(Signal signal, bool is_stage) const {
  std::vector<double> deviations;
  for (const auto& [key, shifts] : shifts_) {
    if (key.signal != signal || (key.replica == kAll) != is_stage) continue;
    const double middle = MedianOf(shifts);
    for (const double shift : shifts) {
      deviations.push_back(std::abs(shift - middle));
    }
  }
  return std::max(kMinNoise, kMadToSigma * Median(std::move(deviations)));
}

void StragglerDetector::Judge(int64_t step) {
  std::array<std::array<double, 2>, kNumSignals> noise;
  for (int signal = 0; signal < kNumSignals; ++signal) {
    for (const bool is_stage : {false, true}) {
      noise[signal][is_stage ? 1 : 0] =
          Noise(static_cast<Signal>(signal), is_stage);
    }
  }
  for (const auto& [key, shifts] : shifts_) {
    if (shifts.size() < kWindow) continue;
    const double median = MedianOf(shifts);
    const double deviation =
        kMedianDeviation * noise[key.signal][key.replica == kAll ? 1 : 0];
    const auto lasting =
        std::count_if(shifts.begin(), shifts.end(),
                      [](double shift) { return shift > kMinShift / 2; });
    if (found_.count(key) > 0) {
      if (median < kClearedShift) {
        found_.erase(key);
      } else {
        found_[key].shift = median;
      }
    } else if (median >= kMinShift && lasting >= kLasting &&
               median >= kSigmas * deviation) {
      SetFinding(key, median, step);
    }
  }
}

void StragglerDetector::DropUnmeasured() {
  for (auto found = found_.begin(); found != found_.end();) {
    const bool is_measured =
        found->first.stage == kAll || shifts_.count(found->first) > 0;
    found = is_measured ? std::next(found) : found_.erase(found);
  }
}

void StragglerDetector::SetFinding(const Key& key, double shift, int64_t step) {
  StragglerFinding finding;
  finding.scope = {key.stage, key.replica};
  finding.cause = key.replica == kAll ? StragglerCause::kStageImbalance
                                      : CauseOf(key.signal);
  finding.shift = shift;
  finding.since_step = step;
  found_[key] = finding;
}

void StragglerDetector::JudgeSequenceLength(int64_t step) {
  const Key key = {kAll, kAll, kCompute};
  const Alikeness alike = ForwardAndBackward(window_);
  if (alike.correlation < kMinCorrelation || alike.spread < kMinShift) {
    found_.erase(key);
    return;
  }
  if (found_.count(key) == 0) SetFinding(key, alike.spread, step);
  found_[key].cause = StragglerCause::kSequenceLength;
  found_[key].shift = alike.spread;
}

void StragglerDetector::Price(const WhatIf& what_if) {
  const double step_seconds = what_if.StepSeconds();
  for (auto& [key, finding] : found_) {
    finding.seconds_lost_per_step =
        std::max(0.0, step_seconds - what_if.FixedSeconds(
                                         finding.scope, WorkOf(finding.cause)));
    findings_.push_back(finding);
  }
  std::stable_sort(findings_.begin(), findings_.end(),
                   [](const StragglerFinding& a, const StragglerFinding& b) {
                     return a.seconds_lost_per_step > b.seconds_lost_per_step;
                   });
}

}  // namespace deltapipe
