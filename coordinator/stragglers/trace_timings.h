// From the traces of a step, one of each worker, to its StepTimings.
//
// Compute is what FORWARD and BACKWARD spans last: receives are instructions of
// their own, so that no waiting is in them. LOAD spans are the reading of
// samples, which all stages do as a step begins: what was read of micro-batches
// that were then left out is shared among the others. The REDUCE span is the
// collective. Sends only queue what a link then carries on another thread: how
// long that took is not in a trace and comes from the workers' reports, as a
// mean over their steps. Clocks of different machines are never compared. Pure,
// thread-safe.
//
//   std::vector<WorkerSample> workers = ...;  // by rank
//   DP_ASSIGN_OR_RETURN(StepTimings timings,
//                       TimingsOfTraces(num_stages, num_replicas, workers));
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_TRACE_TIMINGS_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_TRACE_TIMINGS_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/stragglers/op_timings.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

/// What one worker told of a sampled step.
struct WorkerSample {
  v1::StepTrace trace;
  /// For which its link to the next stage, or to the one before, was busy in a
  /// step; none: not known, or there is no such link.
  std::optional<double> activation_send_seconds;
  std::optional<double> gradient_send_seconds;
};

/// `workers` by rank = stage * num_replicas + replica, all of the same step.
/// Micro-batches that were left out (a FORWARD that ended the step, without a
/// BACKWARD) do not count. INVALID_ARGUMENT, with the rank: a number of workers
/// that is not num_stages * num_replicas, another step, a span that ends before
/// it begins, an instruction given twice, or micro-batches that are not 0 to
/// k - 1 with the same k in all stages of a replica.
absl::StatusOr<StepTimings> TimingsOfTraces(
    int num_stages, int num_replicas, absl::Span<const WorkerSample> workers);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_TRACE_TIMINGS_H_
