// CheckpointWriter: writes one worker's part of checkpoints beside training.
//
// The engine hands a copy of its state over and goes on; a thread of this
// object writes and syncs the files, then tells the coordinator through
// `send`. When all parts of all workers are there the coordinator answers with
// the manifest, which makes them a checkpoint (see base/checkpoint/manifest.h),
// and with the folders to keep.
//
// At most one checkpoint is being written. What must not be held in memory
// beside training (options.staging_bytes) is waited for instead. A full disk
// costs that checkpoint and nothing else.
#ifndef DELTAPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_
#define DELTAPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/checkpoint/rank_state.h"
#include "worker/checkpoint/shard_files.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

struct CheckpointWriterOptions {
  std::string folder;
  std::string job_id;
  uint64_t generation = 0;
  int stage = 0;
  int rank = 0;
  ParameterLayout layout;
  OwnPlace place;
  int64_t staging_bytes = INT64_MAX;
  /// CheckpointShards and CheckpointStored; called by the writer's thread.
  std::function<void(v1::WorkerMessage)> send;
};

/// One worker's part of one checkpoint.
struct CheckpointPart {
  int64_t step = 0;  // done
  /// Absent on replicas whose stage another one writes.
  std::optional<StageState> stage_state;
  OwnState own_state;
  int64_t samples_applied = 0;
  int64_t samples_dropped = 0;
  /// When training stopped for it.
  std::chrono::steady_clock::time_point begin;
};

class CheckpointWriter {
 public:
  explicit CheckpointWriter(CheckpointWriterOptions options);
  /// Finishes the file that is being written and drops what waits.
  ~CheckpointWriter();

  /// Waits until a former checkpoint is written, and for this one if it is
  /// larger than the staging memory. DEADLINE_EXCEEDED, CANCELLED.
  absl::Status Write(CheckpointPart part, Deadline deadline);
  /// The coordinator's answer; returns at once. Any thread.
  void Commit(v1::CommitCheckpoint commit);
  /// Waits until the manifest of `step` is stored here. The error that kept it
  /// from being written; DEADLINE_EXCEEDED, CANCELLED.
  absl::Status WaitForCommit(int64_t step, Deadline deadline);
  /// Wakes all waits, which return `reason`. Any thread.
  void Cancel(const absl::Status& reason);
  /// Of the part that it holds, 0 if it holds none. Beside training never more
  /// than options.staging_bytes: a larger part is held while Write waits for
  /// it, or after its wait was cut short. Any thread.
  int64_t staged_bytes();

 private:
  using Task = std::variant<CheckpointPart, v1::CommitCheckpoint>;

  bool IsWaitedFor(const CheckpointPart& part) const;
  void Run();
  void WritePart(const CheckpointPart& part);
  absl::Status WriteFiles(const CheckpointPart& part,
                          v1::CheckpointShards* shards);
  void Store(const v1::CommitCheckpoint& commit);

  const CheckpointWriterOptions options_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Task> tasks_ DP_GUARDED_BY(mutex_);
  bool is_writing_ DP_GUARDED_BY(mutex_) = false;
  int64_t staged_bytes_ DP_GUARDED_BY(mutex_) = 0;
  bool must_stop_ DP_GUARDED_BY(mutex_) = false;
  absl::Status cancelled_ DP_GUARDED_BY(mutex_);
  int64_t stored_step_ DP_GUARDED_BY(mutex_) = 0;
  int64_t failed_step_ DP_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ DP_GUARDED_BY(mutex_);
  double stall_seconds_ DP_GUARDED_BY(mutex_) = 0;
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CHECKPOINT_CHECKPOINT_WRITER_H_
