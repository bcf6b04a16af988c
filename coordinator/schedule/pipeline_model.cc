#include "coordinator/schedule/pipeline_model.h"

#include <algorithm>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "coordinator/schedule/codec_speed.h"
#include "coordinator/schedule/predict_traffic.h"
#include "coordinator/spec/synchronisation.h"

namespace deltapipe {
namespace {

/// Of the optimizer's arithmetic, memory-bound; only an order of magnitude.
constexpr double kApplySecondsPerParameter = 3e-9;

DirectionModel ModelOfDirection(double wire_bytes, double raw_bytes,
                                const std::string& codec,
                                double num_microbatches) {
  const CodecSeconds seconds =
      PredictCodecSeconds(codec, raw_bytes / 4 / num_microbatches);
  return {wire_bytes / num_microbatches, seconds.encode, seconds.decode};
}

}  // namespace

absl::StatusOr<PipelineModel> ModelOfPlan(const v1::Plan& plan,
                                          const v1::JobSpec& spec,
                                          Visit visit) {
  if (plan.num_microbatches() < 1) {
    return absl::InvalidArgumentError("plan has no micro-batches");
  }
  DP_ASSIGN_OR_RETURN(const LinkFacts facts, LinkFactsOf(spec.network()));
  const v1::TrainSpec& train = spec.train();
  const bool ends_compressed =
      train.optimizer().compress_after_step() == "auto" ||
      train.steps() > CompressAfterStep(train);
  PipelineModel model;
  const auto num_tied_stages = std::count_if(
      plan.stages().begin(), plan.stages().end(),
      [](const auto& stage) { return stage.tied_parameters() > 0; });
  for (const v1::StagePlan& stage : plan.stages()) {
    DP_ASSIGN_OR_RETURN(
        const StageSync sync,
        PredictStageSync(spec, plan.gradient_codec(), stage.parameters(),
                         stage.tied_parameters(),
                         static_cast<int>(num_tied_stages)));
    StageModel costs;
    costs.forward_seconds = stage.forward_seconds();
    costs.backward_seconds = stage.backward_seconds();
    costs.reduce_seconds =
        ends_compressed ? sync.compressed.seconds : sync.plain.seconds;
    costs.apply_seconds =
        kApplySecondsPerParameter * static_cast<double>(stage.parameters());
    model.stages.push_back(costs);
  }
  for (const v1::LinkPlan& link : plan.links()) {
    LinkModel lanes;
    lanes.bits_per_second = facts.bits_per_second;
    lanes.latency_seconds = facts.latency_seconds;
    lanes.activation =
        ModelOfDirection(visit == Visit::kFirst ? link.first_visit_wire_bytes()
                                                : link.activation_wire_bytes(),
                         link.activation_raw_bytes(), plan.activation_codec(),
                         plan.num_microbatches());
    lanes.gradient = ModelOfDirection(
        link.gradient_wire_bytes(), link.gradient_raw_bytes(),
        plan.activation_gradient_codec(), plan.num_microbatches());
    model.links.push_back(lanes);
  }
  // Norms and verdicts go to all ranks once.
  const bool is_alone = plan.num_stages() * plan.num_replicas() == 1;
  model.verdict_seconds = is_alone ? 0 : facts.latency_seconds;
  return model;
}

}  // namespace deltapipe
