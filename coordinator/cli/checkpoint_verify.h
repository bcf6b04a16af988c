// Reads a checkpoint in full and says what is wrong with it.
#ifndef DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERIFY_H_
#define DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERIFY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/cli/checkpoint_listing.h"

namespace deltapipe {

struct CheckpointVerdict {
  int num_files = 0;      // read
  int64_t num_bytes = 0;  // read
  /// A sentence each; empty: the checkpoint is good.
  std::vector<std::string> defects;
};

/// Compares sizes and digests of all files with the manifest, opens every
/// safetensors file and looks whether each stage has one. With `may_be_partial`
/// files that lie on other hosts may be missing, but not all of them.
CheckpointVerdict VerifyCheckpoint(const ListedCheckpoint& checkpoint,
                                   bool may_be_partial);

/// "stage-3.safetensors".
std::string StageShardName(int stage);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERIFY_H_
