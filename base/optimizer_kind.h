// What the kinds of optimizers (train.optimizer.kind) have in common, for those
// who plan a job and those who run it.
#ifndef DELTAPIPE_BASE_OPTIMIZER_KIND_H_
#define DELTAPIPE_BASE_OPTIMIZER_KIND_H_

#include "absl/strings/string_view.h"

namespace deltapipe {

/// Whether it compresses what replicas synchronise, after compress_after_step.
inline bool IsCompressingKind(absl::string_view kind) {
  return kind == "onebit_adam" || kind == "onebit_lamb" ||
         kind == "zero_one_adam";
}

/// Whether one goes on with what the other has kept (Optimizer::ImportState).
inline bool HaveSameState(absl::string_view a, absl::string_view b) {
  const auto is_adam = [](absl::string_view kind) {
    return kind == "adam" || kind == "adamw";
  };
  return a == b || (is_adam(a) && is_adam(b));
}

/// Whether replicas can share out its state (train.optimizer.shard_state):
/// where each element is updated by itself, or by norms that are easily summed.
inline bool CanShardState(absl::string_view kind) {
  return kind == "sgd" || kind == "adam" || kind == "adamw" || kind == "lamb";
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_OPTIMIZER_KIND_H_
