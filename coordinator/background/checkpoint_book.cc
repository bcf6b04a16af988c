#include "coordinator/background/checkpoint_book.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"

namespace deltapipe {

CheckpointBook::CheckpointBook(CheckpointBookShape shape)
    : shape_(std::move(shape)) {}

std::optional<v1::CommitCheckpoint> CheckpointBook::AddPart(
    int rank, const v1::CheckpointShards& part,
    const std::string& tuning_json) {
  Open& open = open_[part.step()];
  if (!open.parts.emplace(rank, part).second) return std::nullopt;
  if (open.error.empty()) open.error = part.error();
  if (static_cast<int>(open.parts.size()) < num_ranks()) return std::nullopt;
  v1::CommitCheckpoint commit = MakeCommit(part.step(), open, tuning_json);
  if (!open.error.empty()) {
    absl::StrAppend(&errors_, errors_.empty() ? "" : "; ", "step ", part.step(),
                    ": ", open.error);
    open_.erase(part.step());
  }
  return commit;
}

v1::CommitCheckpoint CheckpointBook::MakeCommit(
    int64_t step, const Open& open, const std::string& tuning_json) const {
  v1::CommitCheckpoint commit;
  commit.set_job_id(shape_.job_id);
  commit.set_generation(shape_.generation);
  commit.set_step(step);
  if (!open.error.empty()) return commit;
  CheckpointManifest manifest;
  manifest.job_id = shape_.job_id;
  manifest.generation = shape_.generation;
  manifest.step = step;
  manifest.num_stages = shape_.num_stages;
  manifest.num_replicas = shape_.num_replicas;
  manifest.spec_json = shape_.spec_json;
  manifest.tuning_json = tuning_json;
  for (const auto& [rank, part] : open.parts) {
    if (rank == 0) {
      manifest.time_millis = part.time_millis();
      manifest.samples_applied = part.samples_applied();
      manifest.samples_dropped = part.samples_dropped();
    }
    for (const v1::CheckpointFile& told : part.files()) {
      ManifestFile file{told.name(), told.bytes(), 0};
      // A digest that is none fails every comparison.
      if (!absl::SimpleHexAtoi(told.digest(), &file.digest)) file.bytes = -1;
      manifest.files.push_back(std::move(file));
    }
  }
  commit.set_manifest(FormatManifest(manifest));
  // The one being committed is among the kept.
  const size_t num_old = static_cast<size_t>(std::max(shape_.keep - 1, 0));
  for (size_t i = kept_.size() - std::min(kept_.size(), num_old);
       i < kept_.size(); ++i) {
    commit.add_kept_folders(kept_[i].name());
  }
  commit.add_kept_folders(CheckpointFolderName(step, shape_.generation));
  return commit;
}

std::optional<CompleteCheckpoint> CheckpointBook::AddStored(
    int rank, const v1::CheckpointStored& stored) {
  const auto found = open_.find(stored.step());
  if (found == open_.end()) return std::nullopt;
  Open& open = found->second;
  if (!stored.error().empty()) {
    absl::StrAppend(&errors_, errors_.empty() ? "" : "; ", "step ",
                    stored.step(), ": ", stored.error());
  }
  open.stored.insert(rank);
  if (static_cast<int>(open.stored.size()) < num_ranks()) return std::nullopt;
  CompleteCheckpoint complete;
  complete.folder.set_name(
      CheckpointFolderName(stored.step(), shape_.generation));
  complete.folder.set_step(stored.step());
  for (const auto& [part_rank, part] : open.parts) {
    if (part_rank == 0) complete.folder.set_time_millis(part.time_millis());
    for (const v1::CheckpointFile& file : part.files()) {
      complete.folder.set_bytes(complete.folder.bytes() + file.bytes());
    }
    complete.seconds = std::max(complete.seconds, part.seconds());
    complete.stall_seconds =
        std::max(complete.stall_seconds, part.stall_seconds());
  }
  // Those that were never completed never will be.
  open_.erase(open_.begin(), std::next(found));
  kept_.push_back(complete.folder);
  while (static_cast<int>(kept_.size()) > std::max(shape_.keep, 1)) {
    kept_.erase(kept_.begin());
  }
  return complete;
}

std::string CheckpointBook::TakeErrors() { return std::exchange(errors_, ""); }

std::vector<v1::CommitCheckpoint> CheckpointBook::OpenCommits(
    const std::string& tuning_json) const {
  std::vector<v1::CommitCheckpoint> commits;
  for (const auto& [step, open] : open_) {
    if (static_cast<int>(open.parts.size()) == num_ranks()) {
      commits.push_back(MakeCommit(step, open, tuning_json));
    }
  }
  return commits;
}

void CheckpointBook::Save(v1::JobProgress* progress) const {
  for (const auto& [step, open] : open_) {
    for (const auto& [rank, part] : open.parts) {
      v1::JobProgress::OpenShards* saved = progress->add_open_shards();
      saved->set_rank(rank);
      *saved->mutable_shards() = part;
    }
  }
  for (const v1::CheckpointFolder& folder : kept_) {
    *progress->add_checkpoints() = folder;
  }
}

std::vector<v1::CommitCheckpoint> CheckpointBook::Load(
    const v1::JobProgress& progress, const std::string& tuning_json) {
  kept_.assign(progress.checkpoints().begin(), progress.checkpoints().end());
  for (const v1::JobProgress::OpenShards& saved : progress.open_shards()) {
    AddPart(saved.rank(), saved.shards(), tuning_json);
  }
  return OpenCommits(tuning_json);
}

}  // namespace deltapipe
