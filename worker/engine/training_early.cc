// Gradients that travel while the step's last backward still runs: those of
// late layers are final before those of early ones.
//
// The last Backward of a step tells which elements are final; each report first
// goes into the norm of this replica's own gradient, since the mean will
// overwrite it, then through the optimizer, which makes of it what is
// synchronised, and then to GradientSync, whose thread does the rest. Only
// where nothing else comes between a gradient and its synchronisation: see
// MayStartEarly.
//
// What the stage shares with others (tied weights) waits for REDUCE: it lies
// apart, behind what goes early, and has an optimizer and a group of its own.
#include <algorithm>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "base/status_macros.h"
#include "worker/engine/own_norm.h"
#include "worker/engine/training_step.h"
#include "worker/optim/ranges_at.h"

namespace deltapipe {
namespace {

/// Of the first `num_final` elements of `order`, those before `end`.
int64_t NumBefore(int64_t end, absl::Span<const ElementRange> order,
                  int64_t num_final) {
  int64_t num = 0;
  for (const ElementRange& range : RangesAt(order, 0, num_final)) {
    num += std::max<int64_t>(std::min(range.end, end) - range.begin, 0);
  }
  return num;
}

}  // namespace

std::vector<ElementRange> Training::SyncOrder() const {
  std::vector<ElementRange> order;
  const int64_t end = layout().tied_begin();
  for (const ElementRange& range : versions_->newest()->gradient_order()) {
    const ElementRange own = {range.begin, std::min(range.end, end)};
    if (own.begin < own.end) order.push_back(own);
  }
  return order;
}

bool Training::IsForEarlyStarts() const {
  return num_replicas_ > 1 && !is_continuous() && !shards_state_;
}

bool Training::MayStartEarly(int microbatch, const StepState& state) const {
  // A replica that leaves out work knows which backward was its last, and the
  // weight of its gradients, only when the others have told theirs.
  if (!IsForEarlyStarts() || MayLeaveOut() ||
      !optimizer_->Synchronizes(state.step)) {
    return false;
  }
  int last = -1;
  for (const v1::Instruction& instruction :
       plan_.stages(stage_index_).instructions()) {
    if (instruction.kind() == v1::Instruction::BACKWARD &&
        instruction.microbatch() < state.end) {
      last = instruction.microbatch();
    }
  }
  return microbatch == last;
}

absl::StatusOr<TensorRef> Training::LastBackward(int microbatch,
                                                 const TensorRef& gradient,
                                                 StepState* state) {
  Stage* const stage = versions_->Of(state->step);
  const std::vector<ElementRange> order = stage->gradient_order();
  const std::vector<ElementRange> sync_order = SyncOrder();
  std::optional<OwnNorm> norm;
  int64_t num_taken = 0;  // of sync_order
  const auto take = [&](int64_t num_final) {
    if (num_final <= num_taken) return;
    for (const ElementRange& range :
         RangesAt(sync_order, num_taken, num_final)) {
      optimizer_->TakeGradient(range);
    }
    num_taken = num_final;
    sync_->Ready(num_final);
  };
  const bool can_tell = stage->WatchNextBackward([&](int64_t num_final) {
    norm->Add(num_final);
    take(NumBefore(layout().tied_begin(), order, num_final));
  });
  if (!can_tell) return stage->Backward(microbatch, gradient);

  const absl::Span<float> gradients = stage->gradients();
  norm.emplace(stage->parameters(), gradients, order);
  DP_RETURN_IF_ERROR(WeightByWork(gradients, state));  // by nothing
  const absl::Span<const float> weights = versions_->newest()->weights();
  const SyncRequest request =
      optimizer_->PrepareEarly(state->step, LearningRateAt(state->step),
                               Owned(weights), Owned(gradients));
  state->format = request.format;
  state->synchronised = request.values;
  state->excludes_rows = !request.excluded.empty();
  DP_RETURN_IF_ERROR(
      sync_->BeginEarly(static_cast<uint32_t>(state->step), request));
  state->began_early = true;
  state->flat_gradient = gradients;
  state->sync_begin_nanos = WallNanos();
  const SteadyClock::time_point begin = SteadyClock::now();
  absl::StatusOr<TensorRef> result = stage->Backward(microbatch, gradient);
  if (!result.ok()) {
    sync_->Abandon(result.status());
    return result;
  }
  state->early_seconds = SecondsSince(begin);
  state->replica_squared_norm = norm->Sum();
  take(layout().tied_begin());
  return result;
}

}  // namespace deltapipe
