// LatencyModel: the extra time that an injected straggler takes, for
// experiments on a running job (`--inject`) and in simulations.
//
// Terms, joined by ';', whose extra times add up:
//
//   lognormal:F      jitter of every replica: extra = 0.5 F Z base, where Z is
//                    lognormal(4, 1) on the integers 1..999, scaled to mean 1.
//                    F = 1 makes a micro-batch 1.5 times as long on average,
//                    6.7 times at most.
//   slow:rank=R,x=X  replica R takes X times as long, always.
//   input:rank=R,by=T  the first stage of replica R reads every micro-batch for
//                    a time T longer (such as 20ms), before the step's first
//                    forward pass: a slow disk or network share.
//
// Giladi et al., "DropCompute", NeurIPS 2023, section 5: the noise of its
// experiments.
//
// The extra time depends on seed, step, replica, micro-batch and part alone, so
// that a run can be repeated and a redone step is as slow as before. Immutable,
// thread-safe; never sleeps.
//
//   DP_ASSIGN_OR_RETURN(LatencyModel model,
//                       LatencyModel::Parse("lognormal:1;slow:rank=3,x=1.5",
//                                           /*seed=*/17));
//   clock->SleepUntil(now + extra of model.ExtraSeconds(...), cancel);
#ifndef DELTAPIPE_BASE_LATENCY_MODEL_H_
#define DELTAPIPE_BASE_LATENCY_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

class LatencyModel {
 public:
  /// Nothing is slow.
  LatencyModel() = default;
  /// "" and "none" inject nothing. INVALID_ARGUMENT names the term, and what is
  /// known. Factors are finite and >= 0, x is >= 1, rank >= 0, a time is as
  /// ParseDuration has it.
  static absl::StatusOr<LatencyModel> Parse(absl::string_view text,
                                            uint64_t seed);

  /// INVALID_ARGUMENT if a term names a replica that does not exist.
  absl::Status CheckReplicas(int num_replicas) const;

  /// By how many seconds micro-batch `microbatch` of `replica` takes longer
  /// than `base_seconds`. `part` tells pieces apart that jitter independently,
  /// such as the forward and backward passes of each stage.
  double ExtraSeconds(int replica, int64_t step, int microbatch,
                      double base_seconds, int part = 0) const;

  /// By how many seconds the first stage of `replica` reads a micro-batch
  /// longer; not part of ExtraSeconds.
  double InputSeconds(int replica) const;

  bool is_none() const {
    return lognormal_.empty() && slow_.empty() && input_.empty();
  }

 private:
  struct Slow {
    int rank = 0;
    double times = 1;
  };
  struct Input {
    int rank = 0;
    double seconds = 0;
  };
  absl::Status AddTerm(absl::string_view term);
  absl::Status AddSlow(absl::string_view term, absl::string_view arguments);
  absl::Status AddInput(absl::string_view term, absl::string_view arguments);

  uint64_t seed_ = 0;
  std::vector<double> lognormal_;  // factors
  std::vector<Slow> slow_;
  std::vector<Input> input_;
};

/// Z of the lognormal term for a uniform number in [0, 1): the inverse of its
/// distribution function. Mean 1, from 0.0114 to 11.4.
double DiscreteLognormal(double uniform);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_LATENCY_MODEL_H_
