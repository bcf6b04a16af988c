// bazel run -c opt //worker/optim:optimizer_benchmark
//
// One step of each optimizer, synchronisation left out: Prepare, the norm,
// Apply.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

void BM_Step(benchmark::State& state, const std::string& kind,
             int64_t first_step) {
  const ParameterLayout layout =
      LayoutOf({state.range(0) / 2, 128, state.range(0) / 2 - 128});
  const ToyProblem problem(layout, 1);
  OptimizerOptions options;
  options.kind = kind;
  options.weight_decay = 0.01;
  options.compress_after_step = 1;
  auto optimizer = *Optimizer::Create(options, layout);
  std::vector<float> weights(problem.start().begin(), problem.start().end());
  std::vector<float> gradient = problem.Gradient(0, 0, weights);
  for (int64_t step = 0; step < first_step; ++step) {
    optimizer->Prepare(step, 1e-4, weights, absl::MakeSpan(gradient));
    optimizer->Apply(step, 1e-4, 1.0, absl::MakeSpan(weights)).IgnoreError();
  }
  // Every step is the same step to the optimizer.
  for (auto _ : state) {
    optimizer->Prepare(first_step, 1e-4, weights, absl::MakeSpan(gradient));
    benchmark::DoNotOptimize(optimizer->MeanGradientSquaredNorm());
    const absl::Status status =
        optimizer->Apply(first_step, 1e-4, 1.0, absl::MakeSpan(weights));
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  state.SetItemsProcessed(state.iterations() * layout.num_elements);
}

BENCHMARK_CAPTURE(BM_Step, cpu_sgd, "sgd", 0)->Arg(1 << 16)->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_adamw, "adamw", 0)->Arg(1 << 16)->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_adam, "adam", 0)->Arg(1 << 16)->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_lamb, "lamb", 0)->Arg(1 << 16)->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_onebit_lamb_warmup, "onebit_lamb", 0)
    ->Arg(1 << 16)
    ->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_onebit_lamb_compressed, "onebit_lamb", 1)
    ->Arg(1 << 16)
    ->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_onebit_adam_compressed, "onebit_adam", 1)
    ->Arg(1 << 16)
    ->Arg(1 << 22);
BENCHMARK_CAPTURE(BM_Step, cpu_zero_one_adam_synchronised, "zero_one_adam", 1)
    ->Arg(1 << 16)
    ->Arg(1 << 22);

}  // namespace
}  // namespace deltapipe
