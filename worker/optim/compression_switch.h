// CompressionSwitch: when an optimizer that compresses should begin to, and
// whether it should stop again.
//
// By step: from compress_after_step on. By decision (auto): once the variance
// has settled, which 1-bit Adam (arXiv 2102.02888, section 7.1) reads off
// ||v_t||_1, and, for LAMB, its coefficients too. Every half of a window the
// switch checks
//   | ||v_t||_1 - ||v_(t - window)||_1 | / ||v_t||_1  <  variance_change
//   mean over the tensors of sd(c) / mean(c)          <  coefficient_spread
// and goes on after `num_checks` checks in a row for which both hold. The
// window is ceil(1 / (1 - beta2)) steps, the memory of v, or 100 if that is
// less: a variance that is still growing from zero shows within that, too. The
// checks span two windows, so that a variance that turns from rising to falling
// does not count as settled.
//
// It goes off again after num_checks checks in a row which show that the
// variance at the freeze no longer describes the gradients. With LAMB, that its
// factor, the correction of the frozen variance by a fresh one, lies at one of
// its limits in more than max_share_at_limit of the tensors. Without (1-bit and
// 0/1 Adam), that ||v||_1 would be far from the frozen one by now: v being the
// mean of squared gradients, ||v||_1 is that of their squared norms, which all
// ranks know anyway, so that the switch carries it on by
//   s <- beta2 s + (1 - beta2) ||clip g||^2    from s = ||v||_1 on
// and compares with the frozen one:
//   s / ||v||_1  >  max_variance_ratio   or   <  min_variance_ratio
// The ratios are those at which LAMB's factor, sqrt(v / s), is at its default
// limits, 0.5 and 4. They are far from what counts as settled and s begins anew
// when the switch goes on, so that it does not go to and fro.
//
//   compression.Observe(squared_norm);
//   if (compression.WantsEvidence(step)) {
//     const std::string why = compression.Update(step, evidence);
//     if (!why.empty()) {
//       LOG_INFO << why;
//       optimizer->SetCompressing(compression.is_on());
//     }
//   }
//
// A pure function of what it is given: ranks that sum the same evidence decide
// alike. Not thread-safe.
#ifndef DELTAPIPE_WORKER_OPTIM_COMPRESSION_SWITCH_H_
#define DELTAPIPE_WORKER_OPTIM_COMPRESSION_SWITCH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/optim/compression_evidence.h"
#include "worker/optim/optimizer.h"

namespace deltapipe {

struct CompressionSwitchOptions {
  /// A number of steps, or kCompressByDecision.
  int64_t compress_after_step = kCompressByDecision;
  double beta2 = 0.999;  // the optimizer's
  double variance_change = 0.05;
  double coefficient_spread = 0.1;
  double max_share_at_limit = 0.5;
  double min_variance_ratio = 1.0 / 16;
  double max_variance_ratio = 4;
  int num_checks = 3;
};

class CompressionSwitch {
 public:
  /// INVALID_ARGUMENT names an option that is out of range.
  static absl::StatusOr<CompressionSwitch> Create(
      const CompressionSwitchOptions& options);

  bool is_on() const { return is_on_; }

  /// Whether Update must be called after `step`, counted from 0.
  bool WantsEvidence(int64_t step) const;

  /// Takes the squared norm of the mean gradient that a step has applied,
  /// clipped as it was; before that step's Update. Not for steps that were
  /// skipped.
  void Observe(double squared_norm);

  /// Takes the evidence after `step`, summed over the stages. Returns a
  /// sentence with the evidence if that turns the switch, else "".
  std::string Update(int64_t step, const CompressionEvidence& evidence);

  /// What a checkpoint keeps, and gives back: a resumed run then decides as one
  /// that was not interrupted. A state without s, as written before there was
  /// one, is taken too: s then begins at the next check. INVALID_ARGUMENT for
  /// anything else than what ExportState gave.
  std::vector<double> ExportState() const;
  absl::Status ImportState(absl::Span<const double> state);

 private:
  explicit CompressionSwitch(const CompressionSwitchOptions& options);
  std::string Turn(bool on, int64_t step, const std::string& reason);
  std::string CheckSettled(int64_t step, const CompressionEvidence& evidence);
  std::string CheckOutdated(int64_t step, const CompressionEvidence& evidence);

  CompressionSwitchOptions options_;
  int64_t check_interval_;  // steps
  bool is_on_ = false;
  int num_agreeing_checks_ = 0;
  std::vector<double> variance_sums_;  // off: of the last checks, newest last
  /// On: s. Unknown at first after a state that did not have it.
  std::optional<double> fresh_variance_sum_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_COMPRESSION_SWITCH_H_
