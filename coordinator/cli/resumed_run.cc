#include "coordinator/cli/resumed_run.h"

#include <google/protobuf/util/json_util.h>

#include <optional>

#include "base/checkpoint/manifest.h"
#include "base/layer_partition.h"
#include "coordinator/spec/carried_state.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {
namespace {

std::vector<FoundCheckpoint> CheckpointsOf(const std::string& folder,
                                           const v1::JobSpec& spec) {
  const std::string& elsewhere = spec.checkpoint().folder();
  auto scan =
      ScanCheckpoints(elsewhere.empty() ? folder + "/checkpoints" : elsewhere);
  if (!scan.ok()) return {};
  return std::move(scan->checkpoints);
}

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

void KeepCut(const std::string& folder, v1::JobSpec* spec) {
  v1::ParallelSpec* const parallel = spec->mutable_parallel();
  if (parallel->partition() != "auto") return;
  const auto checkpoints = CheckpointsOf(folder, *spec);
  if (checkpoints.empty()) return;
  const auto former = FormerSpec(checkpoints.front().manifest);
  if (!former.has_value() || !TakesCutOf(*former, *spec) ||
      former->model().layers() != spec->model().layers()) {
    return;
  }
  const auto cut = ParseLayerPartition(former->parallel().partition());
  if (!cut.ok() || cut->kind != LayerPartition::Kind::kGiven) return;
  parallel->set_partition(former->parallel().partition());
}

std::vector<SpecViolation> CheckResumable(const std::string& folder,
                                          const v1::JobSpec& spec) {
  for (const FoundCheckpoint& found : CheckpointsOf(folder, spec)) {
    const auto former = FormerSpec(found.manifest);
    if (!former.has_value()) return {};
    if (!TakesCutOf(*former, spec)) continue;
    return FindUncarried(
        *former, spec, FormerTuning(found.manifest),
        CheckpointFolderName(found.manifest.step, found.manifest.generation));
  }
  return {};
}

}  // namespace deltapipe
