// DropBudget: a hard bound on what all replicas drop, although each of them
// decides alone within a step.
//
// Bound: over any `window_steps` steps in a row, the mean of the steps' dropped
// shares is at most max_share; with the same number of micro-batches in every
// step that is the share of micro-batches dropped.
//
// Scheme: before a step, every replica knows how much was dropped in the
// window's earlier steps from what the replicas exchange. What is left of the
// budget is divided between the replicas, and none drops more than its part in
// this step, so that the sum cannot exceed what was left. Three assumptions
// keep that true where something is not known: a step whose observation has not
// arrived yet counts as if all replicas had used up their parts; so does, with
// max_share, each step before the first one; and parts are whole micro-batches,
// rounded down.
//
// All replicas call in the same order with the same values. Thread-compatible.
//
//   int64_t part = budget.Begin(step, num_planned, num_replicas, my_rank);
//   ... drop at most `part` micro-batches ...
//   budget.Record(step, num_dropped_by_all);
#ifndef DELTAPIPE_WORKER_STRAGGLERS_DROP_BUDGET_H_
#define DELTAPIPE_WORKER_STRAGGLERS_DROP_BUDGET_H_

#include <cstdint>
#include <deque>

namespace deltapipe {

class DropBudget {
 public:
  explicit DropBudget(double max_share, int window_steps = 100)
      : max_share_(max_share), window_steps_(window_steps) {}

  /// Begins a step of `num_planned` micro-batches and returns how many of them
  /// replica `rank` may drop. Steps are begun in order; going back to an
  /// earlier one forgets it and all later ones.
  int64_t Begin(int64_t step, int num_planned, int num_replicas, int rank);

  /// What all replicas dropped in a step that was begun. Steps that left the
  /// window are ignored.
  void Record(int64_t step, int num_dropped);

 private:
  struct Step {
    int64_t step;
    double planned;
    /// At most so much was dropped, as a share of planned.
    double dropped_share;
  };

  const double max_share_;
  const int window_steps_;
  std::deque<Step> steps_;  // the last window_steps_ - 1, and this one
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_DROP_BUDGET_H_
