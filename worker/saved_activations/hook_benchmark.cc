// What the hooks cost an operator that saves a tensor, forward and backward:
// without our engine, with it while nothing is packed ("off"), and with a stash
// that keeps every tensor as it is.
//
//   bazel run -c opt //worker/saved_activations:hook_benchmark
#include <benchmark/benchmark.h>

#include <optional>

#include "ATen/Parallel.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/tanh.h"
#include "compression/bit_plan/saved_policy.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/hook_engine.h"

namespace deltapipe {
namespace {

constexpr int kOperators = 256;

enum class Hooks { kNoEngine, kOff, kKeep };

// Small tensors, so that the operators themselves take little.
void BM_SavedTensor(benchmark::State& state, Hooks hooks) {
  at::set_num_threads(1);
  // Benchmarks run in the order of their registration: the engine stays.
  if (hooks != Hooks::kNoEngine) InstallHookEngine();
  std::optional<ActivationStash> stash;
  if (hooks == Hooks::kKeep) {
    stash.emplace(MakeSavedPolicy("fixed(none)").value(), 1);
  }
  const at::Tensor x = at::ones({8}).set_requires_grad(true);
  for (auto _ : state) {
    at::Tensor value = x;
    {
      std::optional<ActivationStash::Scope> scope;
      if (stash.has_value()) scope.emplace(&*stash, SavedContext());
      for (int i = 0; i < kOperators; ++i) value = at::tanh(value);
    }
    value.sum().backward();
  }
  state.SetItemsProcessed(state.iterations() * kOperators);
  state.counters["s/tensor"] = benchmark::Counter(
      static_cast<double>(kOperators) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK_CAPTURE(BM_SavedTensor, no_engine, Hooks::kNoEngine)
    ->Name("saved_tensor/cpu/no_engine");
BENCHMARK_CAPTURE(BM_SavedTensor, off, Hooks::kOff)
    ->Name("saved_tensor/cpu/off");
BENCHMARK_CAPTURE(BM_SavedTensor, keep, Hooks::kKeep)
    ->Name("saved_tensor/cpu/kept_as_it_is");

}  // namespace
}  // namespace deltapipe
