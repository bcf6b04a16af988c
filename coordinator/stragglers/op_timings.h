// StepTimings: how long each piece of work of a sampled step took, on every
// worker: the input of what_if.h and straggler_detector.h.
//
// Compute is measured without waiting for inputs, and everything before the
// gradient collective is entered: within it all workers are equally late, so
// that a straggler no longer shows. Plain data, thread-compatible.
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_OP_TIMINGS_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_OP_TIMINGS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deltapipe {

/// Of one stage of one replica, in one step. Vectors are indexed by the
/// replica's micro-batch; one that is empty counts as all 0.
struct WorkerTimings {
  /// Compute; as many as micro-batches were executed.
  std::vector<double> forward_seconds;
  std::vector<double> backward_seconds;
  /// For which it read inputs or targets: all of a step's before its first
  /// forward.
  std::vector<double> load_seconds;
  /// For which a link was busy: activations to the next stage, gradients to the
  /// one before.
  std::vector<double> activation_send_seconds;
  std::vector<double> gradient_send_seconds;
  /// From entering the gradient collective until it was done. The last replica
  /// that enters waits for none.
  double reduce_seconds = 0;
};

struct StepTimings {
  int64_t step = 0;
  int num_stages = 0;
  int num_replicas = 0;
  /// rank = stage * num_replicas + replica.
  std::vector<WorkerTimings> workers;

  const WorkerTimings& At(int stage, int replica) const {
    return workers[static_cast<size_t>(stage) * num_replicas + replica];
  }
  WorkerTimings& At(int stage, int replica) {
    return workers[static_cast<size_t>(stage) * num_replicas + replica];
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_OP_TIMINGS_H_
