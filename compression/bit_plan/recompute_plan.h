// Bits for tensors, and layers that are computed again in the backward pass in
// place of keeping theirs: the least variance within a budget of bytes and of
// time.
//
// A layer that is computed again keeps its input as it is, adds no variance and
// costs its forward pass, a third of what it takes in a step. In its backward
// pass all it saves is alive for a moment, of one layer of one micro-batch at a
// time, when what that micro-batch kept for the head and for later layers is
// gone: a worker needs room for the rest once, whatever is in flight. Pure
// functions, for policies.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_RECOMPUTE_PLAN_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_RECOMPUTE_PLAN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/bit_plan/policy_state.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/bit_plan/tensor_bits.h"

namespace deltapipe {

struct RecomputeQuestion {
  /// Tensors go to layers by SavedTensor::layer.
  TensorBitsQuestion tensors;
  /// In the order of forward passes.
  absl::Span<const SavedRoom::Layer> layers;
  /// At most so many of `layers` are computed again.
  int most_layers = 0;
  /// As SavedRoom has them.
  int in_flight = 1;
  int64_t head_bytes = 0;
  /// Of one micro-batch, what may wait in host memory (offload_plan.h).
  int64_t host_bytes = 0;
};

struct RecomputePlan {
  /// Of tensors of layers that are not computed again.
  std::map<std::string, PlannedTensor> planned;
  /// In the order of the question's.
  std::vector<std::string> recomputed;
};

/// How many of `num_layers` may be computed again for `slowdown`, a share of
/// the time of a step without.
int LayersForSlowdown(int num_layers, double slowdown);

/// Within `budget_bytes`, of one micro-batch, for what is packed, for inputs of
/// layers and for its share of what a layer that is computed again takes on top
/// of that: less head_bytes and what the plan keeps of later layers, which are
/// given back by then, as far as what comes back from the host does not fill
/// that room. What recomputed layers would have kept as it is
/// (Layer::exempt_bytes) is room won, and so is host_bytes. A budget below 0
/// can be met by such room alone. Layers are tried in two orders: those that
/// cost most first, and those that take most first. Of plans that are within
/// 5 % of the least cost the one with the fewest recomputed layers; of those
/// that cost as much, the second order's. RESOURCE_EXHAUSTED if even the lowest
/// levels do not fit.
absl::StatusOr<RecomputePlan> PlanWithRecompute(
    const RecomputeQuestion& question, int64_t budget_bytes);

/// The smallest budget that PlanWithRecompute has an answer for; below 0 where
/// recomputed layers win more room than the others need.
int64_t LeastBudget(const RecomputeQuestion& question);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_RECOMPUTE_PLAN_H_
