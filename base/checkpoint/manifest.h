// What makes a folder of files a checkpoint: manifest.json, written last.
//
//   checkpoints/
//     step-000000050-g7/
//       stage-0.safetensors   weights and optimizer state of stage 0
//       rank-0.safetensors    residuals, delta records of rank 0
//       ...
//       manifest.json
//
// The manifest names every file with its size and digest (XXH3-64), and what
// the checkpoint is of. Its last member is the digest of all text before, so
// that a torn or changed manifest is none. A folder without a valid manifest is
// not a checkpoint, whatever lies in it. Folders may be shared by all workers
// or lie on each host: then each holds the manifest and its own files.
//
// Nothing here trusts what it reads. Thread-compatible; no function blocks but
// for the disk.
#ifndef DELTAPIPE_BASE_CHECKPOINT_MANIFEST_H_
#define DELTAPIPE_BASE_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

struct ManifestFile {
  std::string name;  // without a folder
  int64_t bytes = 0;
  uint64_t digest = 0;
};

struct CheckpointManifest {
  std::string job_id;
  uint64_t generation = 0;
  int64_t step = 0;  // done
  int num_stages = 0;
  int num_replicas = 0;
  int64_t time_millis = 0;
  /// Samples applied to the weights and left out since the job's beginning.
  int64_t samples_applied = 0;
  int64_t samples_dropped = 0;
  /// The job spec, and the tuning in force, as proto JSON.
  std::string spec_json;
  std::string tuning_json;
  std::vector<ManifestFile> files;
};

/// "step-000000050-g7".
std::string CheckpointFolderName(int64_t step, uint64_t generation);
/// INVALID_ARGUMENT if `name` is not one.
absl::Status ParseCheckpointFolderName(const std::string& name, int64_t* step,
                                       uint64_t* generation);

/// The text of manifest.json.
std::string FormatManifest(const CheckpointManifest& manifest);
/// DATA_LOSS, naming `origin` and what is wrong.
absl::StatusOr<CheckpointManifest> ParseManifest(const std::string& text,
                                                 const std::string& origin);

struct FoundCheckpoint {
  std::string path;  // of its folder
  CheckpointManifest manifest;
};

struct CheckpointScan {
  /// Newest first: by step, then by generation.
  std::vector<FoundCheckpoint> checkpoints;
  /// Folders that are no checkpoint, and why, one sentence each; one that is
  /// still being written (no manifest yet) is not among them.
  std::vector<std::string> refused;
};

/// The checkpoints below `folder`; empty if there is no such folder.
absl::StatusOr<CheckpointScan> ScanCheckpoints(const std::string& folder);

/// The manifest of the checkpoint in folder `path`. NOT_FOUND if there is none,
/// FAILED_PRECONDITION if `path` is a link or a file, DATA_LOSS if the manifest
/// is not valid there.
absl::StatusOr<CheckpointManifest> LoadManifest(const std::string& path);

/// Compares one file of a checkpoint with its manifest by size and digest.
/// NOT_FOUND if it is not there, DATA_LOSS if it differs.
absl::Status VerifyCheckpointFile(const std::string& checkpoint_path,
                                  const ManifestFile& file);
/// The file's size and digest, read from the disk.
absl::StatusOr<ManifestFile> DigestFile(const std::string& folder,
                                        const std::string& name);

/// Makes the folder a checkpoint: writes the manifest's text to a temporary
/// file, syncs it, renames it, syncs the folder. OK if the same text is there
/// already; FAILED_PRECONDITION if another is, or the folder is a link;
/// INVALID_ARGUMENT if the text is no manifest of what the folder's name says.
absl::Status StoreManifest(const std::string& checkpoint_path,
                           const std::string& text);

/// Removes the checkpoint folders below `folder` whose names are not in `kept`
/// and that are older than the newest of `kept`: the manifest first, so that
/// what remains of an interrupted removal is no checkpoint. Never removes
/// anything else; other processes may remove the same at the same time. With
/// none to keep it removes nothing. FAILED_PRECONDITION, and nothing is
/// removed, unless one of `kept` has a valid manifest here.
absl::Status RemoveOldCheckpoints(const std::string& folder,
                                  const std::vector<std::string>& kept);
/// Removes one, the same way. NOT_FOUND if there is none at `path`,
/// FAILED_PRECONDITION if it is a link, INVALID_ARGUMENT if its name is not
/// that of a checkpoint.
absl::Status RemoveCheckpoint(const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CHECKPOINT_MANIFEST_H_
