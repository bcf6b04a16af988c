// StragglerMemory: what a coordinator that is started again has to know so that
// stragglers stay named while their job trains on: the findings, and where a
// stage has one replica, the first steps that each worker is compared with.
//
// Its text is JSON, kept by the job store as it is; timings of steps are not in
// it, new ones come with the next samples. Plain data, thread-compatible.
//
//   store(StragglerMemoryText(memory));   // and after a restart:
//   DP_ASSIGN_OR_RETURN(StragglerMemory memory,
//                       ReadStragglerMemory(text, num_stages, num_replicas));
//   DP_RETURN_IF_ERROR(watch.Restore(memory));
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_MEMORY_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/stragglers/straggler_detector.h"
#include "coordinator/stragglers/what_if.h"

namespace deltapipe {

struct StragglerMemory {
  /// Of the workers; those of another one are other machines.
  uint64_t generation = 0;
  /// The last sampled step; -1: none yet, and then nothing is known.
  int64_t last_step = -1;
  std::vector<StragglerFinding> findings;
  /// When each was found, on the wall clock.
  std::vector<int64_t> found_millis;
  std::vector<StragglerBaseline> baselines;
  std::optional<WhatIfReport> report;
};

/// Empty if nothing is known.
std::string StragglerMemoryText(const StragglerMemory& memory);

/// DATA_LOSS: no such text, or one of another plan.
absl::StatusOr<StragglerMemory> ReadStragglerMemory(const std::string& text,
                                                    int num_stages,
                                                    int num_replicas);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_MEMORY_H_
