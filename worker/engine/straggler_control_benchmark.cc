// What it costs a step to look after late replicas: the calls of
// StragglerControl that the computation of a first stage makes, readings of the
// clock included, as a time per step, per micro-batch and as the share of a
// step of 50 ms.
//
// The other replicas' times, and those that decisions are made on, come from
// the noise of the DropCompute paper, so that a threshold is found and enforced
// as in a job; the exchange itself is not measured.
#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/latency_model.h"
#include "worker/engine/straggler_control.h"
#include "worker/stragglers/step_observation.h"
#include "worker/stragglers/step_simulator.h"

namespace deltapipe {
namespace {

constexpr double kStepSeconds = 0.05;
constexpr int kNumObserved = 200;

std::unique_ptr<StragglerControl> MakeControl(const std::string& policy,
                                              int num_replicas,
                                              int num_microbatches) {
  v1::Assignment assignment;
  assignment.mutable_plan()->set_num_replicas(num_replicas);
  assignment.mutable_plan()->set_num_microbatches(num_microbatches);
  v1::StragglerSpec* spec = assignment.mutable_spec()->mutable_stragglers();
  spec->set_tau("auto");
  spec->set_max_drop_rate(0.1);
  spec->set_retune_steps(200);
  auto control = StragglerControl::Create(policy, assignment, /*replica=*/0);
  return control.ok() ? *std::move(control) : nullptr;
}

/// What all replicas say of kNumObserved steps, as StragglerControl::figures().
std::vector<std::vector<std::vector<double>>> SimulatedFigures(
    int num_replicas, int num_microbatches) {
  const LatencyModel model = *LatencyModel::Parse("lognormal:1.0", 1);
  const SimulatedJob job = {num_replicas, 1, num_microbatches, 0.5,
                            [&](int r, int64_t step, int m, int) {
                              return 1 + model.ExtraSeconds(r, step, m, 1);
                            }};
  const size_t num_observed = ObservationDoubles(num_microbatches);
  std::vector<std::vector<std::vector<double>>> steps;
  for (int step = 0; step < kNumObserved; ++step) {
    steps.emplace_back();
    for (int r = 0; r < num_replicas; ++r) {
      ReplicaObservation observation = SimulateReplica(
          job, step, r, num_microbatches, [](int, double) { return true; });
      observation.step_seconds = 3.0 * num_microbatches;
      std::vector<double> figures(num_observed +
                                  static_cast<size_t>(num_replicas));
      EncodeObservation(observation,
                        absl::MakeSpan(figures).first(num_observed));
      steps.back().push_back(std::move(figures));
    }
  }
  return steps;
}

/// Of replicas and micro-batches. Only the checks: BeginStep to EndStep; with
/// `decides` figures and Observe, too, in which all is decided.
void RunSteps(const std::string& policy, bool decides,
              benchmark::State& state) {
  const int num_replicas = static_cast<int>(state.range(0));
  const int num_microbatches = static_cast<int>(state.range(1));
  const auto control = MakeControl(policy, num_replicas, num_microbatches);
  if (control == nullptr) return state.SkipWithError("no such policy");
  const auto observed = SimulatedFigures(num_replicas, num_microbatches);
  const std::vector<int> counts(static_cast<size_t>(num_replicas),
                                num_microbatches);
  int64_t step = 0;
  double seconds = 0;
  int64_t num_admitted = 0;
  for (auto unused : state) {
    const auto begin = std::chrono::steady_clock::now();
    bool is_good = control->BeginStep(step, 0, counts).ok();
    int microbatch = 0;
    while (microbatch < num_microbatches && control->Admit(microbatch)) {
      control->NoteDone(microbatch++);
    }
    control->EndStep(microbatch);
    const auto checked = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(control->figures());
    is_good &=
        control->Observe(observed[static_cast<size_t>(step % kNumObserved)])
            .ok();
    const auto end = std::chrono::steady_clock::now();
    const double elapsed =
        std::chrono::duration<double>((decides ? end : checked) - begin)
            .count();
    state.SetIterationTime(elapsed);
    seconds += elapsed;
    num_admitted += microbatch;
    ++step;
    if (!is_good) return state.SkipWithError("a step failed");
  }
  if (num_admitted != step * num_microbatches) {
    return state.SkipWithError("micro-batches were refused");
  }
  state.SetItemsProcessed(num_admitted);
  state.SetLabel(
      absl::StrFormat("%.0f ns a micro-batch, %.4f %% of a step of %.0f ms",
                      1e9 * seconds / static_cast<double>(num_admitted),
                      100 * seconds / static_cast<double>(step) / kStepSeconds,
                      1e3 * kStepSeconds));
}

void BM_Checks(benchmark::State& state, const char* policy) {
  RunSteps(policy, /*decides=*/false, state);
}
void BM_ChecksAndDecisions(benchmark::State& state, const char* policy) {
  RunSteps(policy, /*decides=*/true, state);
}

#define DP_STRAGGLER_BENCHMARK(name, policy) \
  BENCHMARK_CAPTURE(name, policy, #policy)   \
      ->Args({8, 12})                        \
      ->Args({8, 64})                        \
      ->UseManualTime()
DP_STRAGGLER_BENCHMARK(BM_Checks, drop);
DP_STRAGGLER_BENCHMARK(BM_Checks, auto);
DP_STRAGGLER_BENCHMARK(BM_ChecksAndDecisions, drop);
DP_STRAGGLER_BENCHMARK(BM_ChecksAndDecisions, auto);

}  // namespace
}  // namespace deltapipe

BENCHMARK_MAIN();
