// How long the audit of a job takes: 10 epochs of a million samples.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "base/sample_ledger.h"

namespace deltapipe {
namespace {

void BM_AuditLedger(benchmark::State& state) {
  LedgerQuestion question;
  question.order.num_samples = 1000000;
  question.order.num_slots = 32;
  question.order.microbatch = 4;
  const int64_t per_step = 128;
  const int64_t num_steps = state.range(0) / per_step;
  // Every 1,000 steps a worker is lost, and 50 steps are done again.
  uint64_t generation = 1;
  for (int64_t step = 0; step < num_steps; step += 1000) {
    const int64_t first = step == 0 ? 0 : step - 50;
    const int64_t end = std::min(step + 1000, num_steps);
    question.ranges.push_back(
        {generation++, first, end, (end - first) * per_step, 0});
  }
  question.num_steps_begun = num_steps;
  for (auto unused : state) {
    const LedgerAudit audit = AuditLedger(question);
    if (!audit.is_sound()) state.SkipWithError(audit.findings[0].c_str());
  }
  state.SetItemsProcessed(state.iterations() * num_steps * per_step);
}
BENCHMARK(BM_AuditLedger)
    ->Arg(1000000)
    ->Arg(10000000)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace deltapipe

BENCHMARK_MAIN();
