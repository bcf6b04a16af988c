#include "base/layer_partition.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace deltapipe {

absl::StatusOr<LayerPartition> ParseLayerPartition(absl::string_view text) {
  LayerPartition partition;
  if (text.empty() || text == "auto") return partition;
  if (text == "even") {
    partition.kind = LayerPartition::Kind::kEven;
    return partition;
  }
  partition.kind = LayerPartition::Kind::kGiven;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int layers = 0;
    if (!absl::SimpleAtoi(part, &layers) || layers < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expected auto, even or the layers of each stage, at least 1 each, "
          "such as \"3,1\"; got '",
          text, "'"));
    }
    partition.layers.push_back(layers);
  }
  return partition;
}

}  // namespace deltapipe
