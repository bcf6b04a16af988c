// CheckpointBook: which workers have written their parts of which checkpoint,
// and the manifest that makes them one.
//
// Called by one job, on its thread; does no I/O. What is still open may be
// stored and given to a successor: the same parts give the same manifest.
//
//   std::optional<v1::CommitCheckpoint> commit = book.AddPart(rank, shards);
//   ... sent to all ranks, who answer ...
//   if (book.AddStored(rank, stored)) ... the checkpoint is complete ...
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_CHECKPOINT_BOOK_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_CHECKPOINT_BOOK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

struct CheckpointBookShape {
  std::string job_id;
  uint64_t generation = 0;
  int num_stages = 1;
  int num_replicas = 1;
  int keep = 2;
  std::string spec_json;
};

/// A checkpoint that every worker has stored.
struct CompleteCheckpoint {
  v1::CheckpointFolder folder;
  double seconds = 0;  // of the slowest worker
  double stall_seconds = 0;
};

class CheckpointBook {
 public:
  explicit CheckpointBook(CheckpointBookShape shape);

  /// What to send to all ranks, once all have told: the manifest, or none where
  /// one of them had an error. `tuning_json` is part of it.
  std::optional<v1::CommitCheckpoint> AddPart(int rank,
                                              const v1::CheckpointShards& part,
                                              const std::string& tuning_json);
  /// The checkpoint, once all ranks have stored its manifest.
  std::optional<CompleteCheckpoint> AddStored(
      int rank, const v1::CheckpointStored& stored);
  /// What the parts that failed had to say, since the last call.
  std::string TakeErrors();

  /// Committed ones that are kept, oldest first.
  const std::vector<v1::CheckpointFolder>& kept() const { return kept_; }
  void SetKept(const std::vector<v1::CheckpointFolder>& kept) { kept_ = kept; }

  /// Those sent before that not everybody has answered.
  std::vector<v1::CommitCheckpoint> OpenCommits(
      const std::string& tuning_json) const;

  void Save(v1::JobProgress* progress) const;
  /// Returns OpenCommits.
  std::vector<v1::CommitCheckpoint> Load(const v1::JobProgress& progress,
                                         const std::string& tuning_json);

 private:
  struct Open {
    std::map<int, v1::CheckpointShards> parts;  // by rank
    std::set<int> stored;
    std::string error;
  };
  v1::CommitCheckpoint MakeCommit(int64_t step, const Open& open,
                                  const std::string& tuning_json) const;
  int num_ranks() const { return shape_.num_stages * shape_.num_replicas; }

  const CheckpointBookShape shape_;
  std::map<int64_t, Open> open_;  // by step
  std::vector<v1::CheckpointFolder> kept_;
  std::string errors_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_CHECKPOINT_BOOK_H_
