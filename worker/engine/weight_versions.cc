#include "worker/engine/weight_versions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<std::unique_ptr<WeightVersions>> WeightVersions::Create(
    const MakeStage& make, int delay) {
  if (delay != 0 && delay != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight delay: expected 0 or 1, got ", delay));
  }
  std::vector<Instance> instances(static_cast<size_t>(delay) + 1);
  for (Instance& instance : instances) {
    DP_ASSIGN_OR_RETURN(instance.stage, make());
  }
  return std::unique_ptr<WeightVersions>(
      new WeightVersions(std::move(instances)));
}

std::vector<Stage*> WeightVersions::stages() const {
  std::vector<Stage*> stages;
  for (const Instance& instance : instances_) {
    stages.push_back(instance.stage.get());
  }
  return stages;
}

absl::Span<float> WeightVersions::BeginUpdate(int64_t step) {
  const absl::Span<float> weights = Of(step)->weights();
  if (Of(step) != newest()) {
    const absl::Span<const float> from = newest()->weights();
    std::copy(from.begin(), from.end(), weights.begin());
  }
  return weights;
}

absl::Status WeightVersions::EndUpdate(int64_t step) {
  newest_ = static_cast<size_t>(step) % instances_.size();
  instances_[newest_].num_updates = step + 1;
  return instances_[newest_].stage->WeightsChanged();
}

absl::Span<const float> WeightVersions::former() const {
  if (delay() == 0) return {};
  return instances_[1 - newest_].stage->weights();
}

absl::Status WeightVersions::Put(size_t index, int64_t num_updates,
                                 absl::Span<const float> weights) {
  const absl::Span<float> to = instances_[index].stage->weights();
  if (to.size() != weights.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected ", to.size(), " weights, got ", weights.size()));
  }
  std::copy(weights.begin(), weights.end(), to.begin());
  instances_[index].num_updates = num_updates;
  return instances_[index].stage->WeightsChanged();
}

absl::Status WeightVersions::Restore(int64_t num_updates,
                                     absl::Span<const float> newest,
                                     absl::Span<const float> former) {
  newest_ = static_cast<size_t>(num_updates + delay()) % instances_.size();
  DP_RETURN_IF_ERROR(Put(newest_, num_updates, newest));
  if (delay() == 0) return absl::OkStatus();
  const bool has_former = !former.empty() && num_updates > 0;
  return Put(1 - newest_, has_former ? num_updates - 1 : num_updates,
             has_former ? former : newest);
}

}  // namespace deltapipe
