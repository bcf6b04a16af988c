// One model out of the stage shards of a checkpoint, in the form of
// model.safetensors.
#ifndef DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_EXPORT_H_
#define DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/cli/checkpoint_listing.h"

namespace deltapipe {

struct ExportOptions {
  std::string output;  // "model.safetensors"
  /// Tensors are spread over several files of at most this size each (a larger
  /// tensor has a file of its own), with output + ".index.json" beside them.
  int64_t max_shard_bytes = INT64_MAX;
  bool may_replace = false;
};

struct ExportedModel {
  std::vector<std::string> files;  // the index last
  int64_t num_tensors = 0;
  int64_t num_bytes = 0;  // of tensors
};

/// Verifies the stages' shards, then copies their weights piece by piece.
/// DATA_LOSS or NOT_FOUND for a shard that is damaged or not here,
/// ALREADY_EXISTS for a file in the way, else the errors of base/file.h. On
/// error none of the files is left.
absl::StatusOr<ExportedModel> ExportCheckpoint(
    const ListedCheckpoint& checkpoint, const ExportOptions& options);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_EXPORT_H_
