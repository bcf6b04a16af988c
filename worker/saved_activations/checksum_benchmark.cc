// What the checksum of a payload costs beside packing it: 256 rows of a layer
// 1,024 wide.
//
//   bazel run -c opt //worker/saved_activations:checksum_benchmark
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/checksum.h"
#include "benchmark/benchmark.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/codec.h"

namespace deltapipe {
namespace {

constexpr int64_t kElements = 256 * 1024;

struct Packing {
  explicit Packing(int bits)
      : codec(MakeCodec(GroupCodecText(bits)).value()),
        values(kElements),
        payload(static_cast<size_t>(codec->MaxPayloadBytes(kElements))) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(0.37f * static_cast<float>(i * i % 1009));
    }
  }
  void Pack() { codec->Encode(values, {}, absl::MakeSpan(payload)).value(); }

  const std::unique_ptr<Codec> codec;
  std::vector<float> values;
  std::vector<uint8_t> payload;
};

void BM_Pack(benchmark::State& state) {
  Packing packing(static_cast<int>(state.range(0)));
  for (auto _ : state) packing.Pack();
  state.SetItemsProcessed(state.iterations() * kElements);
}
BENCHMARK(BM_Pack)->Arg(8)->Arg(4)->Arg(2);

void BM_ChecksumOfPayload(benchmark::State& state) {
  Packing packing(static_cast<int>(state.range(0)));
  packing.Pack();
  for (auto _ : state) benchmark::DoNotOptimize(Checksum(packing.payload));
  state.SetItemsProcessed(state.iterations() * kElements);
}
BENCHMARK(BM_ChecksumOfPayload)->Arg(8)->Arg(4)->Arg(2);

}  // namespace
}  // namespace deltapipe

BENCHMARK_MAIN();
