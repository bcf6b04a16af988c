// What a setting of bits would cost: the simulated step and the relative error
// of each direction; and the finest setting that costs next to no time.
//
// Used by the tuner alone. Not thread-safe.
#ifndef DELTAPIPE_COORDINATOR_TUNING_SETTING_SEARCH_H_
#define DELTAPIPE_COORDINATOR_TUNING_SETTING_SEARCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/simulate.h"
#include "coordinator/tuning/bit_budget.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// An index of kBitLevels for each direction of a BudgetProblem.
using BitSetting = std::vector<int>;

struct SettingFacts {
  /// Of each direction; 0 is unlimited, negative as the spec has it.
  std::vector<double> bits_per_second;
  /// Of the slowest worker per step; 0: as the plan has it.
  double compute_seconds = 0;
};

class SettingSearch {
 public:
  static absl::StatusOr<SettingSearch> Create(const v1::JobSpec& spec,
                                              const v1::Plan& plan,
                                              const BudgetProblem& problem,
                                              const SettingFacts& facts);

  /// As the codecs of the problem are.
  absl::StatusOr<double> PresentStepSeconds() const;
  /// With links that are `slowdown` times as slow as measured.
  absl::StatusOr<double> StepSeconds(const BitSetting& setting,
                                     double slowdown) const;
  double ErrorOf(size_t direction, int level) const;

  /// The fewest bits whose error is within `error_budget`; all of 16 bits where
  /// none is.
  BitSetting Fewest(double error_budget) const;
  /// The finest setting, not coarser than `fewest`, of a step of at most
  /// `limit_seconds`.
  absl::StatusOr<BitSetting> Finest(const BitSetting& fewest,
                                    double limit_seconds,
                                    double slowdown) const;

  const BudgetProblem& problem() const { return problem_; }
  const std::string& CodecOf(size_t direction, int level) const {
    return codecs_[direction][level];
  }

 private:
  SettingSearch(const BudgetProblem& problem, const SettingFacts& facts)
      : problem_(problem), facts_(facts) {}
  absl::Status Prepare(const v1::JobSpec& spec, const v1::Plan& plan);
  absl::StatusOr<double> Run(const std::vector<double>& bytes,
                             double slowdown) const;

  BudgetProblem problem_;
  SettingFacts facts_;
  std::vector<Program> programs_;
  PipelineModel model_;
  /// By direction and level; bytes are per micro-batch of one replica.
  std::vector<std::vector<std::string>> codecs_;
  std::vector<std::vector<double>> bytes_;
  std::vector<double> present_bytes_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_SETTING_SEARCH_H_
