// What the parts of Training share: the state of one step, and the numbers of
// the scalar exchanges.
#ifndef DELTAPIPE_WORKER_ENGINE_TRAINING_STEP_H_
#define DELTAPIPE_WORKER_ENGINE_TRAINING_STEP_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "worker/engine/training.h"

namespace deltapipe {

using SteadyClock = std::chrono::steady_clock;

inline double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

inline Nanos FromSeconds(double seconds) {
  return std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(seconds));
}

inline int64_t WallNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// One that ends now.
inline void AddSpan(const std::string& name, const std::string& thread,
                    int microbatch, int64_t begin_nanos, v1::StepTrace* trace) {
  v1::TraceSpan* span = trace->add_spans();
  span->set_name(name);
  span->set_microbatch(microbatch);
  span->set_thread(thread);
  span->set_begin_nanos(begin_nanos);
  span->set_end_nanos(WallNanos());
}

/// Whether what happens every so many steps does after `done` of them; 0:
/// never.
inline bool IsDue(int64_t done, int64_t every) {
  return every > 0 && done % every == 0;
}

// Phases of the scalar exchanges, so that a message out of turn is noticed.
inline constexpr uint32_t kNormPhase = 1;
inline constexpr uint32_t kStopPhase = 2;
inline constexpr uint32_t kVerifyPhase = 3;
inline constexpr uint32_t kBarrierPhase = 4;
inline constexpr uint32_t kModelPhase = 5;
inline constexpr uint32_t kValidatePhase = 6;
inline constexpr uint32_t kPausePhase = 7;
inline constexpr uint32_t kRestorePhase = 8;
inline constexpr uint32_t kWorkPhase = 9;
inline constexpr uint32_t kGroupsPhase = 20;
inline constexpr uint32_t kShardNormPhase = 21;
inline constexpr uint32_t kLatencyPhase = 22;
inline constexpr uint32_t kTiedPhase = 23;
inline constexpr uint32_t kShardSumsPhase = 24;

struct Training::StepState {
  int64_t step = 0;
  SteadyClock::time_point begin = SteadyClock::now();
  std::vector<Microbatch> batch;   // by micro-batch of this replica
  std::vector<int64_t> positions;  // likewise: SlotCursors
  int end = 0;                     // micro-batches from here on are left out
  std::vector<int> executed;       // micro-batches by replica
  std::map<int, TensorRef> received_activations;
  std::map<int, TensorRef> received_gradients;
  std::map<int, TensorRef> activations;
  std::map<int, TensorRef> gradients;
  double loss_sum = 0;      // over micro-batches
  double data_seconds = 0;  // for the batch
  double forward_seconds = 0;
  double backward_seconds = 0;
  double optimizer_seconds = 0;  // in reduce_seconds, or beside the next step
  double wait_seconds = 0;
  double reduce_seconds = 0;
  double replica_squared_norm = 0;  // of this replica's own gradient
  double own_squared_norm = 0;      // its mean over the replicas of this stage
  double gradient_norm = 0;
  int64_t weight_delay = 0;  // of what its micro-batches were computed on
  bool is_skipped = false;
  double gradient_scale = 1;  // LossScale, as the step began
  SyncFormat format = SyncFormat::kPlain;
  absl::Span<const float> synchronised;  // what the optimizer asked for
  bool excludes_rows = false;            // from the synchronisation
  absl::Span<float> flat_gradient;       // the stage's, once that began
  bool began_early = false;              // it began in the last backward
  int64_t sync_begin_nanos = 0;          // then, on the wall clock
  double early_seconds = 0;              // from then to the backward's end
  uint64_t weights_hash = 0;
  v1::StepTrace trace;  // if somebody asked for it
  bool is_traced = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_TRAINING_STEP_H_
