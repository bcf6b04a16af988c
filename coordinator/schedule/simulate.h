// Simulates one step of a pipeline: how long it takes, who waits, who is full.
//
// Discrete events over the very programs that the engine would run: each stage
// computes on one thread; each boundary and direction has an encoder, a
// full-duplex FIFO link and a decoder, which overlap with compute and with each
// other, one micro-batch at a time each. A send hands over at once; a receive
// waits until its tensor is decoded. After its REDUCE a stage waits for the
// slowest stage's (the verdict over the global norm), then applies.
//
// Where steps follow each other without a flush, REDUCE and what follows it
// run beside compute, APPLY waits for their end, and the figures are those of
// one step of many.
//
// Pure and deterministic; time is linear in the number of instructions.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_SIMULATE_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_SIMULATE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/schedule/schedule.h"

namespace deltapipe {

/// Seconds per micro-batch; reduce and apply are per step.
struct StageModel {
  double forward_seconds = 0;
  double backward_seconds = 0;
  double reduce_seconds = 0;
  double apply_seconds = 0;
};

/// One direction of a boundary, per micro-batch.
struct DirectionModel {
  double bytes = 0;
  double encode_seconds = 0;
  double decode_seconds = 0;
};

/// Boundary b, between stages b and b + 1.
struct LinkModel {
  /// 0 is unlimited.
  double bits_per_second = 0;
  /// One way.
  double latency_seconds = 0;
  DirectionModel activation;
  DirectionModel gradient;

  double WireSeconds(const DirectionModel& direction) const {
    return bits_per_second > 0 ? direction.bytes * 8 / bits_per_second : 0;
  }
};

struct PipelineModel {
  std::vector<StageModel> stages;
  std::vector<LinkModel> links;  // stages - 1
  /// From the slowest stage's REDUCE until all may APPLY.
  double verdict_seconds = 0;
};

/// A span of compute, for timelines.
struct ComputeSpan {
  Step step;
  double begin_seconds = 0;
  double end_seconds = 0;
};

struct StageSimulation {
  double busy_seconds = 0;  // computing
  double idle_seconds = 0;  // the rest of the step
  int peak_in_flight = 0;
  /// FORWARD, BACKWARD, REDUCE and APPLY; empty unless asked for.
  std::vector<ComputeSpan> spans;
};

struct LinkSimulation {
  double activation_busy_seconds = 0;
  double gradient_busy_seconds = 0;
};

struct Simulation {
  double step_seconds = 0;
  /// Mean over the stages of idle / step.
  double bubble = 0;
  std::vector<StageSimulation> stages;
  std::vector<LinkSimulation> links;
};

/// FAILED_PRECONDITION if the programs deadlock or receive in another order
/// than was sent; INVALID_ARGUMENT if model and programs differ in size.
absl::StatusOr<Simulation> Simulate(const std::vector<Program>& programs,
                                    const PipelineModel& model,
                                    bool keep_spans = false);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_SIMULATE_H_
