#include "coordinator/schedule/build_plan.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/delay_stability.h"
#include "base/mixed_sizes.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
#include "base/units.h"
#include "coordinator/schedule/check_plan.h"
#include "coordinator/schedule/pipeline_model.h"
#include "coordinator/schedule/predict_traffic.h"
#include "coordinator/schedule/resolve_codecs.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/simulate.h"
#include "coordinator/schedule/stage_costs.h"
#include "coordinator/schedule/warmup_depth.h"

namespace deltapipe {
namespace {

/// What the system, the program and its buffers leave of a worker's memory.
constexpr double kUsableMemory = 0.8;

/// What planning found out, step by step.
class Planner {
 public:
  explicit Planner(const PlanInputs& inputs)
      : inputs_(inputs), spec_(inputs.spec) {}

  absl::StatusOr<PlannedJob> Run() {
    DP_RETURN_IF_ERROR(ReadShape());
    DP_ASSIGN_OR_RETURN(stages_, CutIntoStages(spec_, inputs_.profile,
                                               inputs_.compute_slowdown));
    DP_RETURN_IF_ERROR(NotePartition());
    DP_RETURN_IF_ERROR(ReadBudget());
    DP_RETURN_IF_ERROR(ChooseCodecs());
    DP_RETURN_IF_ERROR(PredictTraffic());
    FillStages();
    DP_ASSIGN_OR_RETURN(model_, ModelOfPlan(job_.plan, spec_));
    DP_RETURN_IF_ERROR(LimitInFlight());
    DP_RETURN_IF_ERROR(ChooseSchedule());
    PlanLimits limits;
    limits.memory_budget_bytes = budget_bytes_;
    for (const StageCost& stage : stages_) {
      limits.saved_bytes.push_back(stage.saved_bytes);
    }
    const std::string& policy = spec_.stragglers().policy();
    limits.may_end_early = MayDropWork(policy) || MayMoveWork(policy);
    DP_RETURN_IF_ERROR(CheckPlan(job_.plan, limits));
    return std::move(job_);
  }

 private:
  absl::Status ReadShape();
  absl::Status NotePartition();
  absl::Status ReadBudget();
  absl::Status ChooseCodecs();
  absl::Status PredictTraffic();
  absl::Status NoteTied();
  absl::Status LimitInFlight();
  absl::Status ChooseSchedule();
  absl::Status ChooseDepth(Schedule* schedule);
  void NoteDelay();
  void MakeRoom(const Schedule& schedule);
  void FillStages();
  absl::Status DoesNotFit(size_t stage, int64_t in_flight) const;

  int64_t FixedBytes(size_t stage) const {
    const int64_t parameters = stages_[stage].parameters;
    const int64_t tied = stages_[stage].tied_parameters;
    const v1::OptimizerSpec& optimizer = spec_.train().optimizer();
    const int64_t bytes = ParameterBytes(optimizer, parameters - tied,
                                         spec_.parallel().replicas()) +
                          (tied == 0 ? 0
                                     : ParameterBytes(Replicated(optimizer),
                                                      tied, num_tied_ranks())) +
                          WorkingCopyBytes(spec_.train(), parameters);
    if (!is_continuous()) return bytes;
    // A second version of weights and gradients.
    return bytes + 2 * 4 * parameters +
           WorkingCopyBytes(spec_.train(), parameters);
  }
  bool is_continuous() const { return spec_.parallel().schedule() == "2bw"; }
  /// Of what is tied every rank keeps all of the state.
  static v1::OptimizerSpec Replicated(v1::OptimizerSpec optimizer) {
    optimizer.set_shard_state("off");
    return optimizer;
  }
  int num_tied_ranks() const {
    return NumTiedStages(stages_) * spec_.parallel().replicas();
  }
  /// Of the codecs at both ends of the stage.
  int64_t StateBytes(size_t stage) const {
    double bytes = 0;
    if (stage > 0) bytes += codecs_.downstream_state_bytes[stage - 1];
    if (stage < codecs_.upstream_state_bytes.size()) {
      bytes += codecs_.upstream_state_bytes[stage];
    }
    return static_cast<int64_t>(std::min(bytes, 1e18));
  }

  const PlanInputs& inputs_;
  const v1::JobSpec& spec_;
  PipelineShape shape_;
  std::vector<StageCost> stages_;
  int64_t budget_bytes_ = INT64_MAX;  // of saved activations, per worker
  int64_t usable_bytes_ = INT64_MAX;  // of a worker
  ResolvedCodecs codecs_;
  PipelineModel model_;
  std::vector<int64_t> in_flight_limits_;
  PlannedJob job_;
};

absl::Status Planner::ReadShape() {
  const v1::TrainSpec& train = spec_.train();
  const v1::ParallelSpec& parallel = spec_.parallel();
  if (parallel.stages() < 1 || parallel.replicas() < 1 ||
      train.microbatch() < 1 || train.batch() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parallel.stages, parallel.replicas, train.batch and train.microbatch: "
        "expected at least 1 each, got ",
        parallel.stages(), ", ", parallel.replicas(), ", ", train.batch(),
        " and ", train.microbatch()));
  }
  const int64_t round =
      static_cast<int64_t>(train.microbatch()) * parallel.replicas();
  if (train.batch() % round != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "train.batch: expected a multiple of microbatch x replicas = ", round,
        ", got ", train.batch()));
  }
  shape_.num_stages = parallel.stages();
  shape_.num_microbatches = static_cast<int>(train.batch() / round);
  job_.plan.set_revision(1);
  job_.plan.set_num_stages(shape_.num_stages);
  job_.plan.set_num_replicas(parallel.replicas());
  job_.plan.set_num_microbatches(shape_.num_microbatches);
  job_.plan.set_microbatch_samples(train.microbatch());
  return absl::OkStatus();
}

double SlowestSeconds(const std::vector<StageCost>& stages) {
  double slowest = 0;
  for (const StageCost& stage : stages) {
    slowest = std::max(slowest, stage.forward_seconds + stage.backward_seconds);
  }
  return slowest;
}

std::string LayersOf(const std::vector<StageCost>& stages) {
  return absl::StrJoin(
      stages, ",", [](std::string* text, const StageCost& stage) {
        absl::StrAppend(text, stage.end_layer - stage.first_layer);
      });
}

/// Says so where measured times cut otherwise than the number of layers would:
/// another run may measure otherwise.
absl::Status Planner::NotePartition() {
  const std::string& asked = spec_.parallel().partition();
  if (asked != "auto" && !asked.empty()) return absl::OkStatus();
  v1::JobSpec even_spec = spec_;
  even_spec.mutable_parallel()->set_partition("even");
  // Only times are asked for: what is packed need not be planned again.
  even_spec.mutable_compression()->set_saved_activations("none");
  DP_ASSIGN_OR_RETURN(
      const std::vector<StageCost> even,
      CutIntoStages(even_spec, inputs_.profile, inputs_.compute_slowdown));
  const std::string layers = LayersOf(stages_);
  if (layers == LayersOf(even)) return absl::OkStatus();
  job_.notes.push_back(absl::StrFormat(
      "partition: auto is %s layers: the slowest stage computes %.3g s a "
      "micro-batch, with even %.3g s; parallel.partition: \"%s\" cuts other "
      "runs alike",
      layers, SlowestSeconds(stages_), SlowestSeconds(even), layers));
  return absl::OkStatus();
}

absl::Status Planner::ReadBudget() {
  if (!spec_.parallel().memory().empty()) {
    auto budget = ParseBytes(spec_.parallel().memory());
    if (!budget.ok()) return Annotate(budget.status(), "parallel.memory");
    budget_bytes_ = *budget == 0 ? INT64_MAX : *budget;
  }
  if (inputs_.worker_memory_bytes > 0) {
    usable_bytes_ = static_cast<int64_t>(
        kUsableMemory * static_cast<double>(inputs_.worker_memory_bytes));
  }
  return absl::OkStatus();
}

absl::Status Planner::ChooseCodecs() {
  CodecFacts facts;
  facts.train_samples = inputs_.train_samples > 0 ? inputs_.train_samples
                                                  : TrainSamplesOfSpec(spec_);
  for (size_t r = 0; r < stages_.size(); ++r) {
    if (r + 1 < stages_.size()) {
      facts.boundary_elements.push_back(stages_[r].output_elements);
      facts.boundary_shapes.push_back(stages_[r].output_shape);
    }
    const int64_t plain_in_flight = std::min<int64_t>(
        shape_.num_microbatches, shape_.num_stages - static_cast<int>(r));
    facts.free_bytes.push_back(usable_bytes_ == INT64_MAX
                                   ? INT64_MAX
                                   : usable_bytes_ - FixedBytes(r) -
                                         plain_in_flight *
                                             stages_[r].saved_bytes);
  }
  DP_ASSIGN_OR_RETURN(codecs_, ResolveCodecs(spec_, facts));
  job_.plan.set_activation_codec(codecs_.activations);
  job_.plan.set_activation_gradient_codec(codecs_.activation_gradients);
  job_.plan.set_gradient_codec(codecs_.gradients);
  job_.notes.insert(job_.notes.end(), codecs_.notes.begin(),
                    codecs_.notes.end());
  const std::vector<SizeShare> sizes = MixedSizes(spec_.data().sizes());
  if (!sizes.empty()) {
    job_.notes.push_back(absl::StrFormat(
        "data.sizes: times and bytes between stages are means over the sizes, "
        "whose images have %.3g of the pixels of whole ones; memory is that "
        "of whole ones, which is no less",
        MeanArea(sizes)));
  }
  if (inputs_.compute_slowdown > 1 && spec_.model().kind() != "synthetic") {
    job_.notes.push_back(absl::StrFormat(
        "compute: layers take %.3g times as long as measured alone, since the "
        "workers share fewer cores than they have threads",
        inputs_.compute_slowdown));
  }
  return absl::OkStatus();
}

absl::Status Planner::PredictTraffic() {
  DP_ASSIGN_OR_RETURN(const std::vector<v1::LinkPlan> links,
                      PredictBoundaries(stages_, codecs_.activations,
                                        codecs_.activation_gradients,
                                        job_.plan.microbatch_samples(),
                                        job_.plan.num_microbatches()));
  for (size_t b = 0; b < links.size(); ++b) {
    v1::LinkPlan* link = job_.plan.add_links();
    *link = links[b];
    link->set_state_bytes(std::max(codecs_.upstream_state_bytes[b],
                                   codecs_.downstream_state_bytes[b]));
  }
  double plain_bytes = 0;
  double compressed_bytes = 0;
  for (const StageCost& stage : stages_) {
    DP_ASSIGN_OR_RETURN(
        const StageSync sync,
        PredictStageSync(spec_, codecs_.gradients, stage.parameters,
                         stage.tied_parameters, NumTiedStages(stages_)));
    plain_bytes = std::max(plain_bytes, sync.plain.bytes);
    compressed_bytes = std::max(compressed_bytes, sync.compressed.bytes);
  }
  job_.plan.set_gradient_plain_bytes(plain_bytes);
  job_.plan.set_gradient_compressed_bytes(compressed_bytes);
  return NoteTied();
}

absl::Status Planner::NoteTied() {
  std::vector<size_t> stages;
  for (size_t r = 0; r < stages_.size(); ++r) {
    if (stages_[r].tied_parameters > 0) stages.push_back(r);
  }
  if (stages.empty()) return absl::OkStatus();
  const int64_t parameters = stages_[stages[0]].tied_parameters;
  DP_ASSIGN_OR_RETURN(const StageSync sync,
                      PredictTiedSync(spec_, codecs_.gradients, parameters,
                                      static_cast<int>(stages.size())));
  std::string note = absl::StrCat(
      "model.tied: stages ", absl::StrJoin(stages, " and "), " share ",
      FormatCount(parameters), " parameters, whose gradients each of their ",
      num_tied_ranks(),
      " workers synchronises with the others: ", FormatBytes(sync.plain.bytes),
      " a step");
  if (sync.compressed.bytes != sync.plain.bytes) {
    absl::StrAppend(&note, ", once compressed ",
                    FormatBytes(sync.compressed.bytes));
  }
  job_.notes.push_back(note);
  return absl::OkStatus();
}

void Planner::FillStages() {
  for (size_t r = 0; r < stages_.size(); ++r) {
    const StageCost& cost = stages_[r];
    v1::StagePlan* stage = job_.plan.add_stages();
    stage->set_stage(static_cast<int>(r));
    stage->set_first_layer(cost.first_layer);
    stage->set_end_layer(cost.end_layer);
    stage->set_parameters(cost.parameters);
    stage->set_tied_parameters(cost.tied_parameters);
    stage->set_forward_seconds(cost.forward_seconds);
    stage->set_backward_seconds(cost.backward_seconds);
    const OptimizerBytes own = PredictOptimizerBytes(
        spec_.train().optimizer(), cost.parameters - cost.tied_parameters,
        spec_.parallel().replicas());
    const int64_t tied =
        PredictOptimizerBytes(spec_.train().optimizer(), cost.tied_parameters,
                              /*num_replicas=*/1)
            .replicated;
    stage->set_optimizer_bytes(own.kept + tied);
    stage->set_optimizer_replicated_bytes(own.replicated + tied);
    if (own.sharded > 0) stage->set_optimizer_sharded_bytes(own.sharded + tied);
  }
}

absl::Status Planner::LimitInFlight() {
  for (size_t r = 0; r < stages_.size(); ++r) {
    int64_t bytes = budget_bytes_;
    if (usable_bytes_ != INT64_MAX) {
      bytes = std::min(bytes, usable_bytes_ - FixedBytes(r) - StateBytes(r));
    }
    const int64_t saved = std::max<int64_t>(1, stages_[r].saved_bytes);
    const int64_t limit = (bytes - stages_[r].saved.recomputed_bytes) / saved;
    if (limit < 1) return DoesNotFit(r, 1);
    in_flight_limits_.push_back(limit);
  }
  return absl::OkStatus();
}

absl::Status Planner::DoesNotFit(size_t stage, int64_t in_flight) const {
  const double saved =
      static_cast<double>(stages_[stage].saved_bytes) *
          static_cast<double>(in_flight) +
      static_cast<double>(stages_[stage].saved.recomputed_bytes);
  std::string message = absl::StrCat(
      "no room on stage ", stage, " for the saved activations of ", in_flight,
      " micro-batch", in_flight == 1 ? "" : "es", ": ", FormatBytes(saved));
  const double over_budget = saved - static_cast<double>(budget_bytes_);
  if (budget_bytes_ != INT64_MAX && over_budget > 0) {
    absl::StrAppend(&message, ", ", FormatBytes(over_budget),
                    " over parallel.memory = ",
                    FormatBytes(static_cast<double>(budget_bytes_)));
  } else {
    const double other =
        static_cast<double>(FixedBytes(stage) + StateBytes(stage));
    absl::StrAppend(
        &message, " beside ", FormatBytes(other),
        " of weights, optimizer and codec state, ",
        FormatBytes(saved + other - static_cast<double>(usable_bytes_)),
        " over the ", FormatBytes(static_cast<double>(usable_bytes_)),
        " that a worker has");
  }
  const bool may_pack = !PacksSavedActivations(spec_) &&
                        spec_.model().kind() != "synthetic" &&
                        spec_.parallel().device() != "cuda";
  absl::StrAppend(&message, "; lower train.microbatch, raise parallel.stages",
                  in_flight > 1 ? ", use schedule auto" : "",
                  may_pack ? ", pack them (compression.saved_activations)" : "",
                  budget_bytes_ != INT64_MAX && over_budget > 0
                      ? " or raise parallel.memory"
                  : StateBytes(stage) > 0
                      ? " or use boundary codecs without state"
                      : " or use workers with more memory");
  return absl::ResourceExhaustedError(message);
}

absl::Status Planner::ChooseSchedule() {
  const std::string& asked = spec_.parallel().schedule();
  const bool is_auto = asked.empty() || asked == "auto";
  DP_ASSIGN_OR_RETURN(Schedule schedule,
                      ParseSchedule(is_auto ? "1f1b" : asked));
  if (is_auto || is_continuous()) DP_RETURN_IF_ERROR(ChooseDepth(&schedule));
  if (is_continuous()) NoteDelay();
  for (int r = 0; r < shape_.num_stages; ++r) {
    const int in_flight = PeakInFlight(ProgramOf(schedule, shape_, r));
    const auto stage = static_cast<size_t>(r);
    if (in_flight > in_flight_limits_[stage]) {
      return DoesNotFit(stage, in_flight);
    }
  }
  MakeRoom(schedule);
  PipelineShape most = shape_;
  most.num_microbatches =
      std::max(shape_.num_microbatches, job_.plan.max_microbatches());
  const std::vector<Program> programs = ProgramsOf(schedule, most);
  for (size_t r = 0; r < programs.size(); ++r) {
    const int in_flight = PeakInFlight(programs[r]);
    v1::StagePlan* stage = job_.plan.mutable_stages(static_cast<int>(r));
    stage->set_max_in_flight(in_flight);
    SavedMemory saved = stages_[r].saved;
    const bool is_packed = !saved.classes.empty();
    if (is_packed) SetInFlight(spec_, in_flight, &saved);
    const int64_t saved_bytes =
        is_packed ? saved.stored_bytes : stages_[r].saved_bytes;
    stage->set_memory_bytes(FixedBytes(r) + StateBytes(r) +
                            saved_bytes * in_flight + saved.recomputed_bytes);
    SetInstructions(programs[r], stage);
    if (is_packed) job_.saved.push_back(std::move(saved));
  }
  DP_ASSIGN_OR_RETURN(const Simulation simulation,
                      Simulate(ProgramsOf(schedule, shape_), model_));
  job_.plan.set_schedule(schedule.text());
  job_.plan.set_predicted_step_seconds(simulation.step_seconds);
  return absl::OkStatus();
}

/// Sets max_microbatches if micro-batches may move and memory allows it.
void Planner::MakeRoom(const Schedule& schedule) {
  if (!MayMoveWork(spec_.stragglers().policy())) return;
  const int nominal = shape_.num_microbatches;
  const auto fits = [&](int most) {
    for (int r = 0; r < shape_.num_stages; ++r) {
      const int in_flight =
          PeakInFlight(ProgramOf(schedule, {shape_.num_stages, most}, r));
      if (in_flight > in_flight_limits_[static_cast<size_t>(r)]) return false;
    }
    return true;
  };
  const int wanted = MostMicrobatches(nominal, job_.plan.num_replicas());
  // The largest that fits lies in [low, high].
  int low = nominal;
  int high = wanted;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  if (low > nominal) job_.plan.set_max_microbatches(low);
  if (low < wanted) {
    job_.notes.push_back(absl::StrCat(
        "stragglers: memory allows ", low, " micro-batches a replica, not ",
        wanted, low > nominal ? "" : ": none can be moved"));
  }
}

absl::Status Planner::ChooseDepth(Schedule* schedule) {
  DP_ASSIGN_OR_RETURN(
      const DepthChoice choice,
      ChooseWarmupDepth(*schedule, shape_, model_, in_flight_limits_));
  schedule->warmup_depth = choice.warmup_depth;
  if (shape_.num_stages == 1) return absl::OkStatus();
  std::string note =
      absl::StrCat("schedule: ", is_continuous() ? "2bw" : "auto", " is ",
                   schedule->text(), ": ");
  if (choice.warmup_depth == 0) {
    absl::StrAppend(&note, "a deeper warm-up would not pay");
  } else if (choice.warmup_depth < 0) {
    absl::StrAppendFormat(
        &note,
        "memory for fewer micro-batches in flight than plain 1F1B's; "
        "%.3g s a step instead of %.3g s",
        choice.step_seconds, choice.plain_step_seconds);
  } else {
    absl::StrAppendFormat(&note, "%.3g s a step, plain %s %.3g s",
                          choice.step_seconds, is_continuous() ? "2bw" : "1F1B",
                          choice.plain_step_seconds);
  }
  if (choice.is_limited) {
    absl::StrAppend(&note, "; memory forbids deeper ones");
  }
  job_.notes.push_back(note);
  return absl::OkStatus();
}

void Planner::NoteDelay() {
  constexpr int kDelay = 1;
  job_.plan.set_weight_delay(kDelay);
  const v1::OptimizerSpec& optimizer = spec_.train().optimizer();
  const double factor =
      optimizer.delay_rule() == "none" ? 1 : DelayRateFactor(kDelay);
  const bool is_sgd = optimizer.kind() == "sgd";
  const double ahead = optimizer.has_look_ahead()
                           ? optimizer.look_ahead()
                           : DefaultLookAhead(optimizer.kind(), kDelay);
  const bool is_shifted =
      is_sgd && ahead == 0 && optimizer.momentum_delay() == "shifted";
  const MomentumDelay form =
      is_shifted ? MomentumDelay::kShifted : MomentumDelay::kStandard;
  const double momentum = is_sgd ? optimizer.momentum() : optimizer.beta1();
  // The other kinds average their gradients.
  const double scale = is_sgd ? 1 : 1 / (1 - momentum);
  job_.notes.push_back(absl::StrFormat(
      "schedule: 2bw: gradients are of weights one update old, so the learning "
      "rate is %.3g x %.3g (train.optimizer.delay_rule: %s); with %s%s %.3g it "
      "is stable below %.3g / lambda (without delay below %.3g / lambda), "
      "lambda "
      "being the largest eigenvalue of the Hessian%s",
      optimizer.learning_rate(), factor, optimizer.delay_rule(),
      ahead > 0    ? absl::StrFormat("look_ahead %.3g and ", ahead)
      : is_shifted ? "shifted "
                   : "",
      is_sgd ? "momentum" : "beta1", momentum,
      scale * LargestStableRate(kDelay, momentum, form, ahead),
      scale * LargestStableRate(0, momentum, MomentumDelay::kStandard),
      is_sgd ? "" : " as the optimizer scales it"));
}

}  // namespace

absl::StatusOr<PlannedJob> BuildPlan(const PlanInputs& inputs) {
  return Planner(inputs).Run();
}

}  // namespace deltapipe
