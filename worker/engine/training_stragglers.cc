// Steps in which a replica leaves out its last micro-batches (DropCompute,
// arXiv 2306.10598): who decides, who is told, and by what averages are
// divided.
#include <numeric>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"
#include "worker/engine/training_step.h"

namespace deltapipe {

absl::Status Training::MakeStragglerControl(const std::string& policy) {
  stragglers_ = nullptr;
  if (!is_first() || policy != "drop") return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(stragglers_, StragglerControl::Create(
                                       policy, options_.assignment, replica_));
  return absl::OkStatus();
}

bool Training::MayLeaveOut() const {
  return tuning_.straggler_policy() == "drop";
}

bool Training::Admit(int microbatch) {
  return stragglers_ == nullptr || stragglers_->Admit(microbatch);
}

void Training::EndBefore(int microbatch, StepState* state) {
  state->end = microbatch;
  if (!is_last()) {
    next_->EndStep(static_cast<uint32_t>(state->step),
                   static_cast<uint32_t>(microbatch));
  }
}

absl::Status Training::WeightByWork(absl::Span<float> gradients,
                                    StepState* state) {
  const int planned = plan_.num_microbatches();
  state->executed.assign(static_cast<size_t>(num_replicas_), planned);
  if (!MayLeaveOut()) return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(
      const auto gathered,
      replicas_->AllGather(static_cast<uint32_t>(state->step), kWorkPhase,
                           {static_cast<double>(state->end)}, WaitDeadline()));
  for (size_t replica = 0; replica < gathered.size(); ++replica) {
    state->executed[replica] = static_cast<int>(gathered[replica][0]);
  }
  const int total =
      std::accumulate(state->executed.begin(), state->executed.end(), 0);
  if (total == planned * num_replicas_) return absl::OkStatus();
  if (total < 1) {
    return absl::InternalError("no replica has done a micro-batch");
  }
  // Each micro-batch was weighted as one of `planned`, and the synchronisation
  // divides by the replicas.
  const float weight =
      static_cast<float>(planned * num_replicas_) / static_cast<float>(total);
  for (float& gradient : gradients) gradient *= weight;
  return absl::OkStatus();
}

void Training::Delay(int microbatch, bool is_forward, double seconds,
                     const StepState& state) {
  if (injected_.is_none()) return;
  const double extra =
      injected_.ExtraSeconds(replica_, state.step, microbatch, seconds,
                             /*part=*/2 * stage_index_ + (is_forward ? 0 : 1));
  Clock* const clock = Clock::Real();
  clock->SleepUntil(clock->Now() + FromSeconds(extra), &cancelled_);
}

absl::Status Training::ObserveReplicas(
    const std::vector<std::vector<double>>& by_replica) {
  DP_RETURN_IF_ERROR(stragglers_->Observe(by_replica));
  // All replicas come to the same; one says so.
  if (replica_ != 0) return absl::OkStatus();
  const std::string state = stragglers_->report().state();
  if (state != straggler_state_) {
    LOG_INFO << "stragglers: " << state;
    straggler_state_ = state;
  }
  return absl::OkStatus();
}

void Training::FinishWork(const StepState& state) {
  if (stragglers_ != nullptr) stragglers_->EndStep(state.end);
  cursors_->Advance(state.step, state.executed);
  const int64_t planned = int64_t{plan_.num_microbatches()} * num_replicas_;
  const int64_t done =
      std::accumulate(state.executed.begin(), state.executed.end(), int64_t{0});
  samples_dropped_ += state.is_skipped
                          ? spec_.train().batch()
                          : (planned - done) * plan_.microbatch_samples();
}

}  // namespace deltapipe
