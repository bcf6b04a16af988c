// A budget of bytes per step, divided among the directions of all boundaries.
//
// Equation: levels proportional to the 2/3 power of the range, M_i = 2^(b_i) ~
// a_i^(2/3), so b_i = t + 2/3 log2 a_i with one t for all (ACIQ: Banner et al.,
// Post-training 4-bit quantization, NeurIPS 2019, per-channel bit allocation;
// it minimises sum n_i a_i^2 4^(-b_i) for a given sum of levels n_i 2^(b_i)).
// There a_i is a channel's range; here, a direction's, as its relative error at
// b bits shows it: error = a 2^(-b). Without a measurement all a_i are equal.
//
// t is the largest whose bytes fit, with bits rounded down to what codecs have
// (1 to 8, 16, 32); what is left goes to the directions that were rounded
// down most, then to smaller or larger scale blocks, never at the price of a
// larger modelled error. Bytes are those of real bodies, tables, scales and
// frames included (PredictBoundaryBytes). Wrappers and `first` stay.
//
// Called by the job's actor. Pure functions; thread-safe.
#ifndef DELTAPIPE_COORDINATOR_TUNING_BIT_BUDGET_H_
#define DELTAPIPE_COORDINATOR_TUNING_BIT_BUDGET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/tuning/link_meter.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// What a budget is met within, where codecs have sizes so close together.
inline constexpr double kBudgetTolerance = 0.03;

struct BudgetDirection {
  int boundary = 0;
  bool is_gradient = false;
  /// As it is now.
  std::string codec;
  int64_t elements_per_sample = 0;
  /// a in error = a 2^(-bits).
  double range = 1;
  /// Of samples that a delta sends through `first`, measured.
  double value_share = 0;
  /// Bytes of a message beside its body: header, and its share of what the
  /// other end acknowledges. As plans have it until it is measured.
  double frame_bytes = 100;
};

struct BudgetProblem {
  int microbatch_samples = 1;
  int num_microbatches = 1;
  int num_replicas = 1;
  /// By boundary, activations first.
  std::vector<BudgetDirection> directions;
};

/// Empty directions for a job of one stage.
BudgetProblem BudgetProblemOf(const v1::Tuning& tuning, const v1::Plan& plan);

/// Takes ranges, shares of values and what comes beside bodies from samples of
/// the codecs in force. A
/// direction that sends mostly first visits is taken as if it did not: its
/// bits will matter later.
void Calibrate(const std::vector<LinkSample>& samples, BudgetProblem* problem);

/// Of the direction with `codec` in place of its own, over all replicas.
absl::StatusOr<double> PredictStepBytes(const BudgetProblem& problem,
                                        const BudgetDirection& direction,
                                        const std::string& codec);

struct BitAllocation {
  /// Of each direction.
  std::vector<std::string> codecs;
  double bytes_per_step = 0;
  /// What the finest and the coarsest setting would send.
  double least_bytes = 0;
  double most_bytes = 0;

  bool IsWithin(double budget) const;
};

/// INVALID_ARGUMENT with the least possible figure if even one bit per value is
/// too much; FAILED_PRECONDITION without boundaries. A budget beyond
/// most_bytes is met by sending that.
absl::StatusOr<BitAllocation> AllocateBits(const BudgetProblem& problem,
                                           int64_t budget_bytes_per_step);

/// `current` with a budget and the bits that it allows, as the next revision;
/// `current` itself if that is what it has. 0 ends the budget and leaves the
/// bits. Where first visits alone exceed the budget, it is met by later ones.
/// The errors of AllocateBits; INVALID_ARGUMENT for a negative budget.
absl::StatusOr<v1::Tuning> ApplyBudget(const v1::Tuning& current,
                                       int64_t budget_bytes_per_step,
                                       const v1::Plan& plan,
                                       const std::vector<LinkSample>& samples);

/// What keeps the budget of `current`, if it has one, now that `samples` were
/// measured: nothing new unless they miss it by more than the tolerance and
/// other bits would come closer. Where data.sizes mixes sizes, what a few steps
/// send is that of the sizes drawn in them; what is predicted of the mean
/// counts in its place, since codecs remember nothing there.
absl::StatusOr<v1::Tuning> KeepBudget(const v1::Tuning& current,
                                      const v1::JobSpec& spec,
                                      const v1::Plan& plan,
                                      const std::vector<LinkSample>& samples);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_BIT_BUDGET_H_
