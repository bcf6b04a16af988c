#include "coordinator/cli/resumed_run.h"

#include <google/protobuf/util/json_util.h>

#include <optional>

#include "base/checkpoint/manifest.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {
namespace {

/// Which codecs were in force; empty if this build cannot read it.
v1::Tuning FormerTuning(const CheckpointManifest& manifest) {
  v1::Tuning tuning;
  if (!google::protobuf::util::JsonStringToMessage(manifest.tuning_json,
                                                   &tuning)
           .ok()) {
    tuning.Clear();
  }
  return tuning;
}

/// The spec of the job that wrote it, if this build can read it.
std::optional<v1::JobSpec> FormerSpec(const CheckpointManifest& manifest) {
  v1::JobSpec former;
  if (!google::protobuf::util::JsonStringToMessage(manifest.spec_json, &former)
           .ok()) {
    return std::nullopt;
  }
  FillDefaults(&former);
  return former;
}

}  // namespace

std::vector<FormerCheckpoint> CheckpointsOfRun(const std::string& folder,
                                               const v1::JobSpec& spec) {
  const std::string& elsewhere = spec.checkpoint().folder();
  const auto scan =
      ScanCheckpoints(elsewhere.empty() ? folder + "/checkpoints" : elsewhere);
  std::vector<FormerCheckpoint> checkpoints;
  if (!scan.ok()) return checkpoints;
  for (const FoundCheckpoint& found : scan->checkpoints) {
    const CheckpointManifest& manifest = found.manifest;
    checkpoints.push_back(
        {CheckpointFolderName(manifest.step, manifest.generation),
         FormerSpec(manifest), FormerTuning(manifest)});
  }
  return checkpoints;
}

}  // namespace deltapipe
