// bazel run -c opt //worker/collective:gradient_sync_benchmark
//
// The kernels of the compressed all-reduce, and whole transactions between
// ranks of one process. Bytes are those of the fp32 values.
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/loopback_ranks.h"
#include "worker/collective/onebit_compressor.h"

namespace deltapipe {
namespace {

std::vector<float> Normal(int64_t size) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = normal(random);
  return values;
}

void SetRates(benchmark::State& state, int64_t size) {
  state.SetBytesProcessed(state.iterations() * size * 4);
  state.SetItemsProcessed(state.iterations() * size);
}

void BM_AddResidualAndEncodeSigns(benchmark::State& state) {
  const int64_t size = state.range(0);
  std::vector<float> residual = Normal(size);
  std::vector<float> values(residual.size());
  std::vector<uint8_t> bits(residual.size() / 8 + 1);
  for (auto _ : state) {
    const float scale =
        OneBitCompressor<float>::AddResidual(absl::MakeSpan(values), residual);
    OneBitCompressor<float>::Compress(absl::MakeSpan(values), scale,
                                      absl::MakeSpan(bits));
    benchmark::ClobberMemory();
  }
  SetRates(state, size);
}
BENCHMARK(BM_AddResidualAndEncodeSigns)->Arg(1 << 16)->Arg(1 << 24);

void BM_AccumulateSigns(benchmark::State& state) {
  const int64_t size = state.range(0);
  std::vector<float> mean = Normal(size);
  const std::vector<uint8_t> bits(mean.size() / 8 + 1, 0x5A);
  for (auto _ : state) {
    OneBitCompressor<float>::AccumulateMean(bits, 1e-3f, 2,
                                            absl::MakeSpan(mean));
    benchmark::ClobberMemory();
  }
  SetRates(state, size);
}
BENCHMARK(BM_AccumulateSigns)->Arg(1 << 16)->Arg(1 << 24);

void BM_DecodeSigns(benchmark::State& state) {
  const int64_t size = state.range(0);
  std::vector<float> values = Normal(size);
  const std::vector<uint8_t> bits(values.size() / 8 + 1, 0x5A);
  for (auto _ : state) {
    OneBitCompressor<float>::Decompress(bits, 1e-3f, absl::MakeSpan(values));
    benchmark::ClobberMemory();
  }
  SetRates(state, size);
}
BENCHMARK(BM_DecodeSigns)->Arg(1 << 16)->Arg(1 << 24);

/// All ranks on this machine's cores, one transaction after the other.
void BM_Transaction(benchmark::State& state, SyncFormat format,
                    const std::string& plain_codec) {
  const int num_ranks = static_cast<int>(state.range(0));
  const int64_t size = state.range(1);
  LoopbackRanks ranks = *LoopbackRanks::Create(num_ranks);
  GradientSyncOptions options;
  options.plain_codec = plain_codec;
  std::vector<std::unique_ptr<GradientSync>> syncs;
  std::vector<std::vector<float>> values;
  for (int rank = 0; rank < num_ranks; ++rank) {
    syncs.push_back(*GradientSync::Create(options, ranks.group(rank), size));
    values.push_back(Normal(size));
  }
  uint32_t step = 0;
  for (auto _ : state) {
    ++step;
    for (size_t rank = 0; rank < syncs.size(); ++rank) {
      syncs[rank]
          ->Begin(step, {absl::MakeSpan(values[rank]), format})
          .IgnoreError();  // Wait reports it
    }
    for (const auto& sync : syncs) {
      absl::Status status = sync->Wait(Deadline::Infinite());
      if (status.ok()) status = sync->Finish(SyncVerdict::kCommit);
      if (!status.ok()) state.SkipWithError(status.ToString().c_str());
    }
  }
  SetRates(state, size);
  state.counters["sent_bits_per_element"] =
      8.0 * static_cast<double>(syncs[0]->counters().payload_bytes) /
      static_cast<double>(state.iterations() * size);
}
BENCHMARK_CAPTURE(BM_Transaction, compressed, SyncFormat::kCompressed, "none")
    ->Args({1, 1 << 22})
    ->Args({2, 1 << 22})
    ->Args({4, 1 << 22})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Transaction, plain_fp32, SyncFormat::kPlain, "none")
    ->Args({2, 1 << 22})
    ->Args({4, 1 << 22})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Transaction, plain_bf16, SyncFormat::kPlain, "cast(bf16)")
    ->Args({2, 1 << 22})
    ->Args({4, 1 << 22})
    ->UseRealTime();

}  // namespace
}  // namespace deltapipe
