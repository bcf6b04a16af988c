// What straggler policies cost: a question to Admit, a step, a decision.
#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include "base/latency_model.h"
#include "worker/stragglers/drop_planner.h"
#include "worker/stragglers/step_simulator.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {
namespace {

std::vector<StepObservation> Observed(int num_steps, int num_replicas,
                                      int num_microbatches) {
  const LatencyModel model = *LatencyModel::Parse("lognormal:1.0", 1);
  const SimulatedJob job = {num_replicas, 1, num_microbatches, 0.5,
                            [&](int r, int64_t step, int m, int) {
                              return 1 + model.ExtraSeconds(r, step, m, 1);
                            }};
  std::vector<StepObservation> steps;
  for (int i = 0; i < num_steps; ++i) {
    StepObservation step;
    step.step = i;
    for (int r = 0; r < num_replicas; ++r) {
      step.replicas.push_back(SimulateReplica(
          job, i, r, num_microbatches, [](int, double) { return true; }));
      step.replicas.back().step_seconds = 3.0 * num_microbatches;
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

/// 40 steps of so many replicas and micro-batches.
void BM_PlanDrop(benchmark::State& state) {
  const std::vector<StepObservation> steps = Observed(
      40, static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (auto unused : state) {
    benchmark::DoNotOptimize(PlanDrop(steps).value().speedup);
  }
  state.SetItemsProcessed(state.iterations() * 40 * state.range(0) *
                          state.range(1));
}
BENCHMARK(BM_PlanDrop)
    ->Args({8, 12})
    ->Args({8, 64})
    ->Args({64, 16})
    ->Args({200, 12})
    ->Unit(benchmark::kMillisecond);

/// While tau is enforced.
void BM_Admit(benchmark::State& state) {
  auto policy = std::move(*MakeSyncPolicy("drop", {}));
  const std::vector<int> planned(8, 12);
  int64_t step = 0;
  for (const StepObservation& observation : Observed(47, 8, 12)) {
    if (!policy->BeginStep({step++, 0, 0, planned}).ok() ||
        !policy->EndStep(observation).ok()) {
      state.SkipWithError("a step failed");
    }
  }
  if (!policy->BeginStep({step, 0, 0, planned}).ok() ||
      !policy->gauges().is_tau_enforced) {
    state.SkipWithError("tau is not enforced");
  }
  for (auto unused : state) {
    benchmark::DoNotOptimize(policy->Admit(6, 1.0));
  }
}
BENCHMARK(BM_Admit);

/// Everything that a policy does in a step of 8 x 12, decisions included.
void BM_Step(benchmark::State& state) {
  auto policy = std::move(*MakeSyncPolicy("auto", {}));
  const std::vector<int> planned(8, 12);
  std::vector<StepObservation> observed = Observed(200, 8, 12);
  int64_t step = 0;
  for (auto unused : state) {
    StepObservation& observation = observed[step % 200];
    observation.step = step;
    if (!policy->BeginStep({step, 0, 0, planned}).ok()) {
      state.SkipWithError("a step failed");
    }
    for (int m = 0; m < 12; ++m) {
      benchmark::DoNotOptimize(policy->Admit(m, m));
    }
    if (!policy->EndStep(observation).ok()) {
      state.SkipWithError("a step failed");
    }
    ++step;
  }
}
BENCHMARK(BM_Step)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace deltapipe

BENCHMARK_MAIN();
