// parallel.partition: how the layers of a model are cut into pipeline stages.
#ifndef DELTAPIPE_BASE_LAYER_PARTITION_H_
#define DELTAPIPE_BASE_LAYER_PARTITION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

struct LayerPartition {
  enum class Kind {
    kMeasured,  // stages that compute equally long
    kEven,      // equally many layers each
    kGiven,
  };
  Kind kind = Kind::kMeasured;
  std::vector<int> layers;  // kGiven: of each stage, at least 1
};

/// From "auto" or nothing, "even", or the layers of each stage, "3,1".
/// INVALID_ARGUMENT with these forms otherwise.
absl::StatusOr<LayerPartition> ParseLayerPartition(absl::string_view text);

/// "3,1", of a plan's stages (anything with first_layer() and end_layer()).
template <typename Stages>
std::string LayersOfStages(const Stages& stages) {
  std::string text;
  for (const auto& stage : stages) {
    if (!text.empty()) text += ',';
    text += std::to_string(stage.end_layer() - stage.first_layer());
  }
  return text;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_LAYER_PARTITION_H_
