#include "worker/engine/training.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/delay_stability.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
#include "base/units.h"
#include "worker/engine/data_options.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

absl::StatusOr<OptimizerOptions> MakeOptimizerOptions(const v1::JobSpec& spec,
                                                      const v1::Plan& plan) {
  const v1::OptimizerSpec& from = spec.train().optimizer();
  OptimizerOptions options;
  options.kind = from.kind();
  options.momentum = from.momentum();
  options.look_ahead = from.has_look_ahead()
                           ? from.look_ahead()
                           : DefaultLookAhead(from.kind(), plan.weight_delay());
  if (from.momentum_delay() != "standard" && options.look_ahead == 0) {
    options.momentum_shift = plan.weight_delay();
  }
  options.beta1 = from.beta1();
  options.beta2 = from.beta2();
  options.epsilon = from.epsilon();
  options.weight_decay = from.weight_decay();
  options.max_coefficient = from.max_coefficient();
  options.min_coefficient = from.min_coefficient();
  options.coefficient_beta = from.coefficient_beta();
  options.factor_max = from.factor_max();
  options.factor_min = from.factor_min();
  options.factor_threshold = from.factor_threshold();
  options.variance_update_scaler = from.variance_update_scaler();
  options.local_step_scaler = from.local_step_scaler();
  options.local_step_clipper = from.local_step_clipper();
  options.num_steps = spec.train().steps();
  if (from.shard_state() == "on" && !CanShardState(from.kind())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "train.optimizer.shard_state: replicas cannot share out the state of ",
        from.kind()));
  }
  DP_ASSIGN_OR_RETURN(const StepChoice begin,
                      ParseStepChoice(from.compress_after_step()));
  options.compress_after_step =
      begin.is_auto ? kCompressByDecision : begin.At(spec.train().steps());
  if (GradientSync::IsPlainCodec(plan.gradient_codec())) {
    // 1-bit LAMB that never compresses is LAMB.
    options.compress_after_step = std::numeric_limits<int64_t>::max();
  }
  return options;
}

std::vector<ParameterGroup> GroupsOf(const v1::JobSpec& spec) {
  std::vector<ParameterGroup> groups;
  for (const v1::ParameterGroupSpec& from : spec.train().optimizer().groups()) {
    ParameterGroup group{from.match(), from.learning_rate_scale(), {}};
    if (from.has_weight_decay()) group.weight_decay = from.weight_decay();
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace

Training::Training(TrainingOptions options)
    : options_(std::move(options)),
      spec_(options_.assignment.spec()),
      plan_(options_.assignment.plan()),
      num_stages_(plan_.num_stages()),
      num_replicas_(plan_.num_replicas()),
      stage_index_(options_.assignment.rank() / num_replicas_),
      replica_(options_.assignment.rank() % num_replicas_),
      nodes_(NodesOf(num_replicas_, spec_.parallel().nodes())) {}

Training::~Training() { Cancel(absl::CancelledError("the job has ended")); }

absl::Status Training::Prepare() {
  DP_RETURN_IF_ERROR(MakeUpgrade());
  tuning_ = options_.assignment.tuning();
  decided_revision_ = tuning_.revision();
  DP_ASSIGN_OR_RETURN(const BatchSourceOptions data,
                      MakeDataOptions(spec_, plan_));
  DP_ASSIGN_OR_RETURN(source_, BatchSource::Create(data));

  DP_ASSIGN_OR_RETURN(
      versions_, WeightVersions::Create(
                     [&] { return options_.make_stage(options_.assignment); },
                     plan_.weight_delay()));
  const std::string& policy = tuning_.saved_activations();
  for (SavedActivations* saved : AllSavedActivations()) {
    // A job that goes back goes on with what was set while it ran.
    if (!policy.empty() && policy != spec_.compression().saved_activations()) {
      DP_RETURN_IF_ERROR(saved->SetPolicy(policy));
    }
    saved->SetInFlight(std::max(1, plan_.stages(stage_index_).max_in_flight()));
  }
  DP_ASSIGN_OR_RETURN(const OptimizerOptions optimizer,
                      MakeOptimizerOptions(spec_, plan_));
  ParameterLayout grouped = layout();
  const std::vector<GroupUse> group_use =
      AssignParameterGroups(GroupsOf(spec_), &grouped);
  if (optimizer.compress_after_step == kCompressByDecision) {
    CompressionSwitchOptions decision;
    decision.beta2 = optimizer.beta2;
    DP_ASSIGN_OR_RETURN(compression_, CompressionSwitch::Create(decision));
  }
  DP_ASSIGN_OR_RETURN(
      loss_scale_,
      LossScale::Create(spec_.train().precision(), spec_.train().loss_scale()));
  const v1::OptimizerSpec& rate = spec_.train().optimizer();
  learning_rate_.rate = rate.learning_rate();
  if (rate.delay_rule() != "none") {
    learning_rate_.rate *= DelayRateFactor(plan_.weight_delay());
  }
  learning_rate_.final_rate = learning_rate_.rate * rate.lr_final();
  learning_rate_.warmup_steps = rate.lr_warmup_steps();
  DP_ASSIGN_OR_RETURN(learning_rate_.decay,
                      ParseLearningRateDecay(rate.lr_schedule()));
  DP_ASSIGN_OR_RETURN(injected_, InjectedBy(tuning_));
  DP_RETURN_IF_ERROR(MakeStragglerControl(tuning_.straggler_policy()));
  DP_ASSIGN_OR_RETURN(counts_, MicrobatchCounts::Create(options_.assignment));
  last_counts_ = counts_->all();
  cursors_.emplace(SlotCursorOptions{
      num_replicas_, plan_.num_microbatches(),
      /*may_leave_out=*/MayDropWork(spec_.stragglers().policy()),
      /*comes_again=*/spec_.stragglers().requeue() == "on"});
  shards_state_ =
      spec_.train().optimizer().shard_state() == "on" && num_replicas_ > 1;
  DP_RETURN_IF_ERROR(Connect());
  DP_RETURN_IF_ERROR(CheckGroups(group_use));
  DP_RETURN_IF_ERROR(MakeSyncMeasure());
  owned_ = sync_->owned_by(replica_);
  DP_ASSIGN_OR_RETURN(
      optimizer_, Optimizer::Create(optimizer, LayoutOfRange(grouped, owned_),
                                    MakeSharedNorms(grouped)));
  DP_RETURN_IF_ERROR(MakeTiedPart(optimizer, grouped));
  DP_RETURN_IF_ERROR(MakeCheckpointWriter());
  if (options_.assignment.resume()) DP_RETURN_IF_ERROR(Restore());
  return VerifyTied(restored_step_, kTiedPhase, "before training begins",
                    ModelDeadline());
}

absl::Status Training::MakeTiedPart(const OptimizerOptions& optimizer,
                                    const ParameterLayout& grouped) {
  if (grouped.num_tied == 0) return absl::OkStatus();
  const std::vector<int>& stages = grouped.tied_stages;
  const auto own = std::find(stages.begin(), stages.end(), stage_index_);
  TiedPartOptions options;
  options.layout = grouped;
  options.stage = stage_index_;
  options.num_replicas = num_replicas_;
  options.optimizer = optimizer;
  options.sync = SyncOptions();
  std::vector<FrameChannel*> channels;
  for (const auto& channel : mesh_.tied) channels.push_back(channel.get());
  tied_group_ = std::make_unique<RankGroup>(
      TiedRank(static_cast<int>(own - stages.begin()), replica_, num_replicas_),
      std::move(channels));
  DP_ASSIGN_OR_RETURN(tied_, TiedPart::Create(options, tied_group_.get()));
  return absl::OkStatus();
}

SharedNorms Training::MakeSharedNorms(const ParameterLayout& grouped) {
  if (!shards_state_) return {};
  std::vector<ElementRange> ranges;
  for (int replica = 0; replica < num_replicas_; ++replica) {
    ranges.push_back(sync_->owned_by(replica));
  }
  SharedNorms shared;
  shared.cut = CutTensors::Of(grouped, ranges, replica_);
  shared.sum = [this](int64_t step, absl::Span<double> values) -> absl::Status {
    DP_ASSIGN_OR_RETURN(
        const auto by_replica,
        replicas_->AllGather(static_cast<uint32_t>(step), kShardSumsPhase,
                             values, WaitDeadline()));
    std::fill(values.begin(), values.end(), 0.0);
    for (const std::vector<double>& parts : by_replica) {
      for (size_t i = 0; i < parts.size(); ++i) values[i] += parts[i];
    }
    return absl::OkStatus();
  };
  return shared;
}

absl::Status Training::CheckGroups(std::vector<GroupUse> use) {
  if (use.empty()) return absl::OkStatus();
  // A stage knows its own parameters only; the least of the negatives is what
  // any of them has.
  std::vector<double> mine;
  for (const GroupUse& group : use) {
    mine.push_back(group.matches ? -1 : 0);
    mine.push_back(group.counts ? -1 : 0);
  }
  DP_ASSIGN_OR_RETURN(const std::vector<double> least,
                      LeastOfAll(0, kGroupsPhase, mine, ModelDeadline()));
  for (size_t i = 0; i < use.size(); ++i) {
    use[i] = {least[2 * i] < 0, least[2 * i + 1] < 0};
  }
  return CheckGroupsAreUsed(GroupsOf(spec_), use, layout());
}

absl::Status Training::MakeSyncMeasure() {
  SyncMeasureOptions options;
  options.plan_codec = plan_.gradient_codec();
  // Of what every stage has: tied weights follow its verdict.
  options.num_elements = layout().tied_begin();
  options.num_buckets = sync_->num_buckets();
  options.nodes = nodes_;
  const bool is_alone = nodes_.front() == nodes_.back();
  if (GradientSync::IsPlainCodec(options.plan_codec) || is_alone ||
      options.num_elements == 0) {
    return absl::OkStatus();
  }
  DP_ASSIGN_OR_RETURN(
      sync_measure_,
      SyncMeasure::Create(options, replicas_.get(), gradient_group_.get(),
                          /*step=*/0, kLatencyPhase, WaitDeadline()));
  return absl::OkStatus();
}

GradientSyncOptions Training::SyncOptions() const {
  GradientSyncOptions sync;
  const std::string& codec = tuning_.gradients().empty()
                                 ? plan_.gradient_codec()
                                 : tuning_.gradients();
  std::tie(sync.compressed_codec, sync.plain_codec) = SyncCodecs(codec);
  // Empty in the assignment of a coordinator that does not know the field.
  if (!spec_.compression().node_gradients().empty()) {
    sync.node_codec = spec_.compression().node_gradients();
  }
  sync.bucket_elements_per_rank = options_.bucket_elements_per_rank;
  sync.seed = spec_.seed();
  sync.generation = options_.assignment.generation();
  return sync;
}

std::pair<std::string, std::string> Training::SyncCodecs(
    const std::string& gradients) const {
  if (GradientSync::IsPlainCodec(plan_.gradient_codec())) {
    return {GradientSyncOptions().compressed_codec, gradients};
  }
  return {gradients, spec_.compression().plain_gradients()};
}

std::vector<int> Training::NodesOf(int num_replicas, int num_nodes) {
  std::vector<int> nodes;
  for (int replica = 0; replica < num_replicas; ++replica) {
    nodes.push_back(num_nodes == 0 ? replica
                                   : replica / (num_replicas / num_nodes));
  }
  return nodes;
}

absl::Status Training::MakeUpgrade() {
  if (spec_.network().transport() != "nccl") return absl::OkStatus();
  absl::StatusOr<ChannelUpgrade> upgrade =
      absl::FailedPreconditionError("it was built without");
  if (options_.make_nccl) upgrade = options_.make_nccl();
  if (upgrade.ok()) {
    upgrade_ = *std::move(upgrade);
    return absl::OkStatus();
  }
  // Whoever reports it says which worker this is.
  return absl::Status(
      upgrade.status().code(),
      absl::StrCat("this worker cannot use NCCL: ", upgrade.status().message(),
                   "; or train with network.transport: tcp"));
}

absl::Status Training::Connect() {
  const v1::Assignment& assignment = options_.assignment;
  const Nanos max_wait = FromSeconds(assignment.wait_seconds());
  // Peers read their data and build their models first.
  const Nanos max_start =
      std::max(max_wait, FromSeconds(assignment.start_seconds()));
  MeshOptions mesh;
  mesh.upgrade = upgrade_;
  mesh.tied_stages = layout().tied_stages;
  FrameChannelOptions& frames = mesh.frames;
  frames.generation = assignment.generation();
  frames.verify_checksums = spec_.network().checksums() != "off";
  // Room for a micro-batch's keyframes, in two versions of each sample.
  frames.max_payload_bytes =
      std::max(frames.max_payload_bytes,
               2 * plan_.microbatch_samples() *
                   (4 * std::max(versions_->newest()->input_elements(),
                                 versions_->newest()->output_elements()) +
                    64));
  DP_ASSIGN_OR_RETURN(emulated_, EmulatedLink(spec_));
  // The links to the neighbouring stages may change their rates.
  std::map<int, std::shared_ptr<LinkShaper>> links;
  if (!is_first()) {
    DP_ASSIGN_OR_RETURN(previous_link_, LinkShaper::Create(emulated_));
    links[assignment.rank() - num_replicas_] = previous_link_;
  }
  if (!is_last()) {
    DP_ASSIGN_OR_RETURN(next_link_, LinkShaper::Create(emulated_));
    links[assignment.rank() + num_replicas_] = next_link_;
  }
  // Those inside a node are as they are.
  for (int other = 0; other < num_replicas_; ++other) {
    if (other == replica_ || nodes_[static_cast<size_t>(other)] !=
                                 nodes_[static_cast<size_t>(replica_)]) {
      continue;
    }
    DP_ASSIGN_OR_RETURN(links[stage_index_ * num_replicas_ + other],
                        LinkShaper::Create(LinkOptions()));
  }
  DP_RETURN_IF_ERROR(ApplyRates(tuning_));
  const ChannelDecorator emulate = ShapedLinks(emulated_, std::move(links));
  const ChannelDecorator& below = options_.decorate;
  mesh.decorate = [&](std::unique_ptr<Channel> channel, int peer) {
    if (below) channel = below(std::move(channel), peer);
    if (emulate) channel = emulate(std::move(channel), peer);
    return channel;
  };
  DP_ASSIGN_OR_RETURN(
      mesh_, Mesh::Connect(assignment, options_.transport, mesh, is_cancelled_,
                           Deadline::After(max_start)));

  BoundaryEndOptions boundary;
  boundary.tuning_revision = tuning_.revision();
  boundary.seed = spec_.seed();
  boundary.generation = assignment.generation();
  boundary.plan_revision = plan_.revision();
  boundary.max_wait = max_wait;
  DP_ASSIGN_OR_RETURN(boundary.state_capacity_bytes,
                      ParseBytes(spec_.compression().state_memory()));
  if (spec_.compression().state_on() == "disk") {
    boundary.state_folder = CheckpointFolder();
  }
  const auto make_end = [&](int other_stage, bool is_upstream,
                            std::unique_ptr<FrameChannel> channel)
      -> absl::StatusOr<std::unique_ptr<BoundaryEnd>> {
    boundary.boundary = std::min(other_stage, stage_index_);
    boundary.is_upstream = is_upstream;
    boundary.shapes = ShapesAt(boundary.boundary);
    boundary.activation_codec = plan_.activation_codec();
    boundary.gradient_codec = plan_.activation_gradient_codec();
    const v1::BoundaryTuning* tuned = TuningOf(tuning_, boundary.boundary);
    if (tuned != nullptr) {
      boundary.activation_codec = tuned->activations();
      boundary.gradient_codec = tuned->activation_gradients();
    }
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

  GradientSyncOptions sync = SyncOptions();
  sync.nodes = nodes_;
  sync.order = SyncOrder();
  sync.may_begin_early = IsForEarlyStarts();
  sync.keeps_shard = shards_state_;
  DP_ASSIGN_OR_RETURN(sync_, GradientSync::Create(sync, gradient_group_.get(),
                                                  layout().tied_begin()));
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
  ready.set_parameters(layout().num_elements);
  ready.set_restored_step(restored_step_);
  ready.set_restored_generation(restored_generation_);
  ready.set_restored_samples_dropped(samples_dropped_);
  for (const std::string& note : restore_notes_) ready.add_notes(note);
  return ready;
}

void Training::Cancel(const absl::Status& reason) {
  {
    MutexLock lock(&mutex_);
    if (is_cancelled_) return;
    cancel_reason_ = reason;
    is_cancelled_ = true;
    cancelled_.Cancel();
    if (!is_connected_) return;  // Connect looks
  }
  if (previous_ != nullptr) previous_->Cancel(reason);
  if (next_ != nullptr) next_->Cancel(reason);
  mesh_.ForEach([&](FrameChannel* channel) { channel->Cancel(reason); });
  if (writer_ != nullptr) writer_->Cancel(reason);
}

v1::AssignmentDone Training::Run() {
  absl::Status status = RunSteps();
  v1::AssignmentDone done;
  done.set_job_id(options_.assignment.job_id());
  done.set_generation(options_.assignment.generation());
  done.set_steps(step_.load());
  *done.mutable_bytes() = Bytes();
  done.set_stopped_early(agreed_.stops || agreed_.pauses);
  done.set_checkpoint_step(paused_step_);
  done.set_model_path(model_path_);
  if (status.ok()) return done;
  {
    MutexLock lock(&mutex_);
    if (is_cancelled_ && !cancel_reason_.ok()) status = cancel_reason_;
  }
  Cancel(status);
  done.set_error_code(static_cast<int>(status.code()));
  done.set_error_message(absl::StrCat("stage ", stage_index_, ", replica ",
                                      replica_, ", step ", step_.load() + 1,
                                      ": ", status.message()));
  done.set_is_consequence(status.code() == absl::StatusCode::kUnavailable ||
                          status.code() == absl::StatusCode::kCancelled);
  return done;
}

absl::Status Training::RunSteps() {
  const int64_t steps = spec_.train().steps();
  while (step_ < steps && !agreed_.stops && !agreed_.pauses) {
    if (is_continuous()) {
      DP_RETURN_IF_ERROR(RunSpan());
    } else {
      const int64_t step = step_;
      DP_RETURN_IF_ERROR(RunStep(step));
      step_ = step + 1;
    }
    DP_RETURN_IF_ERROR(AfterStep(step_));
  }
  if (paused_step_ == 0) {
    const bool is_validated =
        IsDue(step_, spec_.train().validate_every()) && step_ > 0;
    if (step_ == steps && !is_validated) {
      DP_RETURN_IF_ERROR(Validate(steps - 1));
    }
    DP_RETURN_IF_ERROR(WriteModel(step_));
    AwaitLastCheckpoint();
  }
  // Nobody closes a channel that another still reads; and the state after the
  // last step is compared, too.
  const Deadline deadline = WaitDeadline();
  const uint32_t step = static_cast<uint32_t>(step_.load());
  DP_RETURN_IF_ERROR(
      GatherFromStages(step, kBarrierPhase, {}, deadline).status());
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

absl::Status Training::AfterStep(int64_t done) {
  const int64_t steps = spec_.train().steps();
  due_.validation |= IsDue(done, spec_.train().validate_every());
  due_.checkpoint |= IsDue(done, spec_.checkpoint().every());
  // Between two synchronisations of 0/1 Adam the weights of one replica are not
  // those of the job: what needs them waits, and wishes come again.
  const bool can_look = optimizer_->AreReplicasEqual() || done == steps;
  if (!can_look) {
    agreed_.stops = false;
    agreed_.pauses = false;
    agreed_.writes_checkpoint = false;
  }
  if (due_.validation && can_look) {
    due_.validation = false;
    DP_RETURN_IF_ERROR(Validate(done - 1));
  }
  if (done == steps) {
    agreed_ = StepAgreement();  // it ends by itself
    return absl::OkStatus();
  }
  if (agreed_.stops) return absl::OkStatus();
  // Before a checkpoint: what is restored goes on with the knobs of its
  // manifest, which is of this moment or later.
  if (agreed_.tuning_revision > tuning_.revision()) {
    DP_RETURN_IF_ERROR(ApplyTuning(done));
  }
  // While steps are left out nothing changes, and what may have diverged for
  // good must not take the place of a checkpoint of before.
  const bool is_due = due_.checkpoint && can_look && skipped_in_a_row_ == 0;
  if (is_due) {
    due_.checkpoint = false;
    DP_RETURN_IF_ERROR(WriteModel(done));
  }
  if (agreed_.pauses) return Pause(done);
  if (is_due || agreed_.writes_checkpoint) return WriteCheckpoint(done);
  return absl::OkStatus();
}

Deadline Training::WaitDeadline() const {
  return Deadline::After(FromSeconds(options_.assignment.wait_seconds()));
}

Deadline Training::ModelDeadline() const {
  return Deadline::After(FromSeconds(options_.assignment.wait_seconds() +
                                     options_.assignment.model_seconds()));
}

double Training::LearningRateAt(int64_t step) const {
  return LearningRate(learning_rate_, step, spec_.train().steps());
}

}  // namespace deltapipe
