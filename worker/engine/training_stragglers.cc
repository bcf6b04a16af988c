// Steps in which a replica leaves out its last micro-batches (DropCompute,
// arXiv 2306.10598), or has more of them or fewer than others: who decides, who
// is told, and by what averages are divided.
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
#include "worker/engine/training_step.h"

namespace deltapipe {

absl::Status Training::MakeStragglerControl(const std::string& policy) {
  stragglers_ = nullptr;
  if (!is_first() || !(MayDropWork(policy) || MayMoveWork(policy))) {
    return absl::OkStatus();
  }
  DP_ASSIGN_OR_RETURN(stragglers_, StragglerControl::Create(
                                       policy, options_.assignment, replica_));
  return absl::OkStatus();
}

bool Training::MayLeaveOut() const {
  return MayDropWork(tuning_.straggler_policy());
}

bool Training::MayMove() const {
  return MayMoveWork(tuning_.straggler_policy());
}

absl::Status Training::BeginCounts(int64_t step) {
  const bool is_recorded = counts_->BeginStep(step, MayMove());
  if (counts_->all() == last_counts_) return absl::OkStatus();
  DP_RETURN_IF_ERROR(cursors_->SetCounts(counts_->all()));
  const std::vector<int> before = std::move(last_counts_);
  last_counts_ = counts_->all();
  // All workers have the same ones; one says so.
  if (!is_first() || replica_ != 0) return absl::OkStatus();
  v1::Rebalancing* told = report_.add_rebalancings();
  if (MayMove() && !is_recorded) {
    *told = advised_;
  } else {
    told->set_replica(-1);
    told->set_why(is_recorded ? "as they were when the step was first done"
                              : absl::StrCat("the policy is ",
                                             tuning_.straggler_policy()));
  }
  told->set_step(step);
  *told->mutable_before() = {before.begin(), before.end()};
  *told->mutable_after() = {last_counts_.begin(), last_counts_.end()};
  LOG_INFO << "stragglers: from step " << step + 1 << " on replicas have "
           << absl::StrJoin(last_counts_, ", ") << " micro-batches, before "
           << absl::StrJoin(before, ", ") << ": " << told->why();
  return absl::OkStatus();
}

std::vector<double> Training::NextCounts() const {
  if (stragglers_ != nullptr && !stragglers_->next_counts().empty()) {
    return {stragglers_->next_counts().begin(),
            stragglers_->next_counts().end()};
  }
  return {counts_->all().begin(), counts_->all().end()};
}

absl::Status Training::TakeCounts(absl::Span<const double> counts) {
  if (stragglers_ != nullptr && !stragglers_->next_counts().empty()) {
    advised_.set_replica(stragglers_->advised_by());
    advised_.set_why(stragglers_->advice());
  }
  return counts_->Set(std::vector<int64_t>(counts.begin(), counts.end()));
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
  state->executed = counts_->all();
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
  // Each micro-batch was weighted as one of `planned`, whoever did it, and the
  // synchronisation divides by the replicas.
  const float weight =
      static_cast<float>(planned * num_replicas_) / static_cast<float>(total);
  for (float& gradient : gradients) gradient *= weight;
  return absl::OkStatus();
}

void Training::Delay(int microbatch, bool is_forward, double seconds,
                     const StepState& state) {
  if (injected_.is_none()) return;
  DelayBy(
      injected_.ExtraSeconds(replica_, state.step, microbatch, seconds,
                             /*part=*/2 * stage_index_ + (is_forward ? 0 : 1)));
}

void Training::DelayInput() {
  if (!injected_.is_none() && is_first()) {
    DelayBy(injected_.InputSeconds(replica_));
  }
}

void Training::DelayBy(double seconds) {
  if (seconds <= 0) return;
  Clock* const clock = Clock::Real();
  clock->SleepUntil(clock->Now() + FromSeconds(seconds), &cancelled_);
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
