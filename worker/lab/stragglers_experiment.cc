#include "worker/lab/stragglers_experiment.h"

#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/latency_model.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
#include "base/tensor_view.h"
#include "base/units.h"
#include "worker/stragglers/step_simulator.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {
namespace {

constexpr char kTensorName[] = "latencies";
constexpr int kGeneratedSteps = 400;
// Each simulated replica keeps the observations of all.
constexpr int64_t kLargestJob = 500000;
constexpr double kLargestWork = 1e9;

struct Recording {
  int steps = 0;
  int replicas = 0;
  int microbatches = 0;
  std::vector<float> seconds;

  double At(int64_t step, int replica, int microbatch) const {
    return seconds[(step * replicas + replica) * microbatches +
                   microbatch % microbatches];
  }
};

absl::Status BadTensor(const std::string& path, const std::string& name,
                       absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": tensor '", name, "' ", why));
}

absl::StatusOr<Recording> ReadRecording(const std::string& path) {
  DP_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path));
  const std::string name = file.entries().size() == 1
                               ? file.entries()[0].name
                               : std::string(kTensorName);
  DP_ASSIGN_OR_RETURN(const TensorView view, file.Tensor(name));
  if (view.shape().size() != 3 || view.num_elements() == 0) {
    return BadTensor(path, name,
                     absl::StrCat("has shape ", ShapeString(view.shape()),
                                  ", expected [steps, replicas, "
                                  "micro-batches], none of them 0"));
  }
  for (const int64_t size : view.shape()) {
    if (size > kLargestJob) {
      return BadTensor(path, name,
                       absl::StrCat("has shape ", ShapeString(view.shape()),
                                    ", which is too large to simulate"));
    }
  }
  Recording recording;
  recording.steps = static_cast<int>(view.shape()[0]);
  recording.replicas = static_cast<int>(view.shape()[1]);
  recording.microbatches = static_cast<int>(view.shape()[2]);
  DP_ASSIGN_OR_RETURN(recording.seconds, file.FloatValues(name));
  for (size_t i = 0; i < recording.seconds.size(); ++i) {
    const float seconds = recording.seconds[i];
    if (std::isfinite(seconds) && seconds > 0) continue;
    const size_t row = i / recording.microbatches;
    return BadTensor(
        path, name,
        absl::StrCat("has ", seconds, " at step ", row / recording.replicas,
                     ", replica ", row % recording.replicas, ", micro-batch ",
                     i % recording.microbatches,
                     ": expected seconds greater than 0"));
  }
  return recording;
}

absl::StatusOr<double> Seconds(absl::string_view option,
                               const std::string& text) {
  const absl::StatusOr<std::chrono::nanoseconds> duration = ParseDuration(text);
  if (!duration.ok()) return Annotate(duration.status(), option);
  return std::chrono::duration<double>(*duration).count();
}

absl::Status CheckSize(const SimulatedJob& job, int num_steps) {
  if (job.num_replicas < 1 || job.num_microbatches < 1 || job.num_stages < 1 ||
      num_steps < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a simulation needs 1 or more of each, got ", job.num_replicas,
        " replicas, ", job.num_microbatches, " micro-batches, ", job.num_stages,
        " stages, ", num_steps, " steps"));
  }
  const double squared = static_cast<double>(job.num_replicas) *
                         job.num_replicas * job.num_microbatches;
  const double work = static_cast<double>(job.num_replicas) *
                      job.num_microbatches * job.num_stages * num_steps;
  if (squared > kLargestJob || work > kLargestWork) {
    return absl::InvalidArgumentError(absl::StrCat(
        job.num_replicas, " replicas, ", job.num_microbatches,
        " micro-batches, ", job.num_stages, " stages and ", num_steps,
        " steps are too many to simulate: replicas squared times "
        "micro-batches may be ",
        FormatCount(kLargestJob)));
  }
  return absl::OkStatus();
}

struct Prepared {
  SimulatedJob job;
  int num_steps = 0;
};

absl::StatusOr<Prepared> PrepareRecorded(const StragglerExperiment& experiment,
                                         const LatencyModel& model) {
  DP_ASSIGN_OR_RETURN(Recording recording,
                      ReadRecording(experiment.latencies_path));
  if (experiment.steps > recording.steps) {
    return absl::InvalidArgumentError(
        absl::StrCat(experiment.latencies_path, " holds ", recording.steps,
                     " steps, ", experiment.steps, " were asked for"));
  }
  Prepared prepared;
  prepared.num_steps =
      experiment.steps > 0 ? experiment.steps : recording.steps;
  prepared.job.num_replicas = recording.replicas;
  prepared.job.num_microbatches = recording.microbatches;
  prepared.job.seconds = [recording = std::move(recording), model](
                             int r, int64_t step, int m, int part) {
    const double base = recording.At(step, r, m);
    return base + model.ExtraSeconds(r, step, m, base, part);
  };
  return prepared;
}

absl::StatusOr<Prepared> PrepareGenerated(const StragglerExperiment& experiment,
                                          const LatencyModel& model) {
  DP_ASSIGN_OR_RETURN(const double forward,
                      Seconds("--forward", experiment.forward));
  DP_ASSIGN_OR_RETURN(const double backward,
                      Seconds("--backward", experiment.backward));
  if (forward <= 0 || backward <= 0) {
    return absl::InvalidArgumentError(
        "--forward and --backward must be longer than 0");
  }
  Prepared prepared;
  prepared.num_steps =
      experiment.steps > 0 ? experiment.steps : kGeneratedSteps;
  prepared.job.num_replicas = experiment.replicas;
  prepared.job.num_microbatches = experiment.microbatches;
  prepared.job.num_stages = experiment.stages;
  const bool is_pipeline = experiment.stages > 1;
  prepared.job.seconds = [=](int r, int64_t step, int m, int part) {
    const double base = !is_pipeline    ? forward + backward
                        : part % 2 == 0 ? forward
                                        : backward;
    return base + model.ExtraSeconds(r, step, m, base, part);
  };
  return prepared;
}

absl::StatusOr<Prepared> Prepare(const StragglerExperiment& experiment) {
  if (experiment.latencies_path.empty() && experiment.inject.empty()) {
    return absl::InvalidArgumentError(
        "nothing is slow: give --latencies, --inject or both");
  }
  if (experiment.steps < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(experiment.steps, " steps cannot be simulated"));
  }
  DP_ASSIGN_OR_RETURN(const LatencyModel model,
                      LatencyModel::Parse(experiment.inject, experiment.seed));
  DP_ASSIGN_OR_RETURN(Prepared prepared,
                      experiment.latencies_path.empty()
                          ? PrepareGenerated(experiment, model)
                          : PrepareRecorded(experiment, model));
  prepared.job.read_seconds = [model](int r, int64_t /*step*/, int planned) {
    return model.InputSeconds(r) * planned;
  };
  DP_ASSIGN_OR_RETURN(prepared.job.rest_seconds,
                      Seconds("--rest", experiment.rest));
  DP_RETURN_IF_ERROR(CheckSize(prepared.job, prepared.num_steps));
  DP_RETURN_IF_ERROR(model.CheckReplicas(prepared.job.num_replicas));
  return prepared;
}

StragglerResult ResultOf(std::string policy, const SimulatedRun& run,
                         const SimulatedRun& none) {
  const PredictionCheck check = CheckPrediction(run);
  StragglerResult result;
  result.policy = std::move(policy);
  result.microbatches_per_second = run.ExecutedPerSecond();
  result.speedup = run.ExecutedPerSecond() / none.ExecutedPerSecond();
  result.drop_share = run.DropShare();
  result.step_seconds_p50 = run.StepSecondsQuantile(0.5);
  result.step_seconds_p99 = run.StepSecondsQuantile(0.99);
  result.rebalances = run.num_rebalances;
  result.enforced_steps = check.num_steps;
  result.predicted_drop_share = check.predicted_drop_share;
  result.realised_drop_share = check.realised_drop_share;
  result.predicted_speedup = check.predicted_speedup;
  result.realised_speedup = check.realised_speedup;
  return result;
}

}  // namespace

absl::Status RunStragglerExperiment(
    const StragglerExperiment& experiment,
    const std::function<void(const StragglerResult&)>& report) {
  DP_ASSIGN_OR_RETURN(const Prepared prepared, Prepare(experiment));
  SyncPolicyOptions options;
  options.max_drop_share = experiment.max_drop;
  // As a plan allows.
  options.max_microbatches = MostMicrobatches(prepared.job.num_microbatches,
                                              prepared.job.num_replicas);
  SimulatedRun none;
  for (const char* policy : {"none", "detect", "drop", "rebalance", "auto"}) {
    DP_ASSIGN_OR_RETURN(
        SimulatedRun run,
        SimulatePolicy(prepared.job, policy, options, prepared.num_steps));
    if (none.steps.empty()) none = run;
    StragglerResult result = ResultOf(policy, run, none);
    result.state = std::string(StragglerStateName(run.gauges.state));
    result.why = run.gauges.why;
    report(result);
  }
  DP_ASSIGN_OR_RETURN(
      const SimulatedRun oracle,
      SimulateOracle(prepared.job, experiment.max_drop, prepared.num_steps));
  report(ResultOf("oracle", oracle, none));
  return absl::OkStatus();
}

}  // namespace deltapipe
