#include "worker/engine/training.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "worker/checkpoint/model_file.h"
#include "worker/collective/replica_check.h"

namespace deltapipe {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

/// A 64-bit hash travels as two exactly representable numbers.
void AppendHash(uint64_t hash, std::vector<double>* values) {
  values->push_back(static_cast<double>(hash >> 32));
  values->push_back(static_cast<double>(hash & 0xFFFFFFFFu));
}

// What each stage tells the others at the end of a step.
enum Gathered : size_t {
  kSquaredNorm,
  kStop,
  kPreviousSent,
  kPreviousReceived = kPreviousSent + 2,
  kNextSent = kPreviousReceived + 2,
  kNextReceived = kNextSent + 2,
  kNumGathered = kNextReceived + 2,
};

// Phases of the scalar exchanges, so that a message out of turn is noticed.
constexpr uint32_t kNormPhase = 1;
constexpr uint32_t kStopPhase = 2;
constexpr uint32_t kVerifyPhase = 3;
constexpr uint32_t kBarrierPhase = 4;

absl::StatusOr<OptimizerOptions> MakeOptimizerOptions(const v1::JobSpec& spec,
                                                      const v1::Plan& plan) {
  const v1::OptimizerSpec& from = spec.train().optimizer();
  OptimizerOptions options;
  options.kind = from.kind();
  options.momentum = from.momentum();
  options.beta1 = from.beta1();
  options.beta2 = from.beta2();
  options.epsilon = from.epsilon();
  options.weight_decay = from.weight_decay();
  options.compress_after_step = from.compress_after_step();
  if (plan.gradient_codec() == "none" ||
      plan.gradient_codec() == "cast(bf16)") {
    // 1-bit LAMB that never compresses is LAMB.
    options.compress_after_step = std::numeric_limits<int64_t>::max();
  }
  return options;
}

}  // namespace

struct Training::StepState {
  int64_t step = 0;
  SteadyClock::time_point begin = SteadyClock::now();
  std::vector<Microbatch> batch;  // by micro-batch of this replica
  std::map<int, TensorRef> received_activations;
  std::map<int, TensorRef> received_gradients;
  std::map<int, TensorRef> activations;
  std::map<int, TensorRef> gradients;
  double loss = 0;
  double compute_seconds = 0;
  double wait_seconds = 0;
  double reduce_seconds = 0;
  double gradient_norm = 0;
  bool is_skipped = false;
  bool is_compressed = false;
  uint64_t weights_hash = 0;
};

Training::Training(TrainingOptions options)
    : options_(std::move(options)),
      spec_(options_.assignment.spec()),
      plan_(options_.assignment.plan()),
      num_stages_(plan_.num_stages()),
      num_replicas_(plan_.num_replicas()),
      stage_index_(options_.assignment.rank() / num_replicas_),
      replica_(options_.assignment.rank() % num_replicas_) {}

Training::~Training() { Cancel(absl::CancelledError("the job has ended")); }

absl::Status Training::Prepare() {
  BatchSourceOptions data;
  if (spec_.model().kind() == "synthetic") {
    data.synthetic_samples = spec_.model().synthetic().samples();
  } else {
    data.path = spec_.data().path();
    DP_ASSIGN_OR_RETURN(data.limit_bytes, ParseBytes(spec_.data().limit()));
  }
  data.validation = spec_.data().validation();
  data.context = spec_.model().context();
  data.microbatch = plan_.microbatch_samples();
  data.num_slots = plan_.num_microbatches() * plan_.num_replicas();
  data.seed = spec_.seed();
  DP_ASSIGN_OR_RETURN(source_, BatchSource::Create(data));

  DP_ASSIGN_OR_RETURN(stage_, options_.make_stage(options_.assignment));
  DP_ASSIGN_OR_RETURN(const OptimizerOptions optimizer,
                      MakeOptimizerOptions(spec_, plan_));
  DP_ASSIGN_OR_RETURN(optimizer_,
                      Optimizer::Create(optimizer, stage_->parameters()));
  const v1::OptimizerSpec& rate = spec_.train().optimizer();
  learning_rate_.rate = rate.learning_rate();
  learning_rate_.final_rate = rate.learning_rate() * rate.lr_final();
  learning_rate_.warmup_steps = rate.lr_warmup_steps();
  DP_ASSIGN_OR_RETURN(learning_rate_.decay,
                      ParseLearningRateDecay(rate.lr_schedule()));
  return Connect();
}

absl::Status Training::Connect() {
  const v1::Assignment& assignment = options_.assignment;
  const auto max_wait = std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(assignment.wait_seconds()));
  FrameChannelOptions frames;
  frames.generation = assignment.generation();
  frames.verify_checksums = spec_.network().checksums() != "off";
  DP_ASSIGN_OR_RETURN(const ChannelDecorator emulate, EmulatedLinks(spec_));
  const ChannelDecorator& below = options_.decorate;
  const ChannelDecorator decorate = [&](std::unique_ptr<Channel> channel,
                                        int peer) {
    if (below) channel = below(std::move(channel), peer);
    if (emulate) channel = emulate(std::move(channel), peer);
    return channel;
  };
  DP_ASSIGN_OR_RETURN(
      mesh_, Mesh::Connect(assignment, options_.transport, decorate, frames,
                           is_cancelled_, Deadline::After(max_wait)));

  BoundaryEndOptions boundary;
  boundary.elements_per_sample = stage_->boundary_elements();
  boundary.activation_codec = plan_.activation_codec();
  boundary.gradient_codec = plan_.activation_gradient_codec();
  boundary.seed = spec_.seed();
  boundary.generation = assignment.generation();
  boundary.plan_revision = plan_.revision();
  boundary.max_wait = max_wait;
  DP_ASSIGN_OR_RETURN(boundary.state_capacity_bytes,
                      ParseBytes(spec_.compression().state_memory()));
  const auto make_end = [&](int other_stage, bool is_upstream,
                            std::unique_ptr<FrameChannel> channel)
      -> absl::StatusOr<std::unique_ptr<BoundaryEnd>> {
    boundary.boundary = std::min(other_stage, stage_index_);
    boundary.is_upstream = is_upstream;
    boundary.peer =
        PeerName(assignment.peers(other_stage * num_replicas_ + replica_));
    return BoundaryEnd::Create(boundary, std::move(channel));
  };
  if (!is_first()) {
    DP_ASSIGN_OR_RETURN(previous_, make_end(stage_index_ - 1, false,
                                            std::move(mesh_.previous_stage)));
  }
  if (!is_last()) {
    DP_ASSIGN_OR_RETURN(
        next_, make_end(stage_index_ + 1, true, std::move(mesh_.next_stage)));
  }
  const auto group =
      [](int rank, const std::vector<std::unique_ptr<FrameChannel>>& owned) {
        std::vector<FrameChannel*> channels;
        for (const auto& channel : owned) channels.push_back(channel.get());
        return std::make_unique<RankGroup>(rank, std::move(channels));
      };
  stages_ = group(stage_index_, mesh_.stage_scalars);
  replicas_ = group(replica_, mesh_.replica_scalars);
  gradient_group_ = group(replica_, mesh_.gradients);

  GradientSyncOptions sync;
  const std::string& codec = plan_.gradient_codec();
  if (codec == "none" || codec == "cast(bf16)") {
    sync.plain_codec = codec;
  } else {
    sync.compressed_codec = codec;
  }
  sync.seed = spec_.seed();
  sync.generation = assignment.generation();
  DP_ASSIGN_OR_RETURN(sync_,
                      GradientSync::Create(sync, gradient_group_.get(),
                                           stage_->parameters().num_elements));
  MutexLock lock(&mutex_);
  is_connected_ = true;
  return is_cancelled_ ? cancel_reason_ : absl::OkStatus();
}

v1::AssignmentReady Training::ready() const {
  v1::AssignmentReady ready;
  ready.set_job_id(options_.assignment.job_id());
  ready.set_generation(options_.assignment.generation());
  ready.set_data_hash(source_->data_hash());
  ready.set_train_samples(source_->num_train_samples());
  ready.set_parameters(stage_->parameters().num_elements);
  return ready;
}

void Training::RequestStop(bool discard) {
  if (discard) is_discard_ = true;
  is_stop_requested_ = true;
}

void Training::Cancel(const absl::Status& reason) {
  {
    MutexLock lock(&mutex_);
    if (is_cancelled_) return;
    cancel_reason_ = reason;
    is_cancelled_ = true;
    if (!is_connected_) return;  // Connect looks
  }
  if (previous_ != nullptr) previous_->Cancel(reason);
  if (next_ != nullptr) next_->Cancel(reason);
  mesh_.ForEach([&](FrameChannel* channel) { channel->Cancel(reason); });
}

v1::AssignmentDone Training::Run() {
  absl::Status status = RunSteps();
  v1::AssignmentDone done;
  done.set_job_id(options_.assignment.job_id());
  done.set_generation(options_.assignment.generation());
  done.set_steps(step_.load());
  *done.mutable_bytes() = Bytes();
  done.set_stopped_early(is_stopping_);
  done.set_model_path(model_path_);
  if (status.ok()) return done;
  {
    MutexLock lock(&mutex_);
    if (is_cancelled_ && !cancel_reason_.ok()) status = cancel_reason_;
  }
  Cancel(status);
  done.set_error_code(static_cast<int>(status.code()));
  done.set_error_message(absl::StrCat("stage ", stage_index_, ", replica ",
                                      replica_, ", step ", step_.load(), ": ",
                                      status.message()));
  done.set_is_consequence(status.code() == absl::StatusCode::kUnavailable ||
                          status.code() == absl::StatusCode::kCancelled);
  return done;
}

absl::Status Training::RunSteps() {
  const int64_t steps = spec_.train().steps();
  const int64_t checkpoint_every = spec_.checkpoint().every();
  const int64_t validate_every = spec_.train().validate_every();
  bool is_validated = false;
  while (step_ < steps && !is_stopping_) {
    const int64_t step = step_;
    DP_RETURN_IF_ERROR(RunStep(step));
    const int64_t done = step + 1;
    step_ = done;
    is_validated = validate_every > 0 && done % validate_every == 0;
    if (is_validated) DP_RETURN_IF_ERROR(Validate(step));
    if (checkpoint_every > 0 && done % checkpoint_every == 0 && done < steps) {
      DP_RETURN_IF_ERROR(WriteModel(done));
    }
  }
  if (!is_stopping_ && !is_validated) DP_RETURN_IF_ERROR(Validate(steps - 1));
  if (!is_discard_) DP_RETURN_IF_ERROR(WriteModel(step_));
  // Nobody closes a channel that another still reads.
  const Deadline deadline = Deadline::After(std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(options_.assignment.wait_seconds())));
  const uint32_t step = static_cast<uint32_t>(step_.load());
  DP_RETURN_IF_ERROR(
      stages_->AllGather(step, kBarrierPhase, {0.0}, deadline).status());
  DP_RETURN_IF_ERROR(
      replicas_->AllGather(step, kBarrierPhase, {0.0}, deadline).status());
  absl::Status flushed;
  mesh_.ForEach([&](FrameChannel* channel) {
    const absl::Status status = channel->Flush(deadline);
    // A peer closes only after all that it waited for has come.
    if (flushed.ok() && !absl::IsUnavailable(status)) flushed = status;
  });
  return flushed;
}

absl::Status Training::RunStep(int64_t step) {
  StepState state;
  state.step = step;
  const int64_t first_slot = int64_t{replica_} * plan_.num_microbatches();
  for (int mb = 0; mb < plan_.num_microbatches(); ++mb) {
    state.batch.push_back(source_->Train(step, first_slot + mb));
  }
  const auto& instructions = plan_.stages(stage_index_).instructions();
  // Receivers learn at once what the whole step brings, in its order.
  for (const v1::Instruction& instruction : instructions) {
    const int mb = instruction.microbatch();
    if (instruction.kind() == v1::Instruction::RECEIVE_ACTIVATION) {
      previous_->Expect(static_cast<uint32_t>(step), static_cast<uint32_t>(mb),
                        state.batch[static_cast<size_t>(mb)].samples, false);
    } else if (instruction.kind() == v1::Instruction::RECEIVE_GRADIENT) {
      next_->Expect(static_cast<uint32_t>(step), static_cast<uint32_t>(mb),
                    state.batch[static_cast<size_t>(mb)].samples, false);
    }
  }
  for (const v1::Instruction& instruction : instructions) {
    const absl::Status status = Execute(instruction, &state);
    if (!status.ok()) {
      return Annotate(
          status, absl::StrCat(v1::Instruction::Kind_Name(instruction.kind()),
                               " of micro-batch ", instruction.microbatch()));
    }
  }
  Report(state);
  return absl::OkStatus();
}

absl::Status Training::Execute(const v1::Instruction& instruction,
                               StepState* state) {
  const int mb = instruction.microbatch();
  const uint32_t step = static_cast<uint32_t>(state->step);
  const uint32_t wire_mb = static_cast<uint32_t>(mb);
  const auto begin = SteadyClock::now();
  switch (instruction.kind()) {
    case v1::Instruction::LOAD:
      return absl::OkStatus();  // the whole step is loaded at once
    case v1::Instruction::RECEIVE_ACTIVATION: {
      DP_ASSIGN_OR_RETURN(state->received_activations[mb],
                          previous_->Await(step, wire_mb, false));
      state->wait_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::FORWARD: {
      const Microbatch& batch = state->batch[static_cast<size_t>(mb)];
      std::vector<uint64_t> keys;
      for (const BoundarySample& sample : batch.samples) {
        keys.push_back(sample.key);
      }
      StageInput input;
      input.microbatch = mb;
      input.step = state->step;
      input.num_samples = static_cast<int64_t>(batch.samples.size());
      input.sample_keys = keys;
      input.tokens = batch.tokens;
      input.targets = batch.targets;
      input.loss_scale = 1.0f / static_cast<float>(plan_.num_microbatches());
      if (!is_first()) {
        input.activation = std::move(state->received_activations[mb]);
        state->received_activations.erase(mb);
      }
      StageOutput output;
      DP_RETURN_IF_ERROR(stage_->Forward(input, &output));
      if (is_last()) {
        state->loss += output.loss / plan_.num_microbatches();
      } else {
        state->activations[mb] = std::move(output.activation);
      }
      state->compute_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::SEND_ACTIVATION:
      next_->Send(step, wire_mb, state->batch[static_cast<size_t>(mb)].samples,
                  std::move(state->activations[mb]), false);
      state->activations.erase(mb);
      return absl::OkStatus();
    case v1::Instruction::RECEIVE_GRADIENT: {
      DP_ASSIGN_OR_RETURN(state->received_gradients[mb],
                          next_->Await(step, wire_mb, false));
      state->wait_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::BACKWARD: {
      TensorRef gradient;
      if (!is_last()) {
        gradient = std::move(state->received_gradients[mb]);
        state->received_gradients.erase(mb);
      }
      DP_ASSIGN_OR_RETURN(TensorRef input_gradient,
                          stage_->Backward(mb, gradient));
      if (!is_first()) state->gradients[mb] = std::move(input_gradient);
      state->compute_seconds += SecondsSince(begin);
      return absl::OkStatus();
    }
    case v1::Instruction::SEND_GRADIENT:
      previous_->Send(step, wire_mb,
                      state->batch[static_cast<size_t>(mb)].samples,
                      std::move(state->gradients[mb]), false);
      state->gradients.erase(mb);
      return absl::OkStatus();
    case v1::Instruction::REDUCE: {
      const absl::Status status = Reduce(state);
      state->reduce_seconds += SecondsSince(begin);
      return status;
    }
    case v1::Instruction::APPLY: {
      const absl::Status status = Apply(state);
      state->reduce_seconds += SecondsSince(begin);
      return status;
    }
    default:
      return absl::InternalError(absl::StrCat(
          "the plan holds an unknown instruction ", instruction.kind()));
  }
}

absl::Status Training::Reduce(StepState* state) {
  const uint32_t step = static_cast<uint32_t>(state->step);
  const Deadline deadline = Deadline::After(std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(options_.assignment.wait_seconds())));
  const SyncRequest request =
      optimizer_->Prepare(state->step, stage_->gradients());
  state->is_compressed = request.format == SyncFormat::kCompressed;
  DP_RETURN_IF_ERROR(sync_->Begin(step, request.format, request.values));
  // Whether to stop is agreed on beside the gradients: first over the replicas
  // of each stage, then (in Apply) over the stages.
  const double wants_stop = is_stop_requested_ ? 1 : 0;
  DP_ASSIGN_OR_RETURN(
      const auto gathered,
      replicas_->AllGather(step, kStopPhase, {wants_stop}, deadline));
  for (const std::vector<double>& values : gathered) {
    if (values[0] != 0) is_stopping_ = true;
  }
  return sync_->Wait(deadline);
}

absl::Status Training::Apply(StepState* state) {
  const uint32_t step = static_cast<uint32_t>(state->step);
  const Deadline deadline = Deadline::After(std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(options_.assignment.wait_seconds())));
  std::vector<double> mine = {optimizer_->MeanGradientSquaredNorm(),
                              is_stopping_ ? 1.0 : 0.0};
  AppendHash(previous_hashes_.sent, &mine);
  AppendHash(previous_hashes_.received, &mine);
  AppendHash(next_hashes_.sent, &mine);
  AppendHash(next_hashes_.received, &mine);
  DP_ASSIGN_OR_RETURN(const auto gathered,
                      stages_->AllGather(step, kNormPhase, mine, deadline));
  DP_RETURN_IF_ERROR(CheckHashes(gathered));
  double squared_norm = 0;
  for (const std::vector<double>& values : gathered) {
    squared_norm += values[kSquaredNorm];
    if (values[kStop] != 0) is_stopping_ = true;
  }
  state->gradient_norm = std::sqrt(squared_norm);
  state->is_skipped = !std::isfinite(squared_norm);
  if (state->is_skipped) {
    DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kAbort));
    optimizer_->Skip();
    LOG_WARNING << "step " << state->step
                << " is skipped: the gradient is not finite";
  } else {
    DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kCommit));
    const double limit = spec_.train().clip_norm();
    const double clip = limit > 0 && state->gradient_norm > limit
                            ? limit / state->gradient_norm
                            : 1.0;
    DP_RETURN_IF_ERROR(optimizer_->Apply(
        state->step, LearningRateAt(state->step), clip, stage_->weights()));
  }
  DP_RETURN_IF_ERROR(stage_->WeightsChanged());
  // The delta state advances with what was sent, whether or not the step was
  // applied: both ends have it.
  if (previous_ != nullptr) {
    previous_->CommitStep(step);
    DP_ASSIGN_OR_RETURN(previous_hashes_, previous_->AwaitHashes(step));
  }
  if (next_ != nullptr) {
    next_->CommitStep(step);
    DP_ASSIGN_OR_RETURN(next_hashes_, next_->AwaitHashes(step));
  }
  const int64_t every = spec_.train().verify_every();
  const bool is_verified = every > 0 && (state->step + 1) % every == 0;
  if (is_verified) {
    DP_RETURN_IF_ERROR(Verify(state->step, &state->weights_hash));
  }
  return absl::OkStatus();
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
            " differs between its two ends after step ", step_.load() - 1,
            ": one of them is damaged; start the job again"));
      }
    }
    return absl::OkStatus();
  };
  for (const std::vector<double>& values : gathered) {
    if (values.size() != kNumGathered) {
      return absl::DataLossError("a stage sent another number of figures");
    }
  }
  if (!is_first()) {
    const size_t other = static_cast<size_t>(stage_index_) - 1;
    DP_RETURN_IF_ERROR(
        compare(other, kPreviousReceived, kNextSent, "activation"));
    DP_RETURN_IF_ERROR(
        compare(other, kPreviousSent, kNextReceived, "gradient"));
  }
  return absl::OkStatus();
}

absl::Status Training::Validate(int64_t step) {
  v1::ValidationReport report;
  double weighted_loss = 0;
  const uint32_t wire_step = static_cast<uint32_t>(step);
  const int64_t count = source_->num_validation_microbatches();
  for (int64_t i = replica_; i < count; i += num_replicas_) {
    const Microbatch batch = source_->Validation(i);
    StageInput input;
    input.step = step;
    input.num_samples = static_cast<int64_t>(batch.samples.size());
    std::vector<uint64_t> keys(batch.samples.size());
    input.sample_keys = keys;
    input.tokens = batch.tokens;
    input.targets = batch.targets;
    input.needs_backward = false;
    const uint32_t mb = static_cast<uint32_t>(i);
    if (!is_first()) {
      previous_->Expect(wire_step, mb, batch.samples, true);
      DP_ASSIGN_OR_RETURN(input.activation,
                          previous_->Await(wire_step, mb, true));
    }
    StageOutput output;
    DP_RETURN_IF_ERROR(stage_->Forward(input, &output));
    if (is_last()) {
      weighted_loss += output.loss * static_cast<double>(batch.targets.size());
      report.set_tokens(report.tokens() +
                        static_cast<int64_t>(batch.targets.size()));
    } else {
      next_->Send(wire_step, mb, batch.samples, std::move(output.activation),
                  true);
      DP_RETURN_IF_ERROR(next_->WaitForQueue(4));
    }
  }
  if (is_last() && report.tokens() > 0) {
    report.set_job_id(options_.assignment.job_id());
    report.set_generation(options_.assignment.generation());
    report.set_step(step);
    report.set_loss(weighted_loss / static_cast<double>(report.tokens()));
    if (options_.on_validation) options_.on_validation(report);
  }
  return absl::OkStatus();
}

absl::Status Training::WriteModel(int64_t step) {
  if (replica_ != 0 || spec_.model().kind() == "synthetic") {
    return absl::OkStatus();
  }
  const Deadline deadline = Deadline::After(std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(options_.assignment.wait_seconds())));
  if (!is_first()) {
    FrameHeader header;
    header.generation = options_.assignment.generation();
    header.step = static_cast<uint32_t>(step);
    return Annotate(
        SendShard(mesh_.stage_scalars[0].get(), header, stage_->parameters(),
                  stage_->weights(), deadline),
        "send the weights to the writer");
  }
  std::vector<ModelShard> shards(1);
  shards[0].layout = stage_->parameters();
  shards[0].weights.assign(stage_->weights().begin(), stage_->weights().end());
  for (int stage = 1; stage < num_stages_; ++stage) {
    auto shard = ReceiveShard(
        mesh_.stage_scalars[static_cast<size_t>(stage)].get(), deadline);
    if (!shard.ok()) {
      return Annotate(shard.status(),
                      absl::StrCat("collect the weights of stage ", stage));
    }
    shards.push_back(*std::move(shard));
  }
  std::string spec_json;
  if (!google::protobuf::util::MessageToJsonString(spec_, &spec_json).ok()) {
    return absl::InternalError("the spec cannot be written as JSON");
  }
  DP_RETURN_IF_ERROR(MakeDirectories(options_.assignment.run_folder()));
  model_path_ =
      absl::StrCat(options_.assignment.run_folder(), "/model.safetensors");
  return WriteModelFile(model_path_, &shards,
                        {{"format", "deltapipe"},
                         {"step", absl::StrCat(step)},
                         {"spec", spec_json}});
}

absl::Status Training::Verify(int64_t step, uint64_t* hash) {
  const absl::Span<const float> weights = stage_->weights();
  *hash = Checksum(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4));
  return CheckReplicas(
      replicas_.get(), static_cast<uint32_t>(step), kVerifyPhase,
      stage_->parameters(), weights,
      Deadline::After(std::chrono::duration_cast<Nanos>(
          std::chrono::duration<double>(options_.assignment.wait_seconds()))));
}

void Training::Report(const StepState& state) {
  if (!options_.on_step) return;
  v1::StepReport report;
  report.set_job_id(options_.assignment.job_id());
  report.set_generation(options_.assignment.generation());
  report.set_step(state.step);
  report.set_has_loss(is_last());
  report.set_loss(state.loss);
  int64_t tokens = 0;
  for (const Microbatch& batch : state.batch) {
    tokens += static_cast<int64_t>(batch.samples.size());
  }
  report.set_tokens(tokens * spec_.model().context());
  report.set_gradient_norm(state.gradient_norm);
  report.set_learning_rate(LearningRateAt(state.step));
  report.set_step_seconds(SecondsSince(state.begin));
  report.set_compute_seconds(state.compute_seconds);
  report.set_wait_seconds(state.wait_seconds);
  report.set_reduce_seconds(state.reduce_seconds);
  report.set_skipped(state.is_skipped);
  report.set_compressed(state.is_compressed);
  *report.mutable_bytes() = Bytes();
  report.set_weights_hash(state.weights_hash);
  report.set_state_hash(previous_hashes_.sent ^ previous_hashes_.received ^
                        next_hashes_.sent ^ next_hashes_.received);
  v1::FaultCounters* faults = report.mutable_faults();
  for (const auto* end : {&previous_, &next_}) {
    if (*end == nullptr) continue;
    const BoundaryEnd::Counters counters = (*end)->counters();
    faults->set_frames_resent(faults->frames_resent() +
                              counters.frames.frames_resent);
    faults->set_bad_checksums(faults->bad_checksums() +
                              counters.frames.bad_checksums);
    faults->set_gaps(faults->gaps() + counters.frames.gaps);
    faults->set_keyframes(faults->keyframes() + counters.keyframes_requested);
    faults->set_refused(faults->refused() + counters.frames.refused_generation +
                        counters.frames.refused_version +
                        counters.frames.refused_size);
  }
  options_.on_step(report);
}

v1::ByteCounters Training::Bytes() const {
  v1::ByteCounters bytes;
  for (const auto* end : {&previous_, &next_}) {
    if (*end == nullptr) continue;
    const BoundaryEnd::Counters counters = (*end)->counters();
    bytes.set_activation_raw(bytes.activation_raw() + counters.sent.raw_bytes);
    bytes.set_activation_wire(bytes.activation_wire() + counters.wire_bytes -
                              counters.evaluation_wire_bytes);
    bytes.set_evaluation_wire(bytes.evaluation_wire() +
                              counters.evaluation_wire_bytes);
    bytes.set_delta_rows(bytes.delta_rows() + counters.sent.delta_rows);
    bytes.set_value_rows(bytes.value_rows() + counters.sent.value_rows);
    bytes.set_state_bytes(bytes.state_bytes() + counters.state_bytes);
  }
  if (sync_ != nullptr) bytes.set_gradient_raw(sync_->counters().raw_bytes);
  for (const auto& channel : mesh_.gradients) {
    if (channel == nullptr) continue;
    bytes.set_gradient_wire(bytes.gradient_wire() +
                            channel->channel_counters().bytes_sent);
  }
  for (const auto* group : {&mesh_.stage_scalars, &mesh_.replica_scalars}) {
    for (const auto& channel : *group) {
      if (channel == nullptr) continue;
      bytes.set_other_wire(bytes.other_wire() +
                           channel->channel_counters().bytes_sent);
    }
  }
  return bytes;
}

double Training::LearningRateAt(int64_t step) const {
  return LearningRate(learning_rate_, step, spec_.train().steps());
}

}  // namespace deltapipe
