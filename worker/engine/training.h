// Training: one worker's part of one job, from connecting to the last step.
//
//   Training training(options);
//   DP_RETURN_IF_ERROR(training.Prepare());   // Cancel ends it, too
//   ... AssignmentReady ... StartTraining ...
//   v1::AssignmentDone done = training.Run();
//
// Run executes the plan's instructions on the calling thread; encoding,
// sending, receiving, decoding and gradient synchronisation overlap on others.
// RequestStop and Cancel may be called from any thread: the first ends the job
// after a step that all workers agree on, the second at once.
#ifndef DELTAPIPE_WORKER_ENGINE_TRAINING_H_
#define DELTAPIPE_WORKER_ENGINE_TRAINING_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checkpoint/manifest.h"
#include "base/clock.h"
#include "base/latency_model.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/checkpoint/checkpoint_writer.h"
#include "worker/checkpoint/rank_state.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/rank_group.h"
#include "worker/data/batch_source.h"
#include "worker/data/slot_cursors.h"
#include "worker/engine/boundary_end.h"
#include "worker/engine/gradient_norm.h"
#include "worker/engine/loss_scale.h"
#include "worker/engine/mesh.h"
#include "worker/engine/microbatch_counts.h"
#include "worker/engine/straggler_control.h"
#include "worker/engine/sync_measure.h"
#include "worker/engine/tied_part.h"
#include "worker/engine/weight_versions.h"
#include "worker/optim/compression_switch.h"
#include "worker/optim/cut_tensors.h"
#include "worker/optim/learning_rate.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_groups.h"
#include "worker/optim/sharded_state.h"
#include "worker/stage/stage.h"
#include "worker/transport/shaped/link_shaper.h"

namespace deltapipe {

struct TrainingOptions {
  v1::Assignment assignment;
  Transport* transport = nullptr;  // borrowed
  /// Makes the stage of the assignment; keeps LibTorch out of the engine.
  std::function<absl::StatusOr<std::unique_ptr<Stage>>(
      const v1::Assignment& assignment)>
      make_stage;
  /// Makes what network.transport: nccl asks for, where this worker can.
  MakeChannelUpgrade make_nccl;
  /// Wraps channels below the emulated links; for tests.
  ChannelDecorator decorate;
  /// As in GradientSyncOptions, equal on all workers; other for tests, whose
  /// models are small.
  int64_t bucket_elements_per_rank =
      GradientSyncOptions().bucket_elements_per_rank;
  std::function<void(const v1::StepReport&)> on_step;
  std::function<void(const v1::ValidationReport&)> on_validation;
  /// What else the coordinator is told, from several threads: parts of
  /// checkpoints, changes that have taken effect. Null: nobody is told.
  std::function<void(v1::WorkerMessage)> send;
};

/// What all workers do after a step, because one of them wants it.
struct StepAgreement {
  bool stops = false;
  bool pauses = false;  // stops once a checkpoint is complete
  bool writes_checkpoint = false;
  /// The newest that everybody has heard to hold.
  uint32_t tuning_revision = 0;
};

class Training {
 public:
  explicit Training(TrainingOptions options);
  ~Training();

  /// Opens the data, builds the stage and connects to all peers; with
  /// assignment.resume, goes back to the newest checkpoint that all of them can
  /// read.
  absl::Status Prepare();

  v1::AssignmentReady ready() const;
  v1::AssignmentDone Run();
  /// Ends after the next step that all workers agree on; the model is written
  /// unless `discard`.
  void RequestStop() { is_stop_requested_ = true; }
  /// Writes a checkpoint after the next step that all workers agree on and ends
  /// there. Where it cannot be written, training goes on.
  void RequestPause() { is_pause_requested_ = true; }
  /// Writes a checkpoint after the next step that all workers agree on, unless
  /// there has been one of more than `after_step` steps.
  void RequestCheckpoint(int64_t after_step) {
    checkpoint_wanted_after_ = after_step;
  }
  /// The coordinator's word on a checkpoint whose parts it was sent.
  void CommitCheckpoint(const v1::CommitCheckpoint& commit);
  /// Whether this worker could run with these knobs; nothing changes yet.
  /// INVALID_ARGUMENT, FAILED_PRECONDITION.
  absl::Status PrepareTuning(const v1::Tuning& tuning);
  /// What was prepared holds from the step before which all workers have heard
  /// so (which is told through `send`), or is forgotten.
  void DecideTuning(uint32_t revision, bool commit);
  /// Tells what is done in the next steps through `send`.
  void RequestTrace(int steps) { num_traces_wanted_ = steps; }
  /// Wakes every wait; Run returns `reason` as its error.
  void Cancel(const absl::Status& reason);
  int64_t step() const { return step_.load(); }
  /// The stage's weights, for tests, after Run.
  absl::Span<const float> weights() { return versions_->newest()->weights(); }
  /// The records of the activations received; for tests, from on_step.
  StateStore* received_records() { return previous_->received_records(); }

 private:
  struct StepState;

  absl::Status MakeUpgrade();
  /// Whether every group of train.optimizer.groups counts for a parameter of
  /// some stage; `use` is this stage's.
  absl::Status CheckGroups(std::vector<GroupUse> use);
  /// Of this replica's share of the stage's parameters, where state is shared
  /// out.
  SharedNorms MakeSharedNorms(const ParameterLayout& grouped);
  /// Where gradients are compressed between replicas.
  absl::Status MakeSyncMeasure();
  /// Where the stage has weights that other stages have, too.
  absl::Status MakeTiedPart(const OptimizerOptions& optimizer,
                            const ParameterLayout& grouped);
  /// As the plan, or the tuning in force, has it; without nodes and shards.
  GradientSyncOptions SyncOptions() const;
  /// The compressed_codec and plain_codec of GradientSyncOptions for a codec of
  /// the plan or of a tuning. Where the plan compresses, so does cast(bf16).
  std::pair<std::string, std::string> SyncCodecs(
      const std::string& gradients) const;
  /// The node of each replica of a stage, for a spec's parallel.nodes.
  static std::vector<int> NodesOf(int num_replicas, int num_nodes);
  absl::Status Connect();
  absl::Status RunSteps();
  absl::Status AfterStep(int64_t done);
  absl::Status RunStep(int64_t step);
  /// Draws the step's samples: a span LOAD for each micro-batch.
  std::unique_ptr<StepState> BeginStep(int64_t step);
  /// Announces what the instruction receives, if it receives something.
  void Expect(const v1::Instruction& instruction, const StepState& state);
  /// `program` is the step whose program the instruction is of.
  absl::Status Execute(const v1::Instruction& instruction, StepState* state,
                       StepState* program);
  absl::Status ExecuteUntraced(const v1::Instruction& instruction,
                               StepState* state, StepState* program);
  /// Hands the step's gradients to the optimizer, and what it names to sync_.
  absl::Status BeginSync(StepState* state);
  /// The same of tied weights, if there are any, with tied_; after it.
  absl::Status BeginTiedSync(StepState* state);
  absl::Status Reduce(StepState* state);
  /// What is left of a step once it is applied: counts, reports.
  /// FAILED_PRECONDITION once too many in a row were skipped.
  absl::Status TellOfStep(StepState* state);

  // training_boundaries.cc
  /// Shapes of one sample's tensor at a boundary of this stage, that of images
  /// as they are first (BoundaryEndOptions::shapes).
  std::vector<BoundaryShape> ShapesAt(int boundary) const;
  /// Its elements for images of this size; 0: as the first shape has them.
  int64_t ElementsAt(int boundary, int64_t image_size) const;

  // training_early.cc
  /// The stage's gradient_order(), without tied weights.
  std::vector<ElementRange> SyncOrder() const;
  /// Whether gradients of this job may be synchronised before all are final,
  /// where the policy of stragglers and the optimizer allow it.
  bool IsForEarlyStarts() const;
  /// Whether this micro-batch's backward is the step's last, and gradients that
  /// are final in it may be synchronised while it runs.
  bool MayStartEarly(int microbatch, const StepState& state) const;
  /// Such a backward; in place of BeginSync, if the stage can tell which
  /// gradients are final.
  absl::StatusOr<TensorRef> LastBackward(int microbatch,
                                         const TensorRef& gradient,
                                         StepState* state);

  // training_continuous.cc
  /// Of all versions of the stage; none of a stage that saves nothing.
  std::vector<SavedActivations*> AllSavedActivations() const;
  bool is_continuous() const { return versions_->delay() > 0; }
  /// Steps without a flush between them, up to one after which something is to
  /// be done that needs all of them ended.
  absl::Status RunSpan();
  absl::Status RunContinuousSteps();
  bool EndsSpan(int64_t step) const;
  /// Synchronises the gradients of a step whose backwards are done, and applies
  /// them, on a thread of its own.
  void StartUpdate(StepState* state);
  /// Waits for it, if there is one, and tells of its step. The time that it
  /// took is exposed in `program`.
  absl::Status FinishUpdate(StepState* program);

  // training_stragglers.cc
  absl::Status MakeStragglerControl(const std::string& policy);
  /// Whether micro-batches may be left out, or moved to other replicas, with
  /// the knobs in force.
  bool MayLeaveOut() const;
  bool MayMove() const;
  /// Takes the micro-batches that each replica has in this step, and says so if
  /// they are others.
  absl::Status BeginCounts(int64_t step);
  /// First stage: what they are from the next step on; other stages: nothing
  /// that counts. One number for each replica.
  std::vector<double> NextCounts() const;
  /// Takes what the first stage says.
  absl::Status TakeCounts(absl::Span<const double> counts);
  /// First stage: whether to begin this micro-batch.
  bool Admit(int microbatch);
  /// Ends the step before this micro-batch, here and in the stages after.
  void EndBefore(int microbatch, StepState* state);
  /// Exchanges what each replica has done, and weights this one's gradients by
  /// it: their mean over the replicas is then that over the samples done.
  absl::Status WeightByWork(absl::Span<float> gradients, StepState* state);
  /// Makes a part of a micro-batch take as long as the tuning's `inject` says.
  void Delay(int microbatch, bool is_forward, double seconds,
             const StepState& state);
  /// Likewise the reading of a micro-batch.
  void DelayInput();
  void DelayBy(double seconds);
  /// Takes in what all replicas measured in the last step.
  absl::Status ObserveReplicas(
      const std::vector<std::vector<double>>& by_replica);
  void FinishWork(const StepState& state);

  absl::Status Apply(StepState* state);
  /// The part of optimizer_ in a vector over the stage's parameters.
  template <typename T>
  absl::Span<T> Owned(absl::Span<T> values) const {
    return values.subspan(static_cast<size_t>(owned_.begin),
                          static_cast<size_t>(owned_.end - owned_.begin));
  }
  /// Of the mean gradient of this stage, once it is synchronised; of tied
  /// weights at the first of their owners.
  absl::StatusOr<double> MeanSquaredNorm(const StepState& state,
                                         Deadline deadline);
  /// Halves or doubles the loss scale where that is due.
  void UpdateLossScale(const StepState& state);
  /// Takes the evidence of all stages, which begins at element `at` of each,
  /// for whether to compress from the next step on.
  void DecideCompression(int64_t step, size_t at,
                         std::vector<std::vector<double>>* by_stage);
  /// What every stage says, after it was seen that both ends of each boundary
  /// were in the same state after the last committed step.
  absl::StatusOr<std::vector<std::vector<double>>> GatherFromStages(
      uint32_t step, uint32_t phase, const std::vector<double>& figures,
      Deadline deadline);
  absl::Status CheckHashes(const std::vector<std::vector<double>>& gathered);
  absl::Status Validate(int64_t step);
  /// Waits until all stages of this replica are here.
  absl::Status Meet(uint32_t step);
  absl::Status WriteModel(int64_t step);
  absl::Status WriteShards(int64_t step, Deadline deadline);
  absl::Status Verify(int64_t step, uint64_t* hash);
  /// Whether the owners of tied weights hold the same.
  absl::Status VerifyTied(int64_t step, uint32_t phase, const std::string& when,
                          Deadline deadline);

  // training_tuning.cc
  absl::StatusOr<LatencyModel> InjectedBy(const v1::Tuning& tuning) const;
  const v1::BoundaryTuning* TuningOf(const v1::Tuning& tuning,
                                     int boundary) const;
  absl::Status ApplyTuning(int64_t done);
  absl::Status ApplyRates(const v1::Tuning& tuning);

  // training_checkpoint.cc
  struct Candidate;
  std::string CheckpointFolder() const;
  OwnPlace Place() const;
  absl::Status MakeCheckpointWriter();
  absl::Status WriteCheckpoint(int64_t done);
  /// On replica 0, to which the others send their shares; elsewhere empty. That
  /// of tied weights is not shared out.
  absl::StatusOr<OptimizerState> WholeOptimizerState(int64_t done);
  /// Before the end, so that no files without a manifest are left.
  void AwaitLastCheckpoint();
  absl::Status Pause(int64_t done);
  absl::Status Restore();
  Candidate BestCandidate(const CheckpointScan& scan, int64_t limit_step,
                          uint64_t limit_generation);
  absl::Status Load(const Candidate& candidate,
                    const std::vector<bool>& stages_have_own,
                    const std::vector<bool>& replicas_have_stage);
  /// Of a checkpoint of another number of replicas.
  absl::Status LoadResiduals(const Candidate& candidate);
  absl::Status LoadTiedResiduals(const Candidate& candidate);
  absl::StatusOr<StageState> ShareStageState(
      const Candidate& candidate, const std::vector<bool>& replicas_have_stage);
  /// Element by element the least of what any worker says.
  absl::StatusOr<std::vector<double>> LeastOfAll(
      uint32_t step, uint32_t phase, const std::vector<double>& mine,
      Deadline deadline);
  Deadline DiskDeadline(int64_t bytes) const;

  void Report(const StepState& state);
  void ReportSaved(v1::StepReport* report);
  void SendTrace(StepState* state);
  v1::ByteCounters Bytes() const;
  v1::FaultCounters Faults() const;
  double LearningRateAt(int64_t step) const;
  /// By which a peer that is alive has answered.
  Deadline WaitDeadline() const;
  /// By which all stages' weights have reached the writer's disk.
  Deadline ModelDeadline() const;

  bool is_first() const { return stage_index_ == 0; }
  bool is_last() const { return stage_index_ + 1 == num_stages_; }
  /// Of the stage's weights, in every version.
  const ParameterLayout& layout() const {
    return versions_->newest()->parameters();
  }

  const TrainingOptions options_;
  const v1::JobSpec& spec_;
  const v1::Plan& plan_;
  const int num_stages_;
  const int num_replicas_;
  const int stage_index_;
  const int replica_;
  const std::vector<int> nodes_;  // by replica

  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<WeightVersions> versions_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<CompressionSwitch> compression_;  // compress_after_step: auto
  LearningRateOptions learning_rate_;
  ChannelUpgrade upgrade_;  // null: none
  Mesh mesh_;
  std::unique_ptr<BoundaryEnd> previous_;  // to stage_index_ - 1
  std::unique_ptr<BoundaryEnd> next_;      // to stage_index_ + 1
  std::unique_ptr<RankGroup> stages_;
  std::unique_ptr<RankGroup> replicas_;
  std::unique_ptr<RankGroup> gradient_group_;
  std::unique_ptr<RankGroup> tied_group_;
  std::unique_ptr<GradientSync> sync_;
  std::unique_ptr<SyncMeasure> sync_measure_;  // null: nothing is compressed
  /// With an optimizer and a synchronisation of its own: optimizer_ and sync_
  /// are of what comes before it. Null: no weights are tied.
  std::unique_ptr<TiedPart> tied_;
  /// Whether optimizer_ is of owned_ alone (train.optimizer.shard_state).
  bool shards_state_ = false;
  ElementRange owned_;  // of the stage's parameters, before tied_begin()
  std::unique_ptr<CheckpointWriter> writer_;      // null: nobody is told of it
  std::unique_ptr<StragglerControl> stragglers_;  // null: not the first stage
  std::string straggler_state_;                   // as it was last logged
  LatencyModel injected_;
  std::optional<MicrobatchCounts> counts_;
  std::vector<int> last_counts_;  // as cursors_ have them
  v1::Rebalancing advised_;       // first stage: who called for the next, why
  std::optional<SlotCursors> cursors_;
  CancelToken cancelled_;        // wakes injected delays
  int64_t samples_dropped_ = 0;  // by all replicas, since the job's beginning
  int64_t restored_step_ = 0;
  uint64_t restored_generation_ = 0;
  std::vector<std::string> restore_notes_;
  int64_t paused_step_ = 0;
  int64_t last_checkpoint_ = 0;   // that was handed to the writer
  int64_t skipped_in_a_row_ = 0;  // steps, the last one told of included

  std::atomic<int64_t> step_{0};
  std::atomic<bool> is_stop_requested_{false};
  std::atomic<bool> is_pause_requested_{false};
  std::atomic<int64_t> checkpoint_wanted_after_{-1};
  std::atomic<uint32_t> decided_revision_{0};
  std::atomic<int> num_traces_wanted_{0};
  std::atomic<bool> is_cancelled_{false};
  StepAgreement agreed_;  // after the last step
  // Of steps without a flush: those begun and not told of; and the one update
  // that may be under way. Its thread shares with that of the computation what
  // it joins before use: agreed_, due_.verification, the hashes and the scalar
  // groups.
  std::map<int64_t, std::unique_ptr<StepState>> states_;
  Thread update_;
  StepState* updating_ = nullptr;
  absl::Status updated_;
  int64_t span_ends_after_ = 0;
  std::chrono::steady_clock::time_point last_told_;
  // Due, but put off until the replicas are equal again.
  struct {
    bool validation = false;
    bool checkpoint = false;
    bool verification = false;
  } due_;
  GradientNorm gradient_norm_;
  LossScale loss_scale_;
  BoundaryHashes previous_hashes_;  // of the last committed step
  BoundaryHashes next_hashes_;
  v1::StepReport report_;  // of the steps since the last one sent
  // Since the start of the assignment.
  int64_t saved_raw_bytes_ = 0;
  int64_t saved_stored_bytes_ = 0;
  // What went out at the last report, toward the stage before and the next.
  // As last reported: of previous_ and next_.
  BoundaryEnd::Counters reported_gradients_;
  BoundaryEnd::Counters reported_activations_;

  v1::Tuning tuning_;                          // in force
  std::shared_ptr<LinkShaper> previous_link_;  // what is sent to each
  std::shared_ptr<LinkShaper> next_link_;
  LinkOptions emulated_;

  mutable Mutex mutex_;
  // By revision, until it or a newer one is in force: the next may be prepared
  // while this worker has yet to apply the last.
  std::map<uint32_t, v1::Tuning> prepared_ DP_GUARDED_BY(mutex_);
  absl::Status cancel_reason_ DP_GUARDED_BY(mutex_);
  bool is_connected_ DP_GUARDED_BY(mutex_) = false;
  std::string model_path_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_TRAINING_H_
