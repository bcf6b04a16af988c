#include "coordinator/tuning/setting_search.h"

#include <algorithm>
#include <cmath>

#include "base/status_macros.h"
#include "coordinator/schedule/pipeline_model.h"
#include "coordinator/tuning/codec_bits.h"

namespace deltapipe {
namespace {

/// The levels that the tuner chooses from: up to cast(bf16).
constexpr int kNumLevels = 9;
static_assert(kBitLevels[kNumLevels - 1] == 16);
/// Beyond as many directions they are raised together only.
constexpr size_t kMaxSingles = 32;
/// Rates are put into bytes, against this one.
constexpr double kReferenceRate = 1e9;

}  // namespace

absl::StatusOr<SettingSearch> SettingSearch::Create(
    const v1::JobSpec& spec, const v1::Plan& plan, const BudgetProblem& problem,
    const SettingFacts& facts) {
  SettingSearch search(problem, facts);
  DP_RETURN_IF_ERROR(search.Prepare(spec, plan));
  return search;
}

absl::Status SettingSearch::Prepare(const v1::JobSpec& spec,
                                    const v1::Plan& plan) {
  programs_ = NominalProgramsOf(plan);
  DP_ASSIGN_OR_RETURN(model_, ModelOfPlan(plan, spec));
  const double messages =
      static_cast<double>(problem_.num_microbatches) * problem_.num_replicas;
  for (const BudgetDirection& direction : problem_.directions) {
    std::vector<std::string> codecs;
    std::vector<double> bytes;
    for (int level = 0; level < kNumLevels; ++level) {
      DP_ASSIGN_OR_RETURN(
          std::string codec,
          WithBits(direction.codec, direction.is_gradient, kBitLevels[level]));
      DP_ASSIGN_OR_RETURN(const double total,
                          PredictStepBytes(problem_, direction, codec));
      codecs.push_back(std::move(codec));
      bytes.push_back(total / messages);
    }
    DP_ASSIGN_OR_RETURN(const double total,
                        PredictStepBytes(problem_, direction, direction.codec));
    present_bytes_.push_back(total / messages);
    codecs_.push_back(std::move(codecs));
    bytes_.push_back(std::move(bytes));
  }
  // The rates of the spec, where none was measured.
  facts_.bits_per_second.resize(problem_.directions.size(), -1);
  for (size_t d = 0; d < facts_.bits_per_second.size(); ++d) {
    const size_t b = static_cast<size_t>(problem_.directions[d].boundary);
    if (facts_.bits_per_second[d] < 0 && b < model_.links.size()) {
      facts_.bits_per_second[d] = model_.links[b].bits_per_second;
    }
  }
  for (LinkModel& link : model_.links) link.bits_per_second = kReferenceRate;
  double slowest = 0;
  for (const StageModel& stage : model_.stages) {
    slowest =
        std::max(slowest, problem_.num_microbatches *
                              (stage.forward_seconds + stage.backward_seconds));
  }
  if (facts_.compute_seconds > 0 && slowest > 0) {
    const double factor = facts_.compute_seconds / slowest;
    for (StageModel& stage : model_.stages) {
      stage.forward_seconds *= factor;
      stage.backward_seconds *= factor;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> SettingSearch::Run(const std::vector<double>& bytes,
                                          double slowdown) const {
  PipelineModel model = model_;
  for (size_t d = 0; d < bytes.size(); ++d) {
    const BudgetDirection& direction = problem_.directions[d];
    LinkModel& link = model.links[static_cast<size_t>(direction.boundary)];
    const double rate = facts_.bits_per_second[d];
    (direction.is_gradient ? link.gradient : link.activation).bytes =
        rate > 0 ? bytes[d] * slowdown * kReferenceRate / rate : 0;
  }
  DP_ASSIGN_OR_RETURN(const Simulation simulation, Simulate(programs_, model));
  return simulation.step_seconds;
}

absl::StatusOr<double> SettingSearch::PresentStepSeconds() const {
  return Run(present_bytes_, 1);
}

absl::StatusOr<double> SettingSearch::StepSeconds(const BitSetting& setting,
                                                  double slowdown) const {
  std::vector<double> bytes;
  for (size_t d = 0; d < setting.size(); ++d) {
    bytes.push_back(bytes_[d][setting[d]]);
  }
  return Run(bytes, slowdown);
}

double SettingSearch::ErrorOf(size_t direction, int level) const {
  return problem_.directions[direction].range * std::exp2(-kBitLevels[level]);
}

BitSetting SettingSearch::Fewest(double error_budget) const {
  BitSetting setting;
  for (size_t d = 0; d < problem_.directions.size(); ++d) {
    int level = 0;
    // A measured error is not exact to the last digit.
    while (level + 1 < kNumLevels &&
           ErrorOf(d, level) > error_budget * (1 + 1e-6)) {
      ++level;
    }
    setting.push_back(level);
  }
  return setting;
}

absl::StatusOr<BitSetting> SettingSearch::Finest(const BitSetting& fewest,
                                                 double limit_seconds,
                                                 double slowdown) const {
  BitSetting best = fewest;
  for (int level = 1; level < kNumLevels; ++level) {
    BitSetting raised = fewest;
    for (int& l : raised) l = std::max(l, level);
    DP_ASSIGN_OR_RETURN(const double seconds, StepSeconds(raised, slowdown));
    if (seconds > limit_seconds) break;
    best = raised;
  }
  if (best.size() > kMaxSingles) return best;
  // Then one by one, the largest error first, each as far as it goes.
  std::vector<bool> is_done(best.size(), false);
  for (;;) {
    int worst = -1;
    for (size_t d = 0; d < best.size(); ++d) {
      if (is_done[d] || best[d] + 1 >= kNumLevels) continue;
      if (worst < 0 || ErrorOf(d, best[d]) >
                           ErrorOf(static_cast<size_t>(worst), best[worst])) {
        worst = static_cast<int>(d);
      }
    }
    if (worst < 0) return best;
    ++best[worst];
    DP_ASSIGN_OR_RETURN(const double seconds, StepSeconds(best, slowdown));
    if (seconds > limit_seconds) {
      --best[worst];
      is_done[worst] = true;
    }
  }
}

}  // namespace deltapipe
