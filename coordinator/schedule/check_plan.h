// CheckPlan: proves that a plan can be run, before anyone runs it.
//
// Called by BuildPlan on every plan that it makes. It trusts nothing in the
// message. In this order it proves that
//
// - stages and layers are numbered without gaps;
//
// - every instruction is one that its stage may have, and each micro-batch is
// loaded, received, computed forward, sent, and backward likewise, exactly once
// and in that order; REDUCE follows every BACKWARD, APPLY is the last;
//
// - no stage holds more micro-batches than its max_in_flight, nor more bytes
// than the memory budget;
//
// - each boundary carries, in each direction, what its receiver expects, in the
// same order;
//
// - the stages never wait for each other in a circle, with channels of the
// given capacity;
//
// - where steps follow each other without a flush (2bw): all this for four
// steps in a row, in whose errors instructions and micro-batches are numbered
// on; and each FORWARD follows the update that made its weights, each REDUCE
// the APPLY before it;
//
// - if a replica may end its step early (may_end_early), or have another number
// of micro-batches than the others (max_microbatches): the same for every
// number k of micro-batches that it may have done. Each stage then begins its
// micro-batches in their order, and in place of micro-batch k the word of the
// end travels down the stages.
//
// An error reads: "plan refused: stage 2, instruction 14 (BACKWARD of
// micro-batch 3): runs before its FORWARD".
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_CHECK_PLAN_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_CHECK_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct PlanLimits {
  /// Messages that a boundary holds per direction before a send blocks: the
  /// encoder's queue, the wire and the receiver's queue together.
  int64_t channel_capacity = INT64_MAX;
  /// Of saved activations, for each stage.
  int64_t memory_budget_bytes = INT64_MAX;
  /// Saved for the backward pass per micro-batch, by stage; empty: 0.
  std::vector<int64_t> saved_bytes;
  /// Whether the first stage may leave out the last micro-batches of a step.
  bool may_end_early = false;
};

/// INVALID_ARGUMENT: names stage, instruction and reason.
/// FAILED_PRECONDITION: deadlock; names who waits for whom.
/// RESOURCE_EXHAUSTED: the memory budget; names stage and bytes.
absl::Status CheckPlan(const v1::Plan& plan, const PlanLimits& limits = {});

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_CHECK_PLAN_H_
