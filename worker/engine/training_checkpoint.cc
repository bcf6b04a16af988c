// Checkpoints: what this worker writes of them, and how all workers of a job go
// back to the newest one that every one of them can read.
//
// Whoever has lost its own file (its machine is gone) starts without residuals
// and delta records, and its neighbours forget theirs of the same boundary; the
// stage's weights come from any replica that has them. Both are said in notes.
// A file that is there but damaged disqualifies the checkpoint: an older one is
// taken.
//
// A checkpoint of another cut into stages is passed over. One of another number
// of replicas serves: weights and moments are the stage's, what error feedback
// owes is folded into one vector and spread over the ranks that there are now,
// and delta records begin anew.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/layer_partition.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "worker/checkpoint/stage_transfer.h"
#include "worker/collective/residual_layout.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

/// Disks are at least this fast.
constexpr double kDiskBytesPerSecond = 2e6;

bool HasFile(const CheckpointManifest& manifest, const std::string& name,
             ManifestFile* file) {
  for (const ManifestFile& known : manifest.files) {
    if (known.name != name) continue;
    *file = known;
    return true;
  }
  return false;
}

}  // namespace

/// A checkpoint as this worker sees it; step 0: the beginning.
struct Training::Candidate {
  int64_t step = 0;
  uint64_t generation = 0;
  std::string path;
  bool has_stage = false;  // its file is here and whole
  bool has_own = false;    // all of own_ranks are
  int64_t samples_dropped = 0;
  /// The ranks whose files hold what is this worker's own: itself; or all of
  /// its stage, if there were another number of replicas.
  std::vector<int> own_ranks;
  /// With another number of replicas: the former group of the tied weights, in
  /// the order of TiedRank.
  std::vector<int> tied_ranks;
  bool has_tied = false;  // their files are here and whole
  int num_replicas = 0;
  int num_nodes = 0;  // parallel.nodes
};

std::string Training::CheckpointFolder() const {
  const v1::Assignment& assignment = options_.assignment;
  return assignment.checkpoint_folder().empty()
             ? assignment.run_folder() + "/checkpoints"
             : assignment.checkpoint_folder();
}

absl::Status Training::MakeCheckpointWriter() {
  if (!options_.send) return absl::OkStatus();
  CheckpointWriterOptions writer;
  writer.folder = CheckpointFolder();
  writer.job_id = options_.assignment.job_id();
  writer.generation = options_.assignment.generation();
  writer.stage = stage_index_;
  writer.rank = options_.assignment.rank();
  writer.layout = layout();
  writer.place = Place();
  if (!spec_.checkpoint().staging().empty()) {
    DP_ASSIGN_OR_RETURN(writer.staging_bytes,
                        ParseBytes(spec_.checkpoint().staging()));
  }
  writer.send = options_.send;
  writer_ = std::make_unique<CheckpointWriter>(std::move(writer));
  return absl::OkStatus();
}

OwnPlace Training::Place() const {
  OwnPlace place;
  place.previous_boundary = is_first() ? -1 : stage_index_ - 1;
  place.next_boundary = is_last() ? -1 : stage_index_;
  place.previous_elements = versions_->newest()->input_elements();
  place.next_elements = versions_->newest()->output_elements();
  return place;
}

Deadline Training::DiskDeadline(int64_t bytes) const {
  return Deadline::After(
      FromSeconds(options_.assignment.wait_seconds() +
                  2 * static_cast<double>(bytes) / kDiskBytesPerSecond));
}

absl::Status Training::WriteCheckpoint(int64_t done) {
  if (writer_ == nullptr) return absl::OkStatus();
  CheckpointPart part;
  part.begin = SteadyClock::now();
  Failpoint("checkpoint");
  part.step = done;
  part.samples_dropped = samples_dropped_;
  part.samples_applied = done * spec_.train().batch() - part.samples_dropped;
  OwnState& own = part.own_state;
  DP_ASSIGN_OR_RETURN(own.residuals, sync_->TakeResiduals());
  if (tied_ != nullptr) {
    DP_ASSIGN_OR_RETURN(own.tied_residuals, tied_->TakeResiduals());
  }
  if (spec_.checkpoint().records() != "forget") {
    if (previous_ != nullptr) {
      DP_ASSIGN_OR_RETURN(own.previous, previous_->TakeState());
    }
    if (next_ != nullptr) {
      DP_ASSIGN_OR_RETURN(own.next, next_->TakeState());
    }
  }
  for (SavedActivations* saved : AllSavedActivations()) {
    std::string state = saved->Save();
    if (!state.empty()) own.saved_activations.push_back(std::move(state));
  }
  int64_t bytes = StateBytes(own);
  DP_ASSIGN_OR_RETURN(OptimizerState optimizer, WholeOptimizerState(done));
  if (replica_ == 0) {
    StageState& stage = part.stage_state.emplace();
    const absl::Span<const float> weights = versions_->newest()->weights();
    stage.weights.assign(weights.begin(), weights.end());
    const absl::Span<const float> former = versions_->former();
    stage.former_weights.assign(former.begin(), former.end());
    stage.optimizer = std::move(optimizer);
    stage.norm_ratio = gradient_norm_.ratio();
    stage.is_norm_ratio_known = gradient_norm_.is_ratio_known();
    stage.loss_scale = loss_scale_.ExportState();
    stage.cursors = cursors_->positions();
    if (!counts_->are_nominal()) {
      stage.counts.assign(counts_->all().begin(), counts_->all().end());
    }
    if (compression_.has_value()) {
      stage.compression = compression_->ExportState();
    }
    bytes += StateBytes(stage);
  }
  last_checkpoint_ = done;
  return Annotate(writer_->Write(std::move(part), DiskDeadline(bytes)),
                  "write a checkpoint");
}

absl::StatusOr<OptimizerState> Training::WholeOptimizerState(int64_t done) {
  if (replica_ != 0 && !shards_state_) return OptimizerState();
  OptimizerState own = optimizer_->ExportState();
  if (!shards_state_) {
    if (tied_ != nullptr) tied_->AddState(&own);
    return own;
  }
  const Deadline deadline = ModelDeadline();
  FrameHeader header;
  header.generation = options_.assignment.generation();
  header.step = static_cast<uint32_t>(done);
  if (replica_ != 0) {
    DP_RETURN_IF_ERROR(
        Annotate(SendOptimizerState(mesh_.replica_scalars[0].get(), header, own,
                                    deadline),
                 "send a share of the optimizer's state to replica 0"));
    return OptimizerState();
  }
  const int64_t num_elements = layout().tied_begin();
  OptimizerState whole;
  DP_RETURN_IF_ERROR(PutStateOfRange(own, num_elements, owned_, &whole));
  for (int other = 1; other < num_replicas_; ++other) {
    FrameChannel* channel =
        mesh_.replica_scalars[static_cast<size_t>(other)].get();
    DP_ASSIGN_OR_RETURN(const OptimizerState share,
                        ReceiveOptimizerState(channel, deadline));
    DP_RETURN_IF_ERROR(Annotate(
        PutStateOfRange(share, num_elements, sync_->owned_by(other), &whole),
        absl::StrCat("take the share of replica ", other)));
  }
  if (tied_ != nullptr) tied_->AddState(&whole);
  return whole;
}

void Training::AwaitLastCheckpoint() {
  if (writer_ == nullptr || last_checkpoint_ == 0) return;
  const absl::Status stored =
      writer_->WaitForCommit(last_checkpoint_, WaitDeadline());
  // The job has its model: a checkpoint less is no failure.
  if (!stored.ok() && !absl::IsCancelled(stored)) {
    LOG_INFO << "the last checkpoint stays incomplete: " << stored.message();
  }
}

absl::Status Training::Pause(int64_t done) {
  is_pause_requested_ = false;
  agreed_.pauses = false;
  DP_RETURN_IF_ERROR(WriteCheckpoint(done));
  if (writer_ == nullptr) {
    return absl::FailedPreconditionError(
        "a pause needs checkpoints, and nobody takes them here");
  }
  const absl::Status stored = writer_->WaitForCommit(done, ModelDeadline());
  if (absl::IsCancelled(stored)) return stored;
  // One without a checkpoint keeps all of them at work.
  DP_ASSIGN_OR_RETURN(const std::vector<double> least,
                      LeastOfAll(static_cast<uint32_t>(done), kPausePhase,
                                 {stored.ok() ? 1.0 : 0.0}, ModelDeadline()));
  if (least[0] < 1) {
    LOG_WARNING << "step " << done << ": not paused, training goes on"
                << (stored.ok() ? std::string()
                                : absl::StrCat(": ", stored.message()));
    return absl::OkStatus();
  }
  paused_step_ = done;
  agreed_.pauses = true;
  return absl::OkStatus();
}

void Training::CommitCheckpoint(const v1::CommitCheckpoint& commit) {
  // Set before any part was sent, and until the end.
  if (writer_ != nullptr) writer_->Commit(commit);
}

absl::StatusOr<std::vector<double>> Training::LeastOfAll(
    uint32_t step, uint32_t phase, const std::vector<double>& mine,
    Deadline deadline) {
  std::vector<double> least = mine;
  for (RankGroup* group : {replicas_.get(), stages_.get()}) {
    DP_ASSIGN_OR_RETURN(const auto gathered,
                        group->AllGather(step, phase, least, deadline));
    for (const std::vector<double>& theirs : gathered) {
      for (size_t i = 0; i < least.size(); ++i) {
        least[i] = std::min(least[i], theirs[i]);
      }
    }
  }
  return least;
}

Training::Candidate Training::BestCandidate(const CheckpointScan& scan,
                                            int64_t limit_step,
                                            uint64_t limit_generation) {
  for (const FoundCheckpoint& found : scan.checkpoints) {
    const CheckpointManifest& manifest = found.manifest;
    if (std::make_pair(manifest.step, manifest.generation) >
        std::make_pair(limit_step, limit_generation)) {
      continue;
    }
    const std::string name =
        CheckpointFolderName(manifest.step, manifest.generation);
    if (manifest.num_stages != num_stages_) {
      restore_notes_.push_back(absl::StrCat(
          "checkpoint ", name, " is of ", manifest.num_stages, " stages x ",
          manifest.num_replicas, " replicas, this job has ", num_stages_, " x ",
          num_replicas_));
      continue;
    }
    v1::JobSpec former;
    // One that cannot be read says nothing that this build knows of.
    if (!google::protobuf::util::JsonStringToMessage(manifest.spec_json,
                                                     &former)
             .ok()) {
      former.Clear();
    }
    const std::string own_cut = LayersOfStages(plan_.stages());
    const auto cut = ParseLayerPartition(former.parallel().partition());
    if (cut.ok() && cut->kind == LayerPartition::Kind::kGiven &&
        former.parallel().partition() != own_cut) {
      restore_notes_.push_back(absl::StrCat(
          "checkpoint ", name, " is of stages of ",
          former.parallel().partition(), " layers, this job's have ", own_cut,
          ": parallel.partition: \"", former.parallel().partition(),
          "\" goes on from it"));
      continue;
    }
    Candidate candidate;
    candidate.step = manifest.step;
    candidate.generation = manifest.generation;
    candidate.path = found.path;
    candidate.samples_dropped = manifest.samples_dropped;
    candidate.num_replicas = manifest.num_replicas;
    candidate.own_ranks = {options_.assignment.rank()};
    if (manifest.num_replicas != num_replicas_) {
      candidate.own_ranks.resize(static_cast<size_t>(manifest.num_replicas));
      std::iota(candidate.own_ranks.begin(), candidate.own_ranks.end(),
                stage_index_ * manifest.num_replicas);
      for (const int owner : layout().tied_stages) {
        for (int replica = 0; replica < manifest.num_replicas; ++replica) {
          candidate.tied_ranks.push_back(owner * manifest.num_replicas +
                                         replica);
        }
      }
      candidate.num_nodes = former.parallel().nodes();
    }
    bool is_damaged = false;
    const auto is_whole = [&](const std::string& file_name) {
      ManifestFile file;
      absl::Status whole =
          HasFile(manifest, file_name, &file)
              ? VerifyCheckpointFile(found.path, file)
              : absl::DataLossError("its manifest does not name it");
      if (whole.ok()) return true;
      // What was never on this machine is another's; all else is damage.
      if (absl::IsNotFound(whole)) return false;
      is_damaged = true;
      restore_notes_.push_back(absl::StrCat("checkpoint ", name, " is passed ",
                                            "over: ", file_name, ": ",
                                            whole.message()));
      return false;
    };
    candidate.has_stage = is_whole(StageFileName(stage_index_));
    candidate.has_own = !is_damaged;
    for (const int rank : candidate.own_ranks) {
      if (!is_damaged) candidate.has_own &= is_whole(RankFileName(rank));
    }
    candidate.has_tied = candidate.has_own;
    for (const int rank : candidate.tied_ranks) {
      if (candidate.has_tied) candidate.has_tied = is_whole(RankFileName(rank));
    }
    if (!is_damaged) return candidate;
  }
  return Candidate();
}

absl::Status Training::Restore() {
  const Deadline deadline = ModelDeadline();
  DP_ASSIGN_OR_RETURN(const CheckpointScan scan,
                      ScanCheckpoints(CheckpointFolder()));
  restore_notes_ = scan.refused;
  int64_t limit_step = INT64_MAX;
  uint64_t limit_generation = UINT64_MAX;
  // Every round lowers the limit, or ends.
  for (uint32_t round = 0;; ++round) {
    const Candidate best = BestCandidate(scan, limit_step, limit_generation);
    const double step = static_cast<double>(best.step);
    const double generation = static_cast<double>(best.generation);
    // The largest is asked for as the least of the negatives.
    DP_ASSIGN_OR_RETURN(
        const std::vector<double> least,
        LeastOfAll(round, kRestorePhase, {step, generation, -step, -generation},
                   deadline));
    if (least[0] != -least[2] || least[1] != -least[3]) {
      // Somebody has less. By step first; of one step, by generation.
      limit_step = static_cast<int64_t>(least[0]);
      limit_generation =
          least[0] != -least[2] ? UINT64_MAX : static_cast<uint64_t>(least[1]);
      continue;
    }
    if (best.step == 0) return absl::OkStatus();
    const std::vector<double> mine = {best.has_stage ? 1.0 : 0.0,
                                      best.has_own ? 1.0 : 0.0};
    DP_ASSIGN_OR_RETURN(
        const auto of_replicas,
        replicas_->AllGather(round, kRestorePhase, mine, deadline));
    DP_ASSIGN_OR_RETURN(
        const auto of_stages,
        stages_->AllGather(round, kRestorePhase, mine, deadline));
    std::vector<bool> replicas_have_stage;
    std::vector<bool> stages_have_own;
    for (const auto& has : of_replicas) {
      replicas_have_stage.push_back(has[0] > 0);
    }
    for (const auto& has : of_stages) stages_have_own.push_back(has[1] > 0);
    const bool is_somewhere = std::count(replicas_have_stage.begin(),
                                         replicas_have_stage.end(), true) > 0;
    DP_ASSIGN_OR_RETURN(
        const std::vector<double> complete,
        LeastOfAll(round, kRestorePhase, {is_somewhere ? 1.0 : 0.0}, deadline));
    if (complete[0] > 0)
      return Load(best, stages_have_own, replicas_have_stage);
    restore_notes_.push_back(absl::StrCat(
        "checkpoint ", CheckpointFolderName(best.step, best.generation),
        " is passed over: the weights of a stage are on no machine of this "
        "job; checkpoint.folder should be storage that all of them share"));
    limit_step = best.step;
    limit_generation = best.generation - 1;
  }
}

absl::StatusOr<StageState> Training::ShareStageState(
    const Candidate& candidate, const std::vector<bool>& replicas_have_stage) {
  const auto first =
      std::find(replicas_have_stage.begin(), replicas_have_stage.end(), true);
  const int source = static_cast<int>(first - replicas_have_stage.begin());
  FrameHeader header;
  header.generation = options_.assignment.generation();
  header.step = static_cast<uint32_t>(candidate.step);
  const Deadline deadline = ModelDeadline();
  if (!candidate.has_stage) {
    auto received = ReceiveStageState(
        mesh_.replica_scalars[static_cast<size_t>(source)].get(), layout(),
        deadline);
    if (received.ok()) return received;
    return Annotate(
        received.status(),
        absl::StrCat("take the stage's state from replica ", source));
  }
  DP_ASSIGN_OR_RETURN(StageState state,
                      ReadStageFile(candidate.path, stage_index_, layout()));
  if (replica_ != source) return state;
  for (int other = 0; other < num_replicas_; ++other) {
    if (replicas_have_stage[static_cast<size_t>(other)]) continue;
    DP_RETURN_IF_ERROR(Annotate(
        SendStageState(mesh_.replica_scalars[static_cast<size_t>(other)].get(),
                       header, state, deadline),
        absl::StrCat("send the stage's state to replica ", other)));
  }
  return state;
}

absl::Status Training::Load(const Candidate& candidate,
                            const std::vector<bool>& stages_have_own,
                            const std::vector<bool>& replicas_have_stage) {
  DP_ASSIGN_OR_RETURN(StageState state,
                      ShareStageState(candidate, replicas_have_stage));
  DP_RETURN_IF_ERROR(
      versions_->Restore(candidate.step, state.weights, state.former_weights));
  if (tied_ != nullptr) DP_RETURN_IF_ERROR(tied_->TakeState(&state.optimizer));
  DP_ASSIGN_OR_RETURN(
      const OptimizerState own_state,
      shards_state_
          ? StateOfRange(state.optimizer, layout().tied_begin(), owned_)
          : state.optimizer);
  DP_RETURN_IF_ERROR(optimizer_->ImportState(own_state));
  gradient_norm_.Restore(state.norm_ratio, state.is_norm_ratio_known);
  DP_RETURN_IF_ERROR(loss_scale_.ImportState(state.loss_scale));
  DP_RETURN_IF_ERROR(cursors_->Restore(candidate.step, state.cursors));
  // Goes on under another policy, perhaps: all stages have the same ones, and
  // all begin anew.
  const absl::Status counts = counts_->Set(state.counts);
  if (!counts.ok() && options_.assignment.rank() == 0) {
    restore_notes_.push_back(absl::StrCat(
        "checkpoint ",
        CheckpointFolderName(candidate.step, candidate.generation),
        ": replicas begin with the plan's micro-batches: ", counts.message()));
  }
  last_counts_ = counts_->all();
  DP_RETURN_IF_ERROR(cursors_->SetCounts(last_counts_));
  if (compression_.has_value()) {
    DP_RETURN_IF_ERROR(compression_->ImportState(state.compression));
    optimizer_->SetCompressing(compression_->is_on());
    if (tied_ != nullptr) tied_->SetCompressing(compression_->is_on());
  }

  const std::string name =
      CheckpointFolderName(candidate.step, candidate.generation);
  if (candidate.num_replicas != num_replicas_) {
    DP_RETURN_IF_ERROR(LoadResiduals(candidate));
    if (tied_ != nullptr) DP_RETURN_IF_ERROR(LoadTiedResiduals(candidate));
  } else if (!candidate.has_own) {
    restore_notes_.push_back(absl::StrCat(
        "checkpoint ", name, ": the file of rank ", options_.assignment.rank(),
        " is not on this machine: it starts without residuals and delta "
        "records"));
  } else {
    DP_ASSIGN_OR_RETURN(
        const OwnState own,
        ReadRankFile(candidate.path, options_.assignment.rank(), Place()));
    DP_RETURN_IF_ERROR(sync_->PutResiduals(own.residuals));
    if (tied_ != nullptr) {
      DP_RETURN_IF_ERROR(tied_->PutResiduals(own.tied_residuals));
    }
    const std::vector<SavedActivations*> saved = AllSavedActivations();
    for (size_t i = 0; i < saved.size() && !own.saved_activations.empty();
         ++i) {
      // Those of a job with another number of versions begin alike.
      const bool has_own = own.saved_activations.size() == saved.size();
      DP_RETURN_IF_ERROR(
          saved[i]->Restore(own.saved_activations[has_own ? i : 0]));
    }
    const uint32_t last = static_cast<uint32_t>(candidate.step - 1);
    std::vector<std::string> left_out;
    // Both ends have the records, or neither.
    const auto put = [&](BoundaryEnd* end, const BoundaryState& records,
                         int neighbour) -> absl::Status {
      if (end == nullptr || !stages_have_own[static_cast<size_t>(neighbour)]) {
        return absl::OkStatus();
      }
      // All replicas have the same codecs.
      return end->PutState(records, last, replica_ == 0 ? &left_out : nullptr);
    };
    DP_RETURN_IF_ERROR(put(previous_.get(), own.previous, stage_index_ - 1));
    DP_RETURN_IF_ERROR(put(next_.get(), own.next, stage_index_ + 1));
    for (const std::string& sentence : left_out) {
      restore_notes_.push_back(
          absl::StrCat("checkpoint ", name, ": ", sentence));
    }
  }
  Failpoint("restored");
  step_ = candidate.step;
  samples_dropped_ = candidate.samples_dropped;
  restored_step_ = candidate.step;
  restored_generation_ = candidate.generation;
  LOG_INFO << "goes on from checkpoint " << name;
  return absl::OkStatus();
}

absl::Status Training::LoadResiduals(const Candidate& candidate) {
  const bool tells = options_.assignment.rank() == 0;
  if (tells || !candidate.has_own) {
    restore_notes_.push_back(absl::StrCat(
        "checkpoint ",
        CheckpointFolderName(candidate.step, candidate.generation), " is of ",
        candidate.num_replicas, " replicas, this job has ", num_replicas_,
        ": delta records begin anew, and residuals ",
        candidate.has_own
            ? "are spread over the replicas"
            : absl::StrCat("of rank ", options_.assignment.rank(),
                           ", too, since not all files of its stage are on "
                           "this machine")));
  }
  if (!candidate.has_own) return absl::OkStatus();
  std::vector<SyncResiduals> former;
  for (const int rank : candidate.own_ranks) {
    DP_ASSIGN_OR_RETURN(OwnState own,
                        ReadRankFile(candidate.path, rank, OwnPlace()));
    former.push_back(std::move(own.residuals));
  }
  DP_ASSIGN_OR_RETURN(
      const std::vector<float> owed,
      FoldResiduals(layout().tied_begin(),
                    NodesOf(candidate.num_replicas, candidate.num_nodes),
                    former));
  return sync_->PutResiduals(SpreadResiduals(owed, sync_->residual_place()));
}

absl::Status Training::LoadTiedResiduals(const Candidate& candidate) {
  if (!candidate.has_tied) {
    restore_notes_.push_back(absl::StrCat(
        "checkpoint ",
        CheckpointFolderName(candidate.step, candidate.generation),
        ": residuals of tied weights of rank ", options_.assignment.rank(),
        " begin anew, since not all files of the stages that hold them are on "
        "this machine"));
    return absl::OkStatus();
  }
  std::vector<SyncResiduals> former;
  for (const int rank : candidate.tied_ranks) {
    DP_ASSIGN_OR_RETURN(OwnState own,
                        ReadRankFile(candidate.path, rank, OwnPlace()));
    former.push_back(std::move(own.tied_residuals));
  }
  DP_ASSIGN_OR_RETURN(
      const std::vector<float> owed,
      FoldResiduals(tied_->num_elements(), /*nodes=*/{}, former));
  return tied_->PutResiduals(SpreadResiduals(owed, tied_->residual_place()));
}

}  // namespace deltapipe
