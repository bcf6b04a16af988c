// Which checkpoints a word of the command line means, and what each looks like
// from outside: `deltapipe checkpoint` on folders, without a coordinator.
//
// Nothing here writes. Thread-safe.
#ifndef DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_LISTING_H_
#define DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_LISTING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/checkpoint/manifest.h"

namespace deltapipe {

struct ListedCheckpoint {
  std::string path;  // of its folder
  int64_t step = 0;
  uint64_t generation = 0;
  /// None if there is no valid one.
  std::optional<CheckpointManifest> manifest;
  int num_files_here = 0;  // of those that the manifest names
  /// "ok": all files are here with their sizes (digests are not read);
  /// "incomplete": some are not here; "damaged"; "unfinished": it has no
  /// manifest, or not yet.
  std::string state;
  /// A sentence, unless it is ok.
  std::string problem;

  bool is_ok() const { return state == "ok"; }
  int64_t num_bytes() const;  // of the files that the manifest names
};

/// What the words after a verb mean.
struct CheckpointChoice {
  std::string runs = "runs";
  /// A run's name (runs/NAME/checkpoints), its folder, a folder of checkpoints
  /// or one checkpoint's folder.
  std::string job;
  std::optional<int64_t> step;
  std::optional<uint64_t> generation;
};

/// The checkpoints that `choice` means, newest first; not empty. NOT_FOUND if
/// there are none, naming what there is.
absl::StatusOr<std::vector<ListedCheckpoint>> FindCheckpoints(
    const CheckpointChoice& choice);

/// One of them to read from: the newest with a manifest. DATA_LOSS, with the
/// reason, if none has one.
absl::StatusOr<ListedCheckpoint> FindCheckpointToRead(
    const CheckpointChoice& choice);

/// The folder of all checkpoints of the job that `choice` names.
absl::StatusOr<std::string> FindCheckpointsFolder(
    const CheckpointChoice& choice);
/// All that lie in such a folder, newest first; maybe none.
absl::StatusOr<std::vector<ListedCheckpoint>> ListCheckpoints(
    const std::string& folder);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_LISTING_H_
