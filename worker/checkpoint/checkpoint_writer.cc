#include "worker/checkpoint/checkpoint_writer.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/checkpoint/manifest.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

int64_t PartBytes(const CheckpointPart& part) {
  return StateBytes(part.own_state) +
         (part.stage_state.has_value() ? StateBytes(*part.stage_state) : 0);
}

}  // namespace

CheckpointWriter::CheckpointWriter(CheckpointWriterOptions options)
    : options_(std::move(options)), thread_("checkpoint", [this] { Run(); }) {}

CheckpointWriter::~CheckpointWriter() {
  {
    MutexLock lock(&mutex_);
    must_stop_ = true;
    tasks_.clear();
  }
  changed_.NotifyAll();
  thread_.Join();
}

absl::Status CheckpointWriter::Write(CheckpointPart part, Deadline deadline) {
  const int64_t step = part.step;
  const int64_t bytes = PartBytes(part);
  const bool is_waited_for = IsWaitedFor(part);
  const auto is_idle = [this]() DP_REQUIRES(mutex_) {
    return !cancelled_.ok() || (tasks_.empty() && !is_writing_);
  };
  const auto late = [&] {
    return absl::DeadlineExceededError(
        absl::StrCat("the disk of ", options_.folder,
                     " did not take a checkpoint in time (step ", step, ")"));
  };
  {
    MutexLock lock(&mutex_);
    if (!changed_.WaitUntil(lock, deadline, is_idle)) return late();
    if (!cancelled_.ok()) return cancelled_;
    stall_seconds_ = SecondsSince(part.begin);
    tasks_.push_back(std::move(part));
    staged_bytes_ = bytes;
  }
  changed_.NotifyAll();
  if (!is_waited_for) return absl::OkStatus();
  MutexLock lock(&mutex_);
  if (!changed_.WaitUntil(lock, deadline, is_idle)) return late();
  return cancelled_;
}

bool CheckpointWriter::IsWaitedFor(const CheckpointPart& part) const {
  return PartBytes(part) > options_.staging_bytes;
}

int64_t CheckpointWriter::staged_bytes() {
  MutexLock lock(&mutex_);
  return staged_bytes_;
}

void CheckpointWriter::Commit(v1::CommitCheckpoint commit) {
  {
    MutexLock lock(&mutex_);
    if (must_stop_) return;
    tasks_.push_back(std::move(commit));
  }
  changed_.NotifyAll();
}

absl::Status CheckpointWriter::WaitForCommit(int64_t step, Deadline deadline) {
  MutexLock lock(&mutex_);
  const bool is_known = changed_.WaitUntil(lock, deadline, [&]() {
    return !cancelled_.ok() || stored_step_ >= step || failed_step_ >= step;
  });
  if (stored_step_ >= step) return absl::OkStatus();
  if (!cancelled_.ok()) return cancelled_;
  if (is_known) return failure_;
  return absl::DeadlineExceededError(
      absl::StrCat("the checkpoint of step ", step,
                   " was written here, but other workers' parts or the "
                   "coordinator's word did not come in time"));
}

void CheckpointWriter::Cancel(const absl::Status& reason) {
  {
    MutexLock lock(&mutex_);
    if (cancelled_.ok()) cancelled_ = reason;
  }
  changed_.NotifyAll();
}

void CheckpointWriter::Run() {
  while (true) {
    Task task;
    {
      MutexLock lock(&mutex_);
      changed_.Wait(lock, [&] { return must_stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      is_writing_ = true;
    }
    if (const CheckpointPart* part = std::get_if<CheckpointPart>(&task)) {
      WritePart(*part);
    } else {
      Store(std::get<v1::CommitCheckpoint>(task));
    }
    const bool is_part = std::holds_alternative<CheckpointPart>(task);
    task = Task();  // frees the copy before the next one may come
    {
      MutexLock lock(&mutex_);
      is_writing_ = false;
      if (is_part) staged_bytes_ = 0;
    }
    changed_.NotifyAll();
  }
}

void CheckpointWriter::WritePart(const CheckpointPart& part) {
  v1::WorkerMessage message;
  v1::CheckpointShards& shards = *message.mutable_shards();
  shards.set_job_id(options_.job_id);
  shards.set_generation(options_.generation);
  shards.set_step(part.step);
  shards.set_time_millis(Clock::Real()->WallMillis());
  shards.set_samples_applied(part.samples_applied);
  shards.set_samples_dropped(part.samples_dropped);
  const absl::Status written = WriteFiles(part, &shards);
  Failpoint("files-written");
  shards.set_seconds(SecondsSince(part.begin));
  {
    MutexLock lock(&mutex_);
    // Training stands still until all is written, or until it was handed over.
    shards.set_stall_seconds(IsWaitedFor(part) ? shards.seconds()
                                               : stall_seconds_);
    if (!written.ok()) {
      failed_step_ = part.step;
      failure_ = written;
    }
  }
  if (!written.ok()) {
    shards.clear_files();
    shards.set_error(std::string(written.message()));
    LOG_WARNING << "no checkpoint of step " << part.step << ": "
                << written.message();
  }
  options_.send(std::move(message));
}

absl::Status CheckpointWriter::WriteFiles(const CheckpointPart& part,
                                          v1::CheckpointShards* shards) {
  const std::string folder =
      absl::StrCat(options_.folder, "/",
                   CheckpointFolderName(part.step, options_.generation));
  DP_RETURN_IF_ERROR(MakeDirectories(folder));
  std::vector<ManifestFile> files;
  if (part.stage_state.has_value()) {
    DP_ASSIGN_OR_RETURN(ManifestFile file,
                        WriteStageFile(folder, options_.stage, options_.layout,
                                       *part.stage_state));
    files.push_back(std::move(file));
    Failpoint("stage-file-written");
  }
  DP_ASSIGN_OR_RETURN(
      ManifestFile own,
      WriteRankFile(folder, options_.rank, options_.place, part.own_state));
  files.push_back(std::move(own));
  for (const ManifestFile& file : files) {
    v1::CheckpointFile* told = shards->add_files();
    told->set_name(file.name);
    told->set_bytes(file.bytes);
    told->set_digest(absl::StrFormat("%016x", file.digest));
  }
  return absl::OkStatus();
}

void CheckpointWriter::Store(const v1::CommitCheckpoint& commit) {
  if (commit.manifest().empty()) {
    MutexLock lock(&mutex_);
    failed_step_ = commit.step();
    failure_ = absl::UnavailableError(
        absl::StrCat("no checkpoint of step ", commit.step(),
                     ": another worker could not write its part"));
    return;
  }
  const std::string folder =
      absl::StrCat(options_.folder, "/",
                   CheckpointFolderName(commit.step(), commit.generation()));
  Failpoint("manifest");
  const absl::Status stored = StoreManifest(folder, commit.manifest());
  Failpoint("manifest-stored");
  v1::WorkerMessage message;
  v1::CheckpointStored& told = *message.mutable_stored();
  told.set_job_id(commit.job_id());
  told.set_generation(commit.generation());
  told.set_step(commit.step());
  if (!stored.ok()) told.set_error(std::string(stored.message()));
  options_.send(std::move(message));
  if (stored.ok()) {
    // Older ones only cost room: trouble with them is no trouble of this one.
    const absl::Status removed = RemoveOldCheckpoints(
        options_.folder,
        {commit.kept_folders().begin(), commit.kept_folders().end()});
    if (!removed.ok()) {
      LOG_WARNING << "old checkpoints stay: " << removed.message();
    }
  }
  MutexLock lock(&mutex_);
  if (stored.ok()) {
    stored_step_ = commit.step();
  } else {
    failed_step_ = commit.step();
    failure_ = stored;
  }
}

}  // namespace deltapipe
