#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/codec_bits.h"

namespace deltapipe {
namespace {

/// Values to a scale that the fill-up chooses from; 0 is the block in force.
constexpr int64_t kBlocks[] = {0, 16, 32, 48, 64, 96, 128, 256};
/// Combinations that the fill-up looks at, at most, where there are few
/// directions.
constexpr int kMaxCombinations = 350'000;

/// One way to send a direction.
struct Option {
  int level = 0;  // index in kBitLevels
  std::string codec;
  double bytes = 0;
  /// Modelled squared error, of all its values.
  double distortion = 0;
};

/// The largest of `block` normal values, in standard deviations, roughly: what
/// a scale has to cover.
double SpreadOf(int64_t block) {
  return std::sqrt(2 *
                   std::log(static_cast<double>(std::max<int64_t>(block, 2))));
}

class Allocator {
 public:
  Allocator(const BudgetProblem& problem, double budget)
      : problem_(problem), budget_(budget) {}

  absl::StatusOr<BitAllocation> Run() {
    DP_RETURN_IF_ERROR(ListOptions());
    BitAllocation allocation;
    for (size_t d = 0; d < all_.size(); ++d) {
      allocation.least_bytes += Extreme(d, false).bytes;
      allocation.most_bytes += Extreme(d, true).bytes;
    }
    if (allocation.least_bytes > budget_ * (1 + kBudgetTolerance)) {
      return FieldViolationsError(
          {{"budget_bytes_per_step",
            absl::StrCat(
                "expected at least ",
                static_cast<int64_t>(std::ceil(allocation.least_bytes)),
                " bytes per step (1 bit per value on all boundaries: ",
                FormatBytes(allocation.least_bytes), "), got ",
                static_cast<int64_t>(budget_))}},
          "BUDGET_TOO_SMALL");
    }
    ChooseLevels();
    FillLevels();
    if (Total() < budget_ * (1 - kBudgetTolerance) || Total() > budget_) {
      FillBlocks();
    }
    for (const Option& option : chosen_) {
      allocation.codecs.push_back(option.codec);
    }
    allocation.bytes_per_step = Total();
    return allocation;
  }

 private:
  static constexpr int kNumLevels =
      static_cast<int>(sizeof(kBitLevels) / sizeof(kBitLevels[0]));

  /// The texts and bytes of equal directions are made once.
  absl::StatusOr<std::vector<Option>> OptionsOf(
      const BudgetDirection& direction) {
    const auto key = std::make_tuple(
        direction.codec, direction.is_gradient, direction.elements_per_sample,
        direction.range, direction.value_share, direction.frame_bytes);
    const auto known = cache_.find(key);
    if (known != cache_.end()) return known->second;
    std::vector<Option> options;
    for (int level = 0; level < kNumLevels; ++level) {
      for (const int64_t block : kBlocks) {
        if (kBitLevels[level] > 8 && block != 0) continue;
        Option option;
        option.level = level;
        DP_ASSIGN_OR_RETURN(option.codec,
                            WithBits(direction.codec, direction.is_gradient,
                                     kBitLevels[level], block));
        DP_ASSIGN_OR_RETURN(
            option.bytes, PredictStepBytes(problem_, direction, option.codec));
        DP_ASSIGN_OR_RETURN(const CodecBits bits,
                            ReadCodecBits(option.codec, direction.is_gradient));
        const double error = direction.range * std::exp2(-bits.bits) *
                             SpreadOf(bits.block > 0 ? bits.block : 64);
        option.distortion =
            error * error * static_cast<double>(direction.elements_per_sample);
        options.push_back(std::move(option));
      }
    }
    cache_[key] = options;
    return options;
  }

  absl::Status ListOptions() {
    for (const BudgetDirection& direction : problem_.directions) {
      DP_ASSIGN_OR_RETURN(std::vector<Option> options, OptionsOf(direction));
      std::vector<Option> plain;
      for (const Option& option : options) {
        if (plain.size() == static_cast<size_t>(option.level)) {
          plain.push_back(option);  // the first of each level: block in force
        }
      }
      plain_.push_back(std::move(plain));
      all_.push_back(std::move(options));
    }
    return absl::OkStatus();
  }

  const Option& Extreme(size_t d, bool is_most) const {
    const auto less = [](const Option& a, const Option& b) {
      return a.bytes < b.bytes;
    };
    return is_most ? *std::max_element(all_[d].begin(), all_[d].end(), less)
                   : *std::min_element(all_[d].begin(), all_[d].end(), less);
  }

  double Total() const {
    double total = 0;
    for (const Option& option : chosen_) total += option.bytes;
    return total;
  }

  /// b = t + 2/3 log2 a.
  double WantedBits(size_t d, double t) const {
    return t + 2.0 / 3.0 * std::log2(problem_.directions[d].range);
  }

  /// The largest level that is no more than `bits`, at least the first.
  static int LevelBelow(double bits) {
    int level = 0;
    while (level + 1 < kNumLevels && kBitLevels[level + 1] <= bits) ++level;
    return level;
  }

  double TotalAt(double t) const {
    double total = 0;
    for (size_t d = 0; d < plain_.size(); ++d) {
      total += plain_[d][LevelBelow(WantedBits(d, t))].bytes;
    }
    return total;
  }

  void ChooseLevels() {
    double low = -64;
    double high = 128;
    for (int i = 0; i < 64; ++i) {
      const double middle = (low + high) / 2;
      (TotalAt(middle) <= budget_ ? low : high) = middle;
    }
    t_ = low;
    for (size_t d = 0; d < plain_.size(); ++d) {
      chosen_.push_back(plain_[d][LevelBelow(WantedBits(d, t_))]);
    }
  }

  /// Raises what was rounded down most, as long as something fits.
  void FillLevels() {
    double left = budget_ - Total();
    for (;;) {
      int best = -1;
      double most_missing = -std::numeric_limits<double>::infinity();
      for (size_t d = 0; d < chosen_.size(); ++d) {
        const int next = chosen_[d].level + 1;
        if (next >= kNumLevels) continue;
        const double more = plain_[d][next].bytes - chosen_[d].bytes;
        const double missing = WantedBits(d, t_) - kBitLevels[chosen_[d].level];
        if (more > left || missing <= most_missing) continue;
        most_missing = missing;
        best = static_cast<int>(d);
      }
      if (best < 0) return;
      const int next = chosen_[best].level + 1;
      left -= plain_[best][next].bytes - chosen_[best].bytes;
      chosen_[best] = plain_[best][next];
    }
  }

  /// Other blocks, and with them perhaps other bits, come closer.
  void FillBlocks() {
    std::vector<std::vector<Option>> near(chosen_.size());
    double combinations = 1;
    for (size_t d = 0; d < chosen_.size(); ++d) {
      for (const Option& option : all_[d]) {
        if (std::abs(option.level - chosen_[d].level) <= 1) {
          near[d].push_back(option);
        }
      }
      combinations *= static_cast<double>(near[d].size());
    }
    if (combinations <= kMaxCombinations) {
      TryAll(near);
    } else {
      TryOneByOne(near);
    }
  }

  double Deviation(double total) const {
    return std::fabs(total - budget_) / budget_;
  }

  /// The least error among what is within the tolerance; else what is nearest.
  void TryAll(const std::vector<std::vector<Option>>& near) {
    double error = 0;
    for (const Option& option : chosen_) error += option.distortion;
    const double allowed_error = error * (1 + 1e-9);
    double best_deviation = std::max(Deviation(Total()), kBudgetTolerance);
    double best_error = Total() > budget_ ? 1e300 : error;
    std::vector<size_t> index(near.size(), 0);
    std::vector<size_t> best;
    for (;;) {
      double total = 0;
      double distortion = 0;
      for (size_t d = 0; d < near.size(); ++d) {
        total += near[d][index[d]].bytes;
        distortion += near[d][index[d]].distortion;
      }
      const double deviation =
          std::max(Deviation(total), kBudgetTolerance * 0.9);
      const bool is_nearer = deviation < best_deviation;
      const bool is_finer =
          deviation == best_deviation && distortion < best_error;
      if ((is_nearer || is_finer) && distortion <= allowed_error) {
        best_deviation = deviation;
        best_error = distortion;
        best = index;
      }
      size_t d = 0;
      while (d < near.size() && ++index[d] == near[d].size()) index[d++] = 0;
      if (d == near.size()) break;
    }
    for (size_t d = 0; d < best.size(); ++d) chosen_[d] = near[d][best[d]];
  }

  /// The same where there are too many combinations: each direction in turn.
  void TryOneByOne(const std::vector<std::vector<Option>>& near) {
    for (int round = 0; round < 3; ++round) {
      for (size_t d = 0; d < near.size(); ++d) {
        const double left = budget_ - Total();
        if (left <= budget_ * kBudgetTolerance / 2) return;
        const Option* best = nullptr;
        for (const Option& option : near[d]) {
          const double more = option.bytes - chosen_[d].bytes;
          const bool improves =
              more > 0 && more <= left &&
              option.distortion <= chosen_[d].distortion &&
              (best == nullptr || option.distortion < best->distortion);
          if (improves) best = &option;
        }
        if (best != nullptr) chosen_[d] = *best;
      }
    }
  }

  const BudgetProblem& problem_;
  const double budget_;
  double t_ = 0;
  /// By direction: with the block in force, and with every block.
  std::vector<std::vector<Option>> plain_;
  std::vector<std::vector<Option>> all_;
  std::vector<Option> chosen_;
  std::map<std::tuple<std::string, bool, int64_t, double, double, double>,
           std::vector<Option>>
      cache_;
};

}  // namespace

absl::StatusOr<BitAllocation> AllocateBits(const BudgetProblem& problem,
                                           int64_t budget_bytes_per_step) {
  if (problem.directions.empty()) {
    return WithReason(
        absl::FailedPreconditionError(
            "the job has one stage, so there is nothing to divide a budget "
            "among: use one with two stages or more"),
        {"NO_BOUNDARIES", {}});
  }
  return Allocator(problem, static_cast<double>(budget_bytes_per_step)).Run();
}

}  // namespace deltapipe
