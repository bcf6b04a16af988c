// One step of the plan: the instructions, then the agreement of all workers on
// norm, verdict, state and whether to stop.
#include "worker/engine/training_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/engine/own_norm.h"
#include "worker/optim/lane_reduction.h"

namespace deltapipe {
namespace {

const char* FailpointBefore(v1::Instruction::Kind kind) {
  switch (kind) {
    case v1::Instruction::RECEIVE_ACTIVATION:
      return "receive-activation";
    case v1::Instruction::FORWARD:
      return "forward";
    case v1::Instruction::SEND_ACTIVATION:
      return "send-activation";
    case v1::Instruction::RECEIVE_GRADIENT:
      return "receive-gradient";
    case v1::Instruction::BACKWARD:
      return "backward";
    case v1::Instruction::SEND_GRADIENT:
      return "send-gradient";
    case v1::Instruction::REDUCE:
      return "reduce";
    case v1::Instruction::APPLY:
      return "apply";
    default:
      return "load";
  }
}

/// More than any loss scale needs on its way down: what is still not finite
/// then stays so.
constexpr int64_t kMostSkippedInARow = 100;

/// Whether the step ends before the instruction's micro-batch.
bool IsLeftOut(const v1::Instruction& instruction, int end) {
  return instruction.kind() != v1::Instruction::REDUCE &&
         instruction.kind() != v1::Instruction::APPLY &&
         instruction.microbatch() >= end;
}

// What each stage tells the others in a step: the hashes of the step before,
// and the figures of this one.
enum Gathered : size_t {
  kPreviousSent,
  kPreviousReceived = kPreviousSent + 2,
  kNextSent = kPreviousReceived + 2,
  kNextReceived = kNextSent + 2,
  kNumHashFigures = kNextReceived + 2,
  kSquaredNorm = kNumHashFigures,
  kOwnSquaredNorm,
  kWishes,
};

/// What a worker tells the others of its wishes: the largest of all holds, so
/// that one is enough; of the tuning, what all have heard.
std::vector<double> AsFigures(const StepAgreement& wishes) {
  return {wishes.stops ? 1.0 : 0.0, wishes.pauses ? 1.0 : 0.0,
          wishes.writes_checkpoint ? 1.0 : 0.0,
          -static_cast<double>(wishes.tuning_revision)};
}

std::vector<double> AsFigures(const CompressionEvidence& evidence) {
  return {evidence.variance_sum, evidence.coefficient_spread_sum,
          evidence.num_coefficients, evidence.num_factors,
          evidence.num_factors_at_limit};
}

CompressionEvidence EvidenceOf(absl::Span<const double> figures) {
  CompressionEvidence evidence;
  evidence.variance_sum = figures[0];
  evidence.coefficient_spread_sum = figures[1];
  evidence.num_coefficients = figures[2];
  evidence.num_factors = figures[3];
  evidence.num_factors_at_limit = figures[4];
  return evidence;
}

StepAgreement AgreeOn(const std::vector<std::vector<double>>& gathered,
                      size_t at) {
  std::vector<double> largest(gathered[0].begin() + static_cast<long>(at),
                              gathered[0].end());
  for (const std::vector<double>& figures : gathered) {
    for (size_t i = 0; i < largest.size(); ++i) {
      largest[i] = std::max(largest[i], figures[at + i]);
    }
  }
  StepAgreement agreed;
  agreed.stops = largest[0] > 0;
  agreed.pauses = largest[1] > 0;
  agreed.writes_checkpoint = largest[2] > 0;
  agreed.tuning_revision = static_cast<uint32_t>(-largest[3]);
  return agreed;
}

}  // namespace

absl::Status Training::RunStep(int64_t step) {
  DP_RETURN_IF_ERROR(BeginCounts(step));
  if (stragglers_ != nullptr) {
    DP_RETURN_IF_ERROR(
        stragglers_->BeginStep(step, tuning_.revision(), counts_->all()));
  }
  const std::unique_ptr<StepState> state = BeginStep(step);
  const auto& instructions = plan_.stages(stage_index_).instructions();
  // Receivers learn at once what the whole step brings, in its order.
  for (const v1::Instruction& instruction : instructions) {
    if (instruction.microbatch() < state->end) Expect(instruction, *state);
  }
  for (const v1::Instruction& instruction : instructions) {
    if (IsLeftOut(instruction, state->end)) continue;
    DP_RETURN_IF_ERROR(Execute(instruction, state.get(), state.get()));
  }
  return TellOfStep(state.get());
}

std::unique_ptr<Training::StepState> Training::BeginStep(int64_t step) {
  auto state = std::make_unique<StepState>();
  state->step = step;
  state->is_traced = options_.send && num_traces_wanted_ > 0;
  if (state->is_traced) --num_traces_wanted_;
  state->end = counts_->of(replica_);
  state->gradient_scale = loss_scale_.scale();
  const auto data_begin = SteadyClock::now();
  for (int mb = 0; mb < state->end; ++mb) {
    const int64_t begin = state->is_traced ? WallNanos() : 0;
    const int64_t slot = cursors_->Slot(step, replica_, mb);
    state->positions.push_back(cursors_->Position(step, slot));
    state->batch.push_back(source_->Train(state->positions.back(), slot));
    DelayInput();
    if (state->is_traced) AddSpan("LOAD", "compute", mb, begin, &state->trace);
  }
  state->data_seconds = SecondsSince(data_begin);
  std::vector<uint64_t> keys;
  for (const Microbatch& batch : state->batch) {
    for (const BoundarySample& sample : batch.samples) {
      keys.push_back(sample.key);
    }
  }
  for (BoundaryEnd* end : {previous_.get(), next_.get()}) {
    if (end != nullptr) end->Announce(keys);
  }
  return state;
}

void Training::Expect(const v1::Instruction& instruction,
                      const StepState& state) {
  const bool is_activation =
      instruction.kind() == v1::Instruction::RECEIVE_ACTIVATION;
  if (!is_activation &&
      instruction.kind() != v1::Instruction::RECEIVE_GRADIENT) {
    return;
  }
  const int mb = instruction.microbatch();
  const Microbatch& batch = state.batch[static_cast<size_t>(mb)];
  const int boundary = is_activation ? stage_index_ - 1 : stage_index_;
  (is_activation ? previous_ : next_)
      ->Expect(static_cast<uint32_t>(state.step), static_cast<uint32_t>(mb),
               batch.samples, false, ElementsAt(boundary, batch.image_size));
}

absl::Status Training::TellOfStep(StepState* state) {
  Failpoint("step-done");
  FinishWork(*state);
  UpdateLossScale(*state);
  // In fp16 that is the loss scale's fault, as a rule.
  if (state->is_skipped && !loss_scale_.is_used()) {
    for (SavedActivations* saved : AllSavedActivations()) {
      saved->NoteNotFinite(state->step);
    }
  }
  Report(*state);
  Failpoint("step-told");
  if (state->is_traced) SendTrace(state);
  skipped_in_a_row_ = state->is_skipped ? skipped_in_a_row_ + 1 : 0;
  if (skipped_in_a_row_ < kMostSkippedInARow) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the gradients of ", skipped_in_a_row_, " steps in a row, up to step ",
      state->step + 1,
      ", were not finite and were left out: training has diverged; checkpoints "
      "are of before, go on from one or begin anew with a lower "
      "train.optimizer.learning_rate or train.clip_norm",
      loss_scale_.is_used() ? ", a lower train.loss_scale or bf16" : ""));
}

void Training::SendTrace(StepState* state) {
  v1::WorkerMessage message;
  state->trace.set_job_id(options_.assignment.job_id());
  state->trace.set_generation(options_.assignment.generation());
  state->trace.set_step(state->step);
  *message.mutable_trace() = std::move(state->trace);
  options_.send(std::move(message));
}

absl::Status Training::Execute(const v1::Instruction& instruction,
                               StepState* state, StepState* program) {
  const int64_t begin = state->is_traced ? WallNanos() : 0;
  const absl::Status status = ExecuteUntraced(instruction, state, program);
  // What a step loads was traced as it began. What is begun early is of its own
  // step, so that each micro-batch is in one trace, once.
  if (state->is_traced && instruction.kind() != v1::Instruction::LOAD) {
    AddSpan(v1::Instruction::Kind_Name(instruction.kind()), "compute",
            instruction.microbatch(), begin, &state->trace);
  }
  if (status.ok()) return status;
  std::string what =
      absl::StrCat(v1::Instruction::Kind_Name(instruction.kind()),
                   " of micro-batch ", instruction.microbatch());
  // Two steps are under way.
  if (is_continuous()) absl::StrAppend(&what, " of step ", state->step + 1);
  return Annotate(status, what);
}

absl::Status Training::ExecuteUntraced(const v1::Instruction& instruction,
                                       StepState* state, StepState* program) {
  const int mb = instruction.microbatch();
  const uint32_t step = static_cast<uint32_t>(state->step);
  const uint32_t wire_mb = static_cast<uint32_t>(mb);
  const auto begin = SteadyClock::now();
  Failpoint(FailpointBefore(instruction.kind()));
  switch (instruction.kind()) {
    case v1::Instruction::LOAD:
      return absl::OkStatus();  // the whole step is loaded at once
    case v1::Instruction::RECEIVE_ACTIVATION: {
      DP_ASSIGN_OR_RETURN(auto activation,
                          previous_->Await(step, wire_mb, false));
      state->wait_seconds += SecondsSince(begin);
      if (activation.has_ended) {
        EndBefore(mb, state);
      } else {
        state->received_activations[mb] = std::move(activation.tensor);
      }
      return absl::OkStatus();
    }
    case v1::Instruction::FORWARD: {
      if (is_first() && !Admit(mb)) {
        EndBefore(mb, state);
        return absl::OkStatus();
      }
      const Microbatch& batch = state->batch[static_cast<size_t>(mb)];
      std::vector<uint64_t> keys;
      for (const BoundarySample& sample : batch.samples) {
        keys.push_back(sample.key);
      }
      StageInput input;
      input.microbatch = mb;
      input.step = state->step;
      input.stage = stage_index_;
      input.epoch = state->positions[static_cast<size_t>(mb)] /
                    source_->steps_per_epoch();
      input.num_samples = static_cast<int64_t>(batch.samples.size());
      input.sample_keys = keys;
      input.tokens = batch.tokens;
      input.targets = batch.targets;
      input.loss_scale = 1.0f / static_cast<float>(plan_.num_microbatches());
      input.gradient_scale = static_cast<float>(state->gradient_scale);
      if (!is_first()) {
        input.activation = std::move(state->received_activations[mb]);
        state->received_activations.erase(mb);
      }
      StageOutput output;
      DP_RETURN_IF_ERROR(versions_->Of(state->step)->Forward(input, &output));
      state->weight_delay = versions_->DelayOf(state->step);
      if (is_last()) {
        state->loss_sum += output.loss;
      } else {
        state->activations[mb] = std::move(output.activation);
      }
      Delay(mb, /*is_forward=*/true, SecondsSince(begin), *state);
      state->forward_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::SEND_ACTIVATION:
      next_->Send(step, wire_mb, state->batch[static_cast<size_t>(mb)].samples,
                  std::move(state->activations[mb]), false);
      state->activations.erase(mb);
      return absl::OkStatus();
    case v1::Instruction::RECEIVE_GRADIENT: {
      DP_ASSIGN_OR_RETURN(auto gradient, next_->Await(step, wire_mb, false));
      state->received_gradients[mb] = std::move(gradient.tensor);
      state->wait_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::BACKWARD: {
      TensorRef gradient;
      if (!is_last()) {
        gradient = std::move(state->received_gradients[mb]);
        state->received_gradients.erase(mb);
      }
      absl::StatusOr<TensorRef> input_gradient =
          MayStartEarly(mb, *state)
              ? LastBackward(mb, gradient, state)
              : versions_->Of(state->step)->Backward(mb, gradient);
      DP_RETURN_IF_ERROR(input_gradient.status());
      if (!is_first()) state->gradients[mb] = *std::move(input_gradient);
      Delay(mb, /*is_forward=*/false, SecondsSince(begin), *state);
      if (stragglers_ != nullptr) stragglers_->NoteDone(mb);
      state->backward_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::SEND_GRADIENT:
      previous_->Send(step, wire_mb,
                      state->batch[static_cast<size_t>(mb)].samples,
                      std::move(state->gradients[mb]), false);
      state->gradients.erase(mb);
      return absl::OkStatus();
    case v1::Instruction::REDUCE: {
      if (is_continuous()) {
        StartUpdate(state);
        return absl::OkStatus();
      }
      const absl::Status status = Reduce(state);
      state->reduce_seconds += SecondsSince(begin);
      return status;
    }
    case v1::Instruction::APPLY: {
      if (is_continuous()) return FinishUpdate(program);
      const absl::Status status = Apply(state);
      state->reduce_seconds += SecondsSince(begin);
      return status;
    }
    default:
      return absl::InternalError(absl::StrCat(
          "the plan holds an unknown instruction ", instruction.kind()));
  }
}

absl::Status Training::BeginSync(StepState* state) {
  const uint32_t step = static_cast<uint32_t>(state->step);
  Stage* const stage = versions_->Of(state->step);
  const absl::Span<float> gradients = stage->gradients();  // a copy on GPUs
  DP_RETURN_IF_ERROR(WeightByWork(gradients, state));
  state->replica_squared_norm =
      OwnNorm(stage->parameters(), gradients, {}).Sum();
  const absl::Span<const float> weights = versions_->newest()->weights();
  SyncRequest request =
      optimizer_->Prepare(state->step, LearningRateAt(state->step),
                          Owned(weights), Owned(gradients));
  // Everybody's share is in it.
  if (shards_state_) {
    request.values =
        gradients.first(static_cast<size_t>(layout().tied_begin()));
  }
  state->format = request.format;
  state->synchronised = request.values;
  state->excludes_rows = !request.excluded.empty();
  state->flat_gradient = gradients;
  return request.format == SyncFormat::kNone ? absl::OkStatus()
                                             : sync_->Begin(step, request);
}

absl::Status Training::BeginTiedSync(StepState* state) {
  if (tied_ == nullptr) return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(
      const SyncFormat format,
      tied_->Begin(state->step, LearningRateAt(state->step),
                   versions_->newest()->weights(), state->flat_gradient));
  if (format == state->format) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "tied weights are synchronised in another form than the rest of the "
      "stage: ",
      static_cast<int>(format), ", expected ",
      static_cast<int>(state->format)));
}

absl::Status Training::Reduce(StepState* state) {
  const uint32_t step = static_cast<uint32_t>(state->step);
  const Deadline deadline = WaitDeadline();
  if (!state->began_early) DP_RETURN_IF_ERROR(BeginSync(state));
  DP_RETURN_IF_ERROR(BeginTiedSync(state));
  // What happens after this step is agreed on beside the gradients, and so is
  // their norm: first over the replicas of each stage, then (in Apply) over the
  // stages.
  StepAgreement wishes;
  wishes.stops = is_stop_requested_;
  wishes.pauses = is_pause_requested_;
  const int64_t wanted_after = checkpoint_wanted_after_;
  wishes.writes_checkpoint =
      wanted_after >= last_checkpoint_ && state->step + 1 > wanted_after;
  wishes.tuning_revision = decided_revision_;
  std::vector<double> figures = {state->replica_squared_norm};
  const std::vector<double> wished = AsFigures(wishes);
  figures.insert(figures.end(), wished.begin(), wished.end());
  const size_t num_own = figures.size();
  if (stragglers_ != nullptr) {
    const std::vector<double> observed = stragglers_->figures();
    figures.insert(figures.end(), observed.begin(), observed.end());
  }
  DP_ASSIGN_OR_RETURN(
      auto gathered, replicas_->AllGather(step, kStopPhase, figures, deadline));
  if (stragglers_ != nullptr) {
    std::vector<std::vector<double>> observed;
    for (std::vector<double>& values : gathered) {
      observed.emplace_back(values.begin() + static_cast<long>(num_own),
                            values.end());
      values.resize(num_own);
    }
    DP_RETURN_IF_ERROR(ObserveReplicas(observed));
  }
  for (const std::vector<double>& values : gathered) {
    state->own_squared_norm += values[0] / num_replicas_;
  }
  agreed_ = AgreeOn(gathered, 1);
  if (state->format == SyncFormat::kNone) return absl::OkStatus();
  DP_RETURN_IF_ERROR(sync_->Wait(deadline));
  if (state->is_traced && state->began_early) {
    AddSpan("synchronise", "gradients", /*microbatch=*/0,
            state->sync_begin_nanos, &state->trace);
  }
  if (sync_measure_ != nullptr) {
    sync_measure_->Note(state->format == SyncFormat::kCompressed,
                        state->early_seconds);
  }
  if (state->excludes_rows) optimizer_->Wake(sync_->woken());
  return tied_ == nullptr ? absl::OkStatus() : tied_->Wait(deadline);
}

absl::Status Training::Apply(StepState* state) {
  const uint32_t step = static_cast<uint32_t>(state->step);
  const Deadline deadline = WaitDeadline();
  // Where nothing was synchronised the replicas' own norms are all there is.
  const bool is_synchronised = state->format != SyncFormat::kNone;
  double stage_squared_norm = state->own_squared_norm;
  if (is_synchronised) {
    DP_ASSIGN_OR_RETURN(stage_squared_norm, MeanSquaredNorm(*state, deadline));
  }
  std::vector<double> figures = {stage_squared_norm, state->own_squared_norm};
  const std::vector<double> wished = AsFigures(agreed_);
  figures.insert(figures.end(), wished.begin(), wished.end());
  const size_t counts_at = kNumHashFigures + figures.size();
  if (MayMove()) {
    const std::vector<double> counts = NextCounts();
    figures.insert(figures.end(), counts.begin(), counts.end());
  }
  const size_t evidence_at = kNumHashFigures + figures.size();
  // Of the state after the step before, which this one has not changed yet.
  const bool decides = compression_.has_value() && state->step > 0 &&
                       compression_->WantsEvidence(state->step - 1);
  if (decides) {
    CompressionEvidence mine = optimizer_->Evidence();
    if (tied_ != nullptr) mine += tied_->CountedEvidence();
    const std::vector<double> evidence = AsFigures(mine);
    figures.insert(figures.end(), evidence.begin(), evidence.end());
  }
  DP_ASSIGN_OR_RETURN(auto gathered,
                      GatherFromStages(step, kNormPhase, figures, deadline));
  if (decides) DecideCompression(state->step - 1, evidence_at, &gathered);
  if (MayMove()) {
    DP_RETURN_IF_ERROR(
        TakeCounts(absl::MakeConstSpan(gathered[0])
                       .subspan(counts_at, last_counts_.size())));
  }
  double squared_norm = 0;
  double own_squared_norm = 0;
  for (const std::vector<double>& values : gathered) {
    squared_norm += values[kSquaredNorm];
    own_squared_norm += values[kOwnSquaredNorm];
  }
  agreed_ = AgreeOn(gathered, kWishes);
  state->gradient_norm = gradient_norm_.Update(
      /*is_exact=*/state->format == SyncFormat::kPlain, squared_norm,
      own_squared_norm);
  state->is_skipped = !std::isfinite(state->gradient_norm);
  const absl::Span<float> weights = versions_->BeginUpdate(state->step);
  if (state->is_skipped) {
    if (is_synchronised) {
      DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kAbort));
    }
    optimizer_->Skip();
    if (tied_ != nullptr) DP_RETURN_IF_ERROR(tied_->Skip());
    LOG_WARNING << "step " << state->step + 1
                << " is skipped: the gradient is not finite";
  } else {
    if (is_synchronised) {
      DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kCommit));
    }
    const double limit = spec_.train().clip_norm();
    const double clip = limit > 0 && state->gradient_norm > limit
                            ? limit / state->gradient_norm
                            : 1.0;
    const double rate = LearningRateAt(state->step);
    const auto begin = SteadyClock::now();
    if (compression_.has_value()) {
      const double clipped_norm = clip * state->gradient_norm;
      compression_->Observe(clipped_norm * clipped_norm);
    }
    DP_RETURN_IF_ERROR(
        optimizer_->Apply(state->step, rate, clip, Owned(weights)));
    if (tied_ != nullptr) {
      DP_RETURN_IF_ERROR(tied_->Apply(state->step, rate, clip, weights));
    }
    state->optimizer_seconds = SecondsSince(begin);
    if (shards_state_) {
      DP_RETURN_IF_ERROR(sync_->Gather(
          step, weights.first(static_cast<size_t>(layout().tied_begin())),
          deadline));
    }
  }
  DP_RETURN_IF_ERROR(versions_->EndUpdate(state->step));
  Failpoint("weights-changed");
  // The delta state advances with what was sent, whether or not the step was
  // applied: both ends have it.
  if (previous_ != nullptr) {
    if (!is_continuous()) previous_->CommitStep(step);
    DP_ASSIGN_OR_RETURN(previous_hashes_, previous_->AwaitHashes(step));
  }
  if (next_ != nullptr) {
    if (!is_continuous()) next_->CommitStep(step);
    DP_ASSIGN_OR_RETURN(next_hashes_, next_->AwaitHashes(step));
  }
  due_.verification |= IsDue(state->step + 1, spec_.train().verify_every());
  if (due_.verification && optimizer_->AreReplicasEqual()) {
    due_.verification = false;
    DP_RETURN_IF_ERROR(Verify(state->step, &state->weights_hash));
  }
  return absl::OkStatus();
}

void Training::UpdateLossScale(const StepState& state) {
  const double before = loss_scale_.scale();
  if (!loss_scale_.Update(!state.is_skipped)) return;
  if (is_first() && replica_ == 0) {
    LOG_INFO << "step " << state.step + 1 << ": loss scale " << before << " -> "
             << loss_scale_.scale()
             << (state.is_skipped
                     ? ", since a gradient has overflowed"
                     : ", after as many steps without an overflow");
  }
}

absl::StatusOr<double> Training::MeanSquaredNorm(const StepState& state,
                                                 Deadline deadline) {
  // While compressed the norm is estimated (gradient_norm.h): what arrived only
  // has to tell whether it is finite.
  const double mine =
      state.format == SyncFormat::kCompressed
          ? SumOfSquares(state.synchronised.data(),
                         static_cast<int64_t>(state.synchronised.size()))
          : optimizer_->MeanGradientSquaredNorm();
  const double tied = tied_ == nullptr ? 0 : tied_->CountedSquaredNorm();
  if (!shards_state_) return mine + tied;
  DP_ASSIGN_OR_RETURN(const auto by_replica,
                      replicas_->AllGather(static_cast<uint32_t>(state.step),
                                           kShardNormPhase, {mine}, deadline));
  double sum = tied;
  for (const std::vector<double>& share : by_replica) sum += share[0];
  return sum;
}

void Training::DecideCompression(int64_t step, size_t at,
                                 std::vector<std::vector<double>>* by_stage) {
  CompressionEvidence sum;
  for (std::vector<double>& figures : *by_stage) {
    sum += EvidenceOf(absl::MakeConstSpan(figures).subspan(at));
    figures.resize(at);
  }
  const std::string change = compression_->Update(step, sum);
  if (change.empty()) return;
  optimizer_->SetCompressing(compression_->is_on());
  if (tied_ != nullptr) tied_->SetCompressing(compression_->is_on());
  if (is_first() && replica_ == 0) {
    LOG_INFO << change;
  }
}

absl::StatusOr<std::vector<std::vector<double>>> Training::GatherFromStages(
    uint32_t step, uint32_t phase, const std::vector<double>& figures,
    Deadline deadline) {
  std::vector<double> mine;
  AppendHash(previous_hashes_.sent, &mine);
  AppendHash(previous_hashes_.received, &mine);
  AppendHash(next_hashes_.sent, &mine);
  AppendHash(next_hashes_.received, &mine);
  mine.insert(mine.end(), figures.begin(), figures.end());
  DP_ASSIGN_OR_RETURN(auto gathered,
                      stages_->AllGather(step, phase, mine, deadline));
  DP_RETURN_IF_ERROR(CheckHashes(gathered));
  return gathered;
}

absl::Status Training::CheckHashes(
    const std::vector<std::vector<double>>& gathered) {
  const auto compare = [&](size_t neighbour, size_t mine_at, size_t theirs_at,
                           const char* what) {
    for (size_t i = 0; i < 2; ++i) {
      if (gathered[static_cast<size_t>(stage_index_)][mine_at + i] !=
          gathered[neighbour][theirs_at + i]) {
        return absl::DataLossError(absl::StrCat(
            "the ", what, " state of the boundary between stages ",
            std::min<size_t>(neighbour, static_cast<size_t>(stage_index_)),
            " and ",
            std::max<size_t>(neighbour, static_cast<size_t>(stage_index_)),
            " differs between its two ends after step ", step_.load(),
            ": one of them is damaged; start the job again"));
      }
    }
    return absl::OkStatus();
  };
  if (!is_first()) {
    const size_t other = static_cast<size_t>(stage_index_) - 1;
    DP_RETURN_IF_ERROR(
        compare(other, kPreviousReceived, kNextSent, "activation"));
    DP_RETURN_IF_ERROR(
        compare(other, kPreviousSent, kNextReceived, "gradient"));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
