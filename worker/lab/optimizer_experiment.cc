#include "worker/lab/optimizer_experiment.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "base/optimizer_kind.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "base/tensor_view.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/loopback_ranks.h"
#include "worker/engine/gradient_norm.h"
#include "worker/lab/recorded_gradients.h"
#include "worker/optim/compression_switch.h"
#include "worker/optim/lane_reduction.h"
#include "worker/optim/learning_rate.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/optimizer_fields.h"
#include "worker/optim/parameter_groups.h"

namespace deltapipe {
namespace {

constexpr char kIdentity[] = "identity";
constexpr std::chrono::minutes kPatience{10};
constexpr uint32_t kVerdictPhase = 1;

/// What all ranks of a run do.
struct RunPlan {
  const RecordedGradients* recorded = nullptr;
  ParameterLayout layout;  // with groups
  OptimizerOptions optimizer;
  LearningRateOptions learning_rate;
  GradientSyncOptions sync;
  double clip_norm = 0;
};

/// One replica: the calls of worker/engine's step, without a model.
class VirtualRank {
 public:
  VirtualRank(const RunPlan& plan, RankGroup* group)
      : plan_(plan),
        group_(group),
        weights_(plan.recorded->parameters()),
        gradient_(weights_.size()) {}

  absl::Status Run() {
    DP_ASSIGN_OR_RETURN(optimizer_,
                        Optimizer::Create(plan_.optimizer, plan_.layout));
    DP_ASSIGN_OR_RETURN(
        sync_, GradientSync::Create(plan_.sync, group_,
                                    static_cast<int64_t>(weights_.size())));
    CompressionSwitchOptions decider;
    decider.compress_after_step = plan_.optimizer.compress_after_step;
    decider.beta2 = plan_.optimizer.beta2;
    DP_ASSIGN_OR_RETURN(CompressionSwitch compression,
                        CompressionSwitch::Create(decider));
    const bool decides =
        IsCompressingKind(plan_.optimizer.kind) &&
        plan_.optimizer.compress_after_step == kCompressByDecision;
    for (int64_t step = 0; step < plan_.recorded->num_steps(); ++step) {
      DP_ASSIGN_OR_RETURN(const double squared_norm, Step(step));
      if (!decides) continue;
      if (std::isfinite(squared_norm)) compression.Observe(squared_norm);
      if (!compression.WantsEvidence(step)) continue;
      const std::string change =
          compression.Update(step, optimizer_->Evidence());
      if (change.empty()) continue;
      decisions_.push_back(change);
      optimizer_->SetCompressing(compression.is_on());
    }
    if (optimizer_->AreReplicasEqual()) {
      common_weights_ = std::move(weights_);
      num_common_steps_ = plan_.recorded->num_steps();
    }
    const GradientSyncCounters counters = sync_->counters();
    result_.sent_bytes = counters.payload_bytes;
    result_.off_node_bytes = counters.off_node_bytes;
    result_.worker_residual_norm = counters.worker_residual_norm;
    result_.server_residual_norm = counters.server_residual_norm;
    return absl::OkStatus();
  }

  /// After the last step after which replicas were equal.
  const std::vector<float>& common_weights() const { return common_weights_; }
  int64_t num_common_steps() const { return num_common_steps_; }
  const RankResult& result() const { return result_; }
  const std::vector<std::string>& decisions() const { return decisions_; }
  int64_t num_compressed_steps() const { return num_compressed_steps_; }
  int64_t num_local_steps() const { return num_local_steps_; }
  int64_t num_skipped_steps() const { return num_skipped_steps_; }

 private:
  /// Returns the squared norm of the clipped mean gradient, as the engine knows
  /// it: the same on all ranks, not finite if the step was skipped.
  absl::StatusOr<double> Step(int64_t step) {
    const double rate =
        LearningRate(plan_.learning_rate, step, plan_.recorded->num_steps());
    plan_.recorded->Copy(step, group_->rank(), absl::MakeSpan(gradient_));
    const double own_squared_norm =
        SumOfSquares(gradient_.data(), static_cast<int64_t>(gradient_.size()));
    const SyncRequest request =
        optimizer_->Prepare(step, rate, weights_, absl::MakeSpan(gradient_));
    if (request.format == SyncFormat::kNone) {
      ++num_local_steps_;
      if (optimizer_->AreReplicasEqual()) {
        common_weights_ = weights_;
        num_common_steps_ = step;
      }
    } else {
      DP_RETURN_IF_ERROR(Synchronize(step, request));
    }
    const double squared_norm = optimizer_->MeanGradientSquaredNorm();
    const double norm = std::sqrt(squared_norm);
    const double mine[] = {std::isfinite(norm) ? 1.0 : 0.0, own_squared_norm};
    DP_ASSIGN_OR_RETURN(
        const auto verdicts,
        group_->AllGather(static_cast<uint32_t>(step), kVerdictPhase, mine,
                          Deadline::After(kPatience)));
    const bool is_good = std::all_of(
        verdicts.begin(), verdicts.end(),
        [](const std::vector<double>& values) { return values[0] != 0; });
    double mean_own_squared_norm = 0;
    for (const std::vector<double>& values : verdicts) {
      mean_own_squared_norm += values[1] / static_cast<double>(verdicts.size());
    }
    if (request.format != SyncFormat::kNone) {
      DP_RETURN_IF_ERROR(
          sync_->Finish(is_good ? SyncVerdict::kCommit : SyncVerdict::kAbort));
    }
    if (!is_good) {
      ++num_skipped_steps_;
      optimizer_->Skip();
      return std::numeric_limits<double>::infinity();
    }
    const double clip = plan_.clip_norm > 0 && norm > plan_.clip_norm
                            ? plan_.clip_norm / norm
                            : 1.0;
    DP_RETURN_IF_ERROR(
        optimizer_->Apply(step, rate, clip, absl::MakeSpan(weights_)));
    const double known_norm =
        gradient_norm_.Update(request.format == SyncFormat::kPlain,
                              squared_norm, mean_own_squared_norm);
    return plan_.clip_norm > 0
               ? std::pow(std::min(known_norm, plan_.clip_norm), 2)
               : known_norm * known_norm;
  }

  absl::Status Synchronize(int64_t step, const SyncRequest& request) {
    const GradientSyncCounters before = sync_->counters();
    DP_RETURN_IF_ERROR(sync_->Begin(static_cast<uint32_t>(step), request));
    DP_RETURN_IF_ERROR(sync_->Wait(Deadline::After(kPatience)));
    optimizer_->Wake(sync_->woken());
    if (request.format == SyncFormat::kCompressed) {
      ++num_compressed_steps_;
      const GradientSyncCounters after = sync_->counters();
      result_.compressed_sent_bytes +=
          after.payload_bytes - before.payload_bytes;
      result_.compressed_off_node_bytes +=
          after.off_node_bytes - before.off_node_bytes;
    }
    return absl::OkStatus();
  }

  const RunPlan& plan_;
  RankGroup* const group_;
  std::vector<float> weights_;
  std::vector<float> gradient_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<GradientSync> sync_;
  std::vector<float> common_weights_;
  int64_t num_common_steps_ = 0;
  int64_t num_compressed_steps_ = 0;
  int64_t num_local_steps_ = 0;
  int64_t num_skipped_steps_ = 0;
  std::vector<std::string> decisions_;
  GradientNorm gradient_norm_;
  RankResult result_;
};

using VirtualRanks = std::vector<std::unique_ptr<VirtualRank>>;

absl::Status CheckRanksAgree(const VirtualRanks& ranks) {
  const std::vector<float>& first = ranks[0]->common_weights();
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    const std::vector<float>& other = ranks[rank]->common_weights();
    if (other.size() != first.size() ||
        std::memcmp(other.data(), first.data(), first.size() * sizeof(float)) !=
            0) {
      return absl::DataLossError(absl::StrCat(
          "rank ", rank, " ended with other weights than rank 0 after ",
          ranks[0]->num_common_steps(), " steps"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<VirtualRanks> RunRanks(const RunPlan& plan) {
  const int num_ranks = plan.recorded->num_ranks();
  DP_ASSIGN_OR_RETURN(LoopbackRanks loopback, LoopbackRanks::Create(num_ranks));
  VirtualRanks ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks.push_back(std::make_unique<VirtualRank>(plan, loopback.group(rank)));
  }
  std::vector<absl::Status> statuses(ranks.size());
  loopback.Run([&](int rank) {
    const size_t i = static_cast<size_t>(rank);
    statuses[i] = ranks[i]->Run();
    // The others must not wait for this one.
    if (!statuses[i].ok()) loopback.group(rank)->Cancel(statuses[i]);
  });
  for (const absl::Status& status : statuses) DP_RETURN_IF_ERROR(status);
  DP_RETURN_IF_ERROR(CheckRanksAgree(ranks));
  return ranks;
}

/// ||a - b|| / ||b||; 0 where both are 0.
double RelativeDistance(const std::vector<float>& a,
                        const std::vector<float>& b) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

absl::StatusOr<OptimizerSettings> ReadSettings(
    const OptimizerExperiment& experiment) {
  OptimizerSettings settings;
  DP_RETURN_IF_ERROR(
      SetOptimizerField("kind", experiment.algorithm, &settings));
  for (const std::string& setting : experiment.settings) {
    const std::pair<std::string, std::string> field =
        absl::StrSplit(setting, absl::MaxSplits('=', 1));
    if (setting.find('=') == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("--set: expected field=value, got \"", setting, "\""));
    }
    if (field.first == "kind") {
      return absl::InvalidArgumentError(
          "--set: the kind is given by --algorithm");
    }
    DP_RETURN_IF_ERROR(SetOptimizerField(field.first, field.second, &settings));
  }
  return settings;
}

absl::Status CheckCounts(const OptimizerExperiment& experiment) {
  if (experiment.ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ranks: expected at least 1, got ", experiment.ranks));
  }
  if (experiment.nodes < 0 || experiment.nodes > experiment.ranks ||
      (experiment.nodes > 0 && experiment.ranks % experiment.nodes != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--nodes: expected a number that divides the ",
                     experiment.ranks, " ranks, got ", experiment.nodes));
  }
  if (experiment.node_codec != "none") {
    const bool is_nested =
        experiment.nodes > 1 && experiment.nodes < experiment.ranks;
    if (experiment.node_codec != "cast(bf16)") {
      return absl::InvalidArgumentError(
          absl::StrCat("--node-codec: expected none or cast(bf16), got \"",
                       experiment.node_codec, "\""));
    }
    if (!is_nested) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--node-codec: expected --nodes that put several of the ",
          experiment.ranks, " ranks on each of two or more nodes, got ",
          experiment.nodes));
    }
  }
  if (!(experiment.clip_norm >= 0) || !std::isfinite(experiment.clip_norm)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--clip-norm: expected a number >= 0, got ", experiment.clip_norm));
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const OptimizerExperiment& experiment,
                          const ParameterLayout& layout,
                          std::vector<float> weights, int64_t num_steps) {
  SafetensorsWriter writer;
  for (const ParameterSegment& segment : layout.segments) {
    writer.Add(segment.name, TensorView(DType::kFloat32, segment.shape,
                                        weights.data() + segment.offset));
  }
  return writer.WriteTo(experiment.output_path,
                        {{"deltapipe_optimizer", experiment.algorithm},
                         {"deltapipe_steps", absl::StrCat(num_steps)}});
}

OptimizerResult Summarize(const RecordedGradients& recorded, int num_nodes,
                          const VirtualRanks& ranks) {
  OptimizerResult result;
  result.num_parameters = recorded.layout().num_elements;
  result.num_steps = recorded.num_steps();
  result.num_compressed_steps = ranks[0]->num_compressed_steps();
  result.num_local_steps = ranks[0]->num_local_steps();
  result.num_skipped_steps = ranks[0]->num_skipped_steps();
  result.num_steps_in_output = ranks[0]->num_common_steps();
  result.decisions = ranks[0]->decisions();
  result.node_egress_bytes.resize(static_cast<size_t>(num_nodes));
  const size_t ranks_per_node = ranks.size() / static_cast<size_t>(num_nodes);
  int64_t largest = 0;
  std::vector<int64_t> compressed_egress(result.node_egress_bytes.size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    RankResult own = ranks[rank]->result();
    own.node = static_cast<int>(rank / ranks_per_node);
    // One node is for GradientSync as if each rank had its own.
    if (num_nodes == 1) own.off_node_bytes = own.compressed_off_node_bytes = 0;
    largest = std::max(largest, own.compressed_sent_bytes);
    const size_t node = static_cast<size_t>(own.node);
    result.node_egress_bytes[node] += own.off_node_bytes;
    compressed_egress[node] += own.compressed_off_node_bytes;
    result.ranks.push_back(own);
  }
  const double values = static_cast<double>(result.num_parameters) *
                        static_cast<double>(result.num_compressed_steps);
  if (values > 0) {
    result.bits_per_parameter = 8 * static_cast<double>(largest) / values;
    result.node_bytes_per_parameter =
        static_cast<double>(*std::max_element(compressed_egress.begin(),
                                              compressed_egress.end())) /
        values;
  }
  return result;
}

}  // namespace

absl::StatusOr<OptimizerResult> RunOptimizerExperiment(
    const OptimizerExperiment& experiment) {
  DP_RETURN_IF_ERROR(CheckCounts(experiment));
  DP_ASSIGN_OR_RETURN(const OptimizerSettings settings,
                      ReadSettings(experiment));
  DP_RETURN_IF_ERROR(
      Annotate(GradientSync::CheckCodec(experiment.codec), "--codec"));
  DP_ASSIGN_OR_RETURN(
      const RecordedGradients recorded,
      RecordedGradients::Read(experiment.parameters_path,
                              experiment.gradients_path, experiment.ranks));
  RunPlan plan;
  plan.recorded = &recorded;
  plan.layout = recorded.layout();
  DP_RETURN_IF_ERROR(CheckGroupsAreUsed(
      settings.groups, AssignParameterGroups(settings.groups, &plan.layout),
      plan.layout));
  DP_ASSIGN_OR_RETURN(plan.optimizer, settings.OptionsOf(recorded.num_steps()));
  plan.learning_rate = settings.RateOf();
  plan.clip_norm = experiment.clip_norm;
  plan.sync.compressed_codec = experiment.codec;
  plan.sync.node_codec = experiment.node_codec;
  const int num_nodes =
      experiment.nodes == 0 ? experiment.ranks : experiment.nodes;
  for (int rank = 0; rank < experiment.ranks; ++rank) {
    plan.sync.nodes.push_back(rank / (experiment.ranks / num_nodes));
  }

  DP_ASSIGN_OR_RETURN(const VirtualRanks ranks, RunRanks(plan));
  OptimizerResult result = Summarize(recorded, num_nodes, ranks);
  if (IsCompressingKind(plan.optimizer.kind) && experiment.codec != kIdentity) {
    plan.sync.compressed_codec = kIdentity;
    DP_ASSIGN_OR_RETURN(const VirtualRanks uncompressed, RunRanks(plan));
    result.relative_distance = RelativeDistance(
        ranks[0]->common_weights(), uncompressed[0]->common_weights());
  }
  DP_RETURN_IF_ERROR(WriteWeights(experiment, recorded.layout(),
                                  ranks[0]->common_weights(),
                                  result.num_steps_in_output));
  return result;
}

}  // namespace deltapipe
