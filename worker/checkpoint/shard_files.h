// The files of a checkpoint that workers write and read:
//
//   stage-S.safetensors  weights/NAME, and per optimizer state
//                        optimizer/STATE/NAME (a value per parameter) or
//                        optimizer/STATE (another number), engine/norm_ratio,
//                        and what the job has of engine/{loss_scale,cursors,
//                        compression}
//   rank-R.safetensors   residuals/{worker,server,server_ranges}, where weights
//                        are tied tied_residuals/{the same}, and per boundary
//                        and direction boundary-B/{sent,received}/{keys,
//                        versions,records,last_version}, their codec as
//                        metadata boundary-B/{sent,received}/codec
//
// Records are bf16 or fp32 as their codec keeps them; all else is fp32, keys
// and ranges int64. What is read is checked against the stage it is for:
// INVALID_ARGUMENT names file and tensor.
#ifndef DELTAPIPE_WORKER_CHECKPOINT_SHARD_FILES_H_
#define DELTAPIPE_WORKER_CHECKPOINT_SHARD_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checkpoint/manifest.h"
#include "worker/checkpoint/rank_state.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

std::string StageFileName(int stage);
std::string RankFileName(int rank);

/// Where an OwnState belongs.
struct OwnPlace {
  int previous_boundary = -1;  // -1: there is none
  int next_boundary = -1;
  /// Of one sample's tensor at each of them.
  int64_t previous_elements = 0;
  int64_t next_elements = 0;
};

int64_t StateBytes(const StageState& state);
int64_t StateBytes(const OwnState& state);

/// Write the file into `folder`, sync it, and return its size and digest.
absl::StatusOr<ManifestFile> WriteStageFile(const std::string& folder,
                                            int stage,
                                            const ParameterLayout& layout,
                                            const StageState& state);
absl::StatusOr<ManifestFile> WriteRankFile(const std::string& folder, int rank,
                                           const OwnPlace& place,
                                           const OwnState& state);

absl::StatusOr<StageState> ReadStageFile(const std::string& folder, int stage,
                                         const ParameterLayout& layout);
absl::StatusOr<OwnState> ReadRankFile(const std::string& folder, int rank,
                                      const OwnPlace& place);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CHECKPOINT_SHARD_FILES_H_
