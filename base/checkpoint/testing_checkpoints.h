// Small checkpoints for tests: two stages, with weights and optimizer state.
#ifndef DELTAPIPE_BASE_CHECKPOINT_TESTING_CHECKPOINTS_H_
#define DELTAPIPE_BASE_CHECKPOINT_TESTING_CHECKPOINTS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"
#include "base/file.h"
#include "base/safetensors.h"

namespace deltapipe {

/// Writes stage-0, stage-1 and rank-0 of `step` and a manifest into its folder
/// below `folder`, which is made. Weight k of the model is 100 * k + step.
/// Returns the path of the checkpoint's folder; "" if it cannot be written.
inline std::string MakeTestingCheckpoint(const std::string& folder,
                                         int64_t step,
                                         uint64_t generation = 1) {
  const std::string path =
      absl::StrCat(folder, "/", CheckpointFolderName(step, generation));
  if (!MakeDirectories(path).ok()) return "";
  const std::vector<std::vector<std::pair<std::string, Shape>>> stages = {
      {{"block0.weight", {2, 3}}, {"block0.bias", {3}}},
      {{"head.scale", {}}, {"head.weight", {3, 2}}}};
  CheckpointManifest manifest;
  manifest.job_id = "text-1";
  manifest.generation = generation;
  manifest.step = step;
  manifest.num_stages = 2;
  manifest.num_replicas = 1;
  manifest.time_millis = 1700000000000;
  manifest.samples_applied = 32 * step;
  manifest.spec_json = "{\"name\":\"text\"}";
  manifest.tuning_json = "{\"revision\":3}";
  const auto write = [&](const std::string& name, SafetensorsWriter* writer) {
    if (!writer->WriteTo(absl::StrCat(path, "/", name), {}).ok()) return false;
    const auto file = DigestFile(path, name);
    if (file.ok()) manifest.files.push_back(*file);
    return file.ok();
  };
  float next = static_cast<float>(step);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    std::vector<std::vector<float>> values;
    SafetensorsWriter writer;
    for (const auto& [name, shape] : stages[stage]) {
      values.emplace_back(static_cast<size_t>(NumElements(shape)), next);
      next += 100;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const auto& [name, shape] = stages[stage][i];
      const TensorView view(DType::kFloat32, shape, values[i].data());
      writer.Add(absl::StrCat("weights/", name), view);
      writer.Add(absl::StrCat("optimizer/momentum/", name), view);
    }
    if (!write(absl::StrCat("stage-", stage, ".safetensors"), &writer)) {
      return "";
    }
  }
  std::vector<float> residuals = {1, 2, 3};
  SafetensorsWriter writer;
  writer.Add("residuals/worker",
             TensorView(DType::kFloat32, {3}, residuals.data()));
  if (!write("rank-0.safetensors", &writer)) return "";
  return StoreManifest(path, FormatManifest(manifest)).ok() ? path : "";
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CHECKPOINT_TESTING_CHECKPOINTS_H_
