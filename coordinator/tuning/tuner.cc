#include "coordinator/tuning/tuner.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/codec_bits.h"
#include "coordinator/tuning/setting_search.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

/// How much longer a step may take than with the fewest bits.
constexpr double kHidden = 1.03;
/// What a step must gain for bits to fall.
constexpr double kWorthFalling = 1.05;
/// How much slower links may be than measured for bits to rise.
constexpr double kReserve = 1.2;
/// By how much the error must fall for bits to rise.
constexpr double kWorthRising = 0.8;
constexpr size_t kWindow = 3;
constexpr int kSettle = 2;
constexpr int kTimesToFall = 2;
constexpr int kTimesToRise = 4;
/// Of a normal distribution in blocks of 64: 4 bits lose a tenth.
constexpr double kUsualRange = 1.6;

using Direction = std::pair<int, bool>;

void Push(double value, std::deque<double>* window) {
  window->push_back(value);
  if (window->size() > kWindow) window->pop_front();
}

double Median(const std::deque<double>& window) {
  std::vector<double> sorted(window.begin(), window.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

Direction KeyOf(const BudgetDirection& direction) {
  return {direction.boundary, direction.is_gradient};
}

void Remember(const v1::Tuning& current, const TunerObservation& observation,
              const BudgetProblem& calibrated, TunerState* state) {
  if (state->revision != current.revision()) {
    state->revision = current.revision();
    state->observations = 0;
    state->times_found = 0;
    state->proposed.clear();
  }
  ++state->observations;
  if (observation.compute_seconds > 0) {
    Push(observation.compute_seconds, &state->compute_seconds);
  }
  for (const LinkSample& link : observation.links) {
    Push(link.bits_per_second,
         &state->rates[{link.boundary, link.is_gradient}]);
    if (link.relative_error <= 0) continue;
    for (const BudgetDirection& direction : calibrated.directions) {
      const auto bits = ReadCodecBits(direction.codec, direction.is_gradient);
      // The errors of casts and of other codecs tell nothing about those of
      // an int.
      if (KeyOf(direction) == Direction(link.boundary, link.is_gradient) &&
          bits.ok() && bits->bits <= 8 && !bits->is_nominal) {
        state->ranges[KeyOf(direction)] = direction.range;
      }
    }
  }
}

SettingFacts FactsOf(const BudgetProblem& problem, const TunerState& state) {
  SettingFacts facts;
  if (!state.compute_seconds.empty()) {
    facts.compute_seconds = Median(state.compute_seconds);
  }
  for (const BudgetDirection& direction : problem.directions) {
    const auto rates = state.rates.find(KeyOf(direction));
    facts.bits_per_second.push_back(
        rates == state.rates.end() ? -1 : Median(rates->second));
  }
  return facts;
}

std::string Seconds(double seconds) {
  return FormatDuration(std::chrono::nanoseconds(std::llround(seconds * 1e9)));
}

/// A candidate for the next revision.
struct Finding {
  BitSetting setting;
  bool falls = false;
  double seconds_now = 0;
  double seconds_then = 0;
  double error = 0;
};

double WorstError(const SettingSearch& search, const BitSetting& setting) {
  double worst = 0;
  for (size_t d = 0; d < setting.size(); ++d) {
    worst = std::max(worst, search.ErrorOf(d, setting[d]));
  }
  return worst;
}

double SumOfErrors(const SettingSearch& search, const BitSetting& setting) {
  double sum = 0;
  for (size_t d = 0; d < setting.size(); ++d) {
    sum += search.ErrorOf(d, setting[d]);
  }
  return sum;
}

absl::StatusOr<BitSetting> SettingOf(const BudgetProblem& problem) {
  BitSetting setting;
  for (const BudgetDirection& direction : problem.directions) {
    DP_ASSIGN_OR_RETURN(const CodecBits bits,
                        ReadCodecBits(direction.codec, direction.is_gradient));
    int level = 0;
    while (kBitLevels[level] < bits.bits) ++level;
    setting.push_back(level);
  }
  return setting;
}

absl::StatusOr<std::optional<Finding>> Look(const SettingSearch& search,
                                            double error_budget) {
  Finding finding;
  DP_ASSIGN_OR_RETURN(finding.seconds_now, search.PresentStepSeconds());
  DP_ASSIGN_OR_RETURN(const BitSetting present, SettingOf(search.problem()));
  const BitSetting fewest = search.Fewest(error_budget);
  DP_ASSIGN_OR_RETURN(const double fastest, search.StepSeconds(fewest, 1));
  const double limit = fastest * kHidden;
  const bool is_too_coarse =
      WorstError(search, present) > error_budget * kWorthFalling;
  finding.falls = finding.seconds_now > limit * kWorthFalling && !is_too_coarse;
  DP_ASSIGN_OR_RETURN(
      finding.setting,
      search.Finest(fewest, limit, finding.falls ? 1 : kReserve));
  DP_ASSIGN_OR_RETURN(finding.seconds_then,
                      search.StepSeconds(finding.setting, 1));
  finding.error = WorstError(search, finding.setting);
  const bool is_finer = SumOfErrors(search, finding.setting) <
                        SumOfErrors(search, present) * kWorthRising;
  if (finding.setting == present) return std::nullopt;
  if (!finding.falls && !is_finer && !is_too_coarse) return std::nullopt;
  return finding;
}

/// "boundary 1 (activations) sends at 98 Mbit/s; ...".
std::string Reason(const SettingSearch& search, const SettingFacts& facts,
                   const Finding& finding, double error_budget) {
  size_t slowest = 0;
  for (size_t d = 1; d < facts.bits_per_second.size(); ++d) {
    const auto rate = [&](size_t i) {
      return facts.bits_per_second[i] > 0 ? facts.bits_per_second[i] : 1e300;
    };
    if (rate(d) < rate(slowest)) slowest = d;
  }
  const BudgetDirection& direction = search.problem().directions[slowest];
  const double rate = std::max(0.0, facts.bits_per_second[slowest]);
  return absl::StrFormat(
      "the slowest link, %s of boundary %d, runs at %s: with %s a step takes "
      "%s instead of %s, at a relative error of %.2g at most (budget %.2g)",
      direction.is_gradient ? "gradients" : "activations", direction.boundary,
      FormatBandwidth(rate), search.CodecOf(slowest, finding.setting[slowest]),
      Seconds(finding.seconds_then), Seconds(finding.seconds_now),
      finding.error, error_budget);
}

std::string KeyOf(const BitSetting& setting) {
  std::string key;
  for (const int level : setting) absl::StrAppend(&key, level, ",");
  return key;
}

v1::Tuning TuningWith(const v1::Tuning& current, const SettingSearch& search,
                      const BitSetting& setting) {
  v1::Tuning next = current;
  for (size_t d = 0; d < setting.size(); ++d) {
    const BudgetDirection& direction = search.problem().directions[d];
    v1::BoundaryTuning* boundary = next.mutable_boundaries(direction.boundary);
    const std::string& codec = search.CodecOf(d, setting[d]);
    if (direction.is_gradient) {
      boundary->set_activation_gradients(codec);
    } else {
      boundary->set_activations(codec);
    }
  }
  MakeNextRevision(current, &next);
  return next;
}

}  // namespace

absl::StatusOr<std::optional<TunerProposal>> ProposeTuning(
    const v1::Tuning& current, const v1::JobSpec& spec, const v1::Plan& plan,
    const TunerObservation& observation, TunerState* state) {
  BudgetProblem problem = BudgetProblemOf(current, plan);
  const bool is_on = current.tuner().mode() == v1::Tuner::PROPOSE ||
                     current.tuner().mode() == v1::Tuner::APPLY;
  if (!is_on || current.budget_bytes_per_step() > 0 ||
      problem.directions.empty()) {
    return std::nullopt;
  }
  Calibrate(observation.links, &problem);
  Remember(current, observation, problem, state);
  if (state->observations <= kSettle) return std::nullopt;
  for (BudgetDirection& direction : problem.directions) {
    const auto range = state->ranges.find(KeyOf(direction));
    direction.range =
        range == state->ranges.end() ? kUsualRange : range->second;
  }
  const double error_budget = current.tuner().error_budget() > 0
                                  ? current.tuner().error_budget()
                                  : kDefaultErrorBudget;
  const SettingFacts facts = FactsOf(problem, *state);
  DP_ASSIGN_OR_RETURN(const SettingSearch search,
                      SettingSearch::Create(spec, plan, problem, facts));
  DP_ASSIGN_OR_RETURN(const std::optional<Finding> finding,
                      Look(search, error_budget));
  if (!finding.has_value()) {
    state->found.clear();
    state->times_found = 0;
    return std::nullopt;
  }
  // What it falls to may differ from step to step; that it should, must not.
  const std::string key = finding->falls ? "falls" : KeyOf(finding->setting);
  state->times_found = key == state->found ? state->times_found + 1 : 1;
  state->found = key;
  if (state->times_found < (finding->falls ? kTimesToFall : kTimesToRise) ||
      KeyOf(finding->setting) == state->proposed) {
    return std::nullopt;
  }
  state->times_found = 0;
  state->proposed = KeyOf(finding->setting);
  TunerProposal proposal;
  proposal.tuning = TuningWith(current, search, finding->setting);
  proposal.reason = Reason(search, facts, *finding, error_budget);
  proposal.step_seconds_now = finding->seconds_now;
  proposal.step_seconds_then = finding->seconds_then;
  return proposal;
}

}  // namespace deltapipe
