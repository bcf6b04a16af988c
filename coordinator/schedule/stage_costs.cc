#include "coordinator/schedule/stage_costs.h"

#include <algorithm>
#include <chrono>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/layer_partition.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/schedule/partition.h"

namespace deltapipe {
namespace {

constexpr int64_t kFloatBytes = 4;

absl::StatusOr<double> Seconds(const std::string& text,
                               absl::string_view field) {
  auto duration = ParseDuration(text);
  if (!duration.ok()) return Annotate(duration.status(), field);
  return std::chrono::duration<double>(*duration).count();
}

absl::StatusOr<std::vector<StageCost>> SyntheticStages(
    const v1::JobSpec& spec) {
  const v1::SyntheticSpec& synthetic = spec.model().synthetic();
  StageCost cost;
  DP_ASSIGN_OR_RETURN(
      cost.forward_seconds,
      Seconds(synthetic.forward_time(), "model.synthetic.forward_time"));
  DP_ASSIGN_OR_RETURN(
      cost.backward_seconds,
      Seconds(synthetic.backward_time(), "model.synthetic.backward_time"));
  cost.parameters = synthetic.parameters_per_stage();
  cost.output_elements =
      static_cast<int64_t>(spec.model().context()) * spec.model().width();
  cost.output_shape = {spec.model().context(), spec.model().width()};
  // A synthetic stage keeps the tensor that it received.
  cost.saved_bytes =
      kFloatBytes * cost.output_elements * spec.train().microbatch();
  std::vector<StageCost> stages;
  for (int r = 0; r < spec.parallel().stages(); ++r) {
    cost.first_layer = r;
    cost.end_layer = r + 1;
    stages.push_back(cost);
  }
  return stages;
}

/// Parameters of one tensor that layers share, which a stage holds once, are in
/// the sum of each of its layers.
void CountTiedOnce(const v1::StageProfile& profile,
                   std::vector<StageCost>* stages) {
  for (StageCost& stage : *stages) {
    int num_layers = 0;
    for (int i = stage.first_layer; i < stage.end_layer; ++i) {
      const int64_t tied = profile.layers(i).tied_parameters();
      if (tied == 0) continue;
      if (++num_layers > 1) stage.parameters -= tied;
      stage.tied_parameters = tied;
    }
  }
  if (NumTiedStages(*stages) > 1) return;
  for (StageCost& stage : *stages) stage.tied_parameters = 0;
}

absl::StatusOr<std::vector<int>> GivenEnds(const std::vector<int>& layers,
                                           int num_stages, int num_layers) {
  std::vector<int> ends;
  int64_t sum = 0;
  for (const int count : layers) {
    sum += count;
    ends.push_back(static_cast<int>(std::min<int64_t>(sum, num_layers)));
  }
  if (sum == num_layers && ends.size() == static_cast<size_t>(num_stages)) {
    return ends;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "parallel.partition: ", absl::StrJoin(layers, ","), " is ", sum,
      " layers in ", layers.size(), " stages, and the model has ", num_layers,
      " in ", num_stages));
}

absl::StatusOr<std::vector<int>> EndsOfStages(const v1::ParallelSpec& parallel,
                                              const v1::StageProfile& profile) {
  auto partition = ParseLayerPartition(parallel.partition());
  if (!partition.ok()) {
    return Annotate(partition.status(), "parallel.partition");
  }
  if (partition->kind == LayerPartition::Kind::kGiven) {
    return GivenEnds(partition->layers, parallel.stages(),
                     profile.layers_size());
  }
  std::vector<double> costs;
  for (const v1::LayerProfile& layer : profile.layers()) {
    costs.push_back(partition->kind == LayerPartition::Kind::kEven
                        ? 1
                        : layer.forward_seconds() + layer.backward_seconds());
  }
  return PartitionLayers(costs, parallel.stages());
}

}  // namespace

absl::StatusOr<std::vector<StageCost>> CutIntoStages(
    const v1::JobSpec& spec, const v1::StageProfile& profile,
    double compute_slowdown) {
  if (spec.model().kind() == "synthetic") return SyntheticStages(spec);
  DP_ASSIGN_OR_RETURN(const std::vector<int> ends,
                      EndsOfStages(spec.parallel(), profile));
  const std::vector<SizeShare> sizes = MixedSizes(spec.data().sizes());
  if (!sizes.empty()) compute_slowdown *= MeanArea(sizes);
  std::vector<StageCost> stages;
  int begin = 0;
  for (const int end : ends) {
    StageCost cost;
    cost.first_layer = begin;
    cost.end_layer = end;
    for (int i = begin; i < end; ++i) {
      const v1::LayerProfile& layer = profile.layers(i);
      cost.forward_seconds += layer.forward_seconds() * compute_slowdown;
      cost.backward_seconds += layer.backward_seconds() * compute_slowdown;
      cost.saved_bytes += layer.saved_bytes();
      cost.parameters += layer.parameters();
      cost.output_elements = layer.output_elements();
    }
    if (PacksSavedActivations(spec)) {
      cost.saved = SavedMemoryOf(spec, profile, begin, end);
      cost.saved.stage = static_cast<int>(stages.size());
      cost.saved_bytes = cost.saved.stored_bytes;
    }
    const v1::ModelSpec& model = spec.model();
    cost.output_shape = BoundaryShapeOf(model.kind(), end, model.layers(),
                                        model.width(), model.context());
    cost.mixed_shapes =
        SizedBoundaryShapes(sizes, end, model.layers(), model.width());
    stages.push_back(cost);
    begin = end;
  }
  CountTiedOnce(profile, &stages);
  return stages;
}

int NumTiedStages(const std::vector<StageCost>& stages) {
  return static_cast<int>(std::count_if(
      stages.begin(), stages.end(),
      [](const StageCost& stage) { return stage.tied_parameters > 0; }));
}

int64_t ParameterBytes(const v1::OptimizerSpec& optimizer, int64_t parameters,
                       int num_replicas) {
  int64_t bytes =
      2 * kFloatBytes * parameters +  // weights and gradients
      PredictOptimizerBytes(optimizer, parameters, num_replicas).kept;
  if (IsCompressingKind(optimizer.kind())) {
    // A second variance or update, what is synchronised, both residuals and
    // their journal.
    bytes += kFloatBytes * (4 * parameters + 2 * parameters / num_replicas);
  }
  return bytes;
}

OptimizerBytes PredictOptimizerBytes(const v1::OptimizerSpec& optimizer,
                                     int64_t parameters, int num_replicas) {
  // Momentum, also where it is 0; but for sgd both moments.
  const int64_t vectors = optimizer.kind() == "sgd" ? 1 : 2;
  OptimizerBytes bytes;
  bytes.replicated = vectors * kFloatBytes * parameters;
  if (CanShardState(optimizer.kind())) {
    bytes.sharded = (bytes.replicated + num_replicas - 1) / num_replicas;
  }
  bytes.kept =
      optimizer.shard_state() == "on" ? bytes.sharded : bytes.replicated;
  return bytes;
}

int64_t WorkingCopyBytes(const v1::TrainSpec& train, int64_t parameters) {
  const bool is_half =
      train.precision() == "bf16" || train.precision() == "fp16";
  return is_half ? 2 * 2 * parameters : 0;
}

}  // namespace deltapipe
