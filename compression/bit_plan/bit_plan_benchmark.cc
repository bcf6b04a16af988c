// How long a plan takes, by the number of tensors, and what it costs to ask a
// policy about one of 100 tensors.
//
//   bazel run -c opt //compression/bit_plan:bit_plan_benchmark
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_plan.h"
#include "compression/bit_plan/saved_policy.h"

namespace deltapipe {
namespace {

void BM_PlanBits(benchmark::State& state) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> share(0, 1);
  std::vector<BitPlanItem> items(state.range(0));
  int64_t budget = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].name = absl::StrCat("tensor ", i);
    const auto num_elements =
        static_cast<int64_t>(std::exp(10 + 7 * share(random)));
    const double coefficient = std::exp(14 * share(random));
    for (const int bits : {1, 2, 4, 8, 32}) {
      items[i].levels.push_back(
          {num_elements * bits / 8, QuantisationCost(coefficient, bits)});
    }
    budget += num_elements * 4 / 8;
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(PlanBits(items, budget));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PlanBits)
    ->Name("plan/cpu/tensors")
    ->Arg(16)
    ->Arg(64)
    ->Arg(65)
    ->Arg(1000)
    ->Arg(10000)
    ->Unit(benchmark::kMillisecond);

void BM_Treat(benchmark::State& state, const std::string& text) {
  auto policy = MakeSavedPolicy(text);
  if (!policy.ok()) {
    state.SkipWithError(policy.status().ToString().c_str());
    return;
  }
  std::vector<SavedTensor> tensors(100);
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].name = absl::StrCat("blocks.", i, "/gelu/0");
    tensors[i].op = "gelu";
    tensors[i].shape = {8, 256, 512};
    tensors[i].num_elements = 8 * 256 * 512;
  }
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize((*policy)->Treat(tensors[i]));
    i = i + 1 == tensors.size() ? 0 : i + 1;
  }
}
BENCHMARK_CAPTURE(BM_Treat, none, "none")->Name("treat/cpu/none");
BENCHMARK_CAPTURE(BM_Treat, actnn, "actnn")->Name("treat/cpu/actnn");

}  // namespace
}  // namespace deltapipe

BENCHMARK_MAIN();
