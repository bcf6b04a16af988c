#include "worker/stragglers/drop_budget.h"

#include <algorithm>
#include <cmath>

namespace deltapipe {

int64_t DropBudget::Begin(int64_t step, int num_planned, int num_replicas,
                          int rank) {
  while (!steps_.empty() && steps_.back().step >= step) steps_.pop_back();
  while (!steps_.empty() && steps_.front().step <= step - window_steps_) {
    steps_.pop_front();
  }
  const double num_known = static_cast<double>(steps_.size());
  double left = max_share_ * (num_known + 1);
  for (const Step& earlier : steps_) left -= earlier.dropped_share;
  // A sum of shares may miss a whole number by a rounding error.
  const auto left_microbatches = static_cast<int64_t>(
      std::floor(std::max(0.0, left) * num_planned + 1e-9));
  // The remainder goes to other replicas in each step.
  const int64_t turn = (rank + step) % num_replicas;
  const int64_t part = left_microbatches / num_replicas +
                       (turn < left_microbatches % num_replicas ? 1 : 0);
  const double planned = std::max(1, num_planned);
  steps_.push_back(
      {step, planned, static_cast<double>(left_microbatches) / planned});
  return part;
}

void DropBudget::Record(int64_t step, int num_dropped) {
  const auto found = std::lower_bound(
      steps_.begin(), steps_.end(), step,
      [](const Step& s, int64_t wanted) { return s.step < wanted; });
  if (found == steps_.end() || found->step != step) return;
  found->dropped_share = num_dropped / found->planned;
}

}  // namespace deltapipe
