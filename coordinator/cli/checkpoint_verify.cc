#include "coordinator/cli/checkpoint_verify.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/safetensors_stream.h"

namespace deltapipe {

std::string StageShardName(int stage) {
  return absl::StrCat("stage-", stage, ".safetensors");
}

CheckpointVerdict VerifyCheckpoint(const ListedCheckpoint& checkpoint,
                                   bool may_be_partial) {
  CheckpointVerdict verdict;
  if (!checkpoint.manifest) {
    verdict.defects.push_back(checkpoint.problem);
    return verdict;
  }
  std::set<std::string> names;
  std::vector<std::string> missing;
  for (const ManifestFile& file : checkpoint.manifest->files) {
    names.insert(file.name);
    const absl::Status status = VerifyCheckpointFile(checkpoint.path, file);
    if (absl::IsNotFound(status)) {
      missing.push_back(std::string(status.message()));
      continue;
    }
    ++verdict.num_files;
    verdict.num_bytes += file.bytes;
    if (!status.ok()) {
      verdict.defects.push_back(std::string(status.message()));
      continue;
    }
    if (!absl::EndsWith(file.name, ".safetensors")) continue;
    const auto reader =
        SafetensorsReader::Open(absl::StrCat(checkpoint.path, "/", file.name));
    if (!reader.ok()) {
      verdict.defects.push_back(std::string(reader.status().message()));
    }
  }
  for (int stage = 0; stage < checkpoint.manifest->num_stages; ++stage) {
    if (names.count(StageShardName(stage)) == 0) {
      verdict.defects.push_back(absl::StrCat(
          checkpoint.path, "/manifest.json names no ", StageShardName(stage),
          ", but has ", checkpoint.manifest->num_stages, " stages"));
    }
  }
  if (!may_be_partial || verdict.num_files == 0) {
    verdict.defects.insert(verdict.defects.end(), missing.begin(),
                           missing.end());
  }
  return verdict;
}

}  // namespace deltapipe
