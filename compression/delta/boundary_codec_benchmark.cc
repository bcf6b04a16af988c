// What a boundary costs per sample: encode, decode, and the passes over records
// around the codec. Bytes are fp32 bytes of activations.
//
//   bazel run -c opt //compression/delta:boundary_codec_benchmark
//
// Against memcpy of the same 256 MiB, both in turns, the medians of nine
// (in one line):
//
//   bazel run -c opt //compression/delta:boundary_codec_benchmark --
//     --benchmark_filter=256MiB --benchmark_repetitions=9
//     --benchmark_enable_random_interleaving=true
//     --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/delta_kernels.h"

namespace deltapipe {
namespace {

constexpr int64_t kElements = 1024 * 1600;  // one sample of GPT2-XL
constexpr int kNumVersions = 4;             // of the drifting sample

/// A sample that drifts by 10 % a visit.
std::vector<std::vector<float>> DriftingSample() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> visits(kNumVersions);
  visits[0].resize(kElements);
  for (float& value : visits[0]) value = normal(random);
  for (int i = 1; i < kNumVersions; ++i) {
    visits[i] = visits[i - 1];
    for (float& value : visits[i]) value += 0.1f * normal(random);
  }
  return visits;
}

BoundaryOptions OptionsOf(const std::string& codec) {
  BoundaryOptions options;
  options.codec = codec;
  options.elements_per_sample = kElements;
  return options;
}

void ReportRates(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * kElements * 4);
  state.SetItemsProcessed(state.iterations() * kElements);
}

void BM_Encode(benchmark::State& state, const std::string& codec) {
  const auto visits = DriftingSample();
  auto encoder = BoundaryEncoder::Create(OptionsOf(codec)).value();
  Buffer body;
  const std::vector<BoundarySample> samples = {{7, 0}};
  uint32_t step = 0;
  for (; step < 2; ++step) {  // the first visit, which is not what is timed
    if (!encoder->Encode(step, samples, visits[step], false, &body).ok()) {
      state.SkipWithError("encode failed");
      return;
    }
    encoder->CommitStep(step);
  }
  for (auto _ : state) {
    encoder->Encode(step, samples, visits[step % kNumVersions], false, &body)
        .IgnoreError();  // checked above
    encoder->CommitStep(step++);
    benchmark::DoNotOptimize(body.data());
  }
  ReportRates(state);
  state.counters["body_bytes"] = static_cast<double>(body.size());
}

void BM_EncodeAndDecode(benchmark::State& state, const std::string& codec) {
  const auto visits = DriftingSample();
  auto encoder = BoundaryEncoder::Create(OptionsOf(codec)).value();
  auto decoder = BoundaryDecoder::Create(OptionsOf(codec)).value();
  Buffer body;
  std::vector<float> values(kElements);
  std::vector<uint64_t> missing;
  const std::vector<BoundarySample> samples = {{7, 0}};
  uint32_t step = 0;
  for (auto _ : state) {
    absl::Status status = encoder->Encode(
        step, samples, visits[step % kNumVersions], false, &body);
    status.Update(decoder->Decode(step, samples, body.span(), false,
                                  absl::MakeSpan(values), &missing));
    if (!status.ok()) {
      state.SkipWithError("a round trip failed");
      return;
    }
    encoder->CommitStep(step);
    decoder->CommitStep(step++);
  }
  ReportRates(state);
}

BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / delta_int4,
                  "delta(int(4),first=int(8))");
BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / delta_int3,
                  "delta(int(3),first=int(8))");
BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / delta_none,
                  "delta(none,first=none)");
BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / int8_stochastic,
                  "int(8,round=stochastic)");
BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / ef_int4, "ef(int(4))");
BENCHMARK_CAPTURE(BM_Encode, cpu / 1024x1600 / none, "none");
BENCHMARK_CAPTURE(BM_EncodeAndDecode, cpu / 1024x1600 / delta_int4,
                  "delta(int(4),first=int(8))");

constexpr int64_t kLarge = int64_t{64} << 20;  // 256 MiB

/// Two visits of 64 Mi values; runs of 1 Mi are alike.
const std::vector<std::vector<float>>& LargeVisits() {
  static const auto* const visits = [] {
    constexpr int64_t kRun = int64_t{1} << 20;
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    auto* values = new std::vector<std::vector<float>>(2);
    for (auto& visit : *values) visit.resize(kLarge);
    for (int64_t i = 0; i < kRun; ++i) {
      (*values)[0][i] = normal(random);
      (*values)[1][i] = (*values)[0][i] + 0.1f * normal(random);
    }
    for (auto& visit : *values) {
      for (int64_t at = kRun; at < kLarge; at += kRun) {
        std::copy_n(visit.data(), kRun, visit.data() + at);
      }
    }
    return values;
  }();
  return *visits;
}

void ReportLarge(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * kLarge * 4);
  state.SetItemsProcessed(state.iterations() * kLarge);
}

void BM_Memcpy(benchmark::State& state) {
  const std::vector<float>& from = LargeVisits()[0];
  std::vector<float> to(kLarge);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), kLarge * sizeof(float));
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
  ReportLarge(state);
}
BENCHMARK(BM_Memcpy)->Name("BM_Memcpy/cpu/256MiB/fp32");

/// A micro-batch of 256 MiB in samples of one size: table, checksum, records
/// and their store included.
void BM_EncodeLarge(benchmark::State& state, const std::string& codec,
                    int num_samples) {
  const auto& visits = LargeVisits();
  BoundaryOptions options = OptionsOf(codec);
  options.elements_per_sample = kLarge / num_samples;
  auto encoder = BoundaryEncoder::Create(options).value();
  std::vector<BoundarySample> samples;
  for (uint32_t i = 0; i < static_cast<uint32_t>(num_samples); ++i) {
    samples.push_back({i, i});
  }
  Buffer body;
  uint32_t step = 0;
  const auto encode = [&] {
    const bool is_encoded =
        encoder->Encode(step, samples, visits[step % 2], false, &body).ok();
    encoder->CommitStep(step++);
    return is_encoded;
  };
  if (!encode() || !encode() || !encode()) {
    return state.SkipWithError("encode failed");
  }
  for (auto _ : state) benchmark::DoNotOptimize(encode());
  ReportLarge(state);
}
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 64x1Mi / delta_int4,
                  "delta(int(4),first=int(8))", 64);
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 64x1Mi / delta_int4_minmax,
                  "delta(int(4,clip=minmax),first=int(8))", 64);
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 64x1Mi / ef_sign, "ef(sign)",
                  64);
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 64x1Mi / ef_sign_block64,
                  "ef(sign(block=64))", 64);
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 64x1Mi / delta_int4_stochastic,
                  "delta(int(4,round=stochastic),first=int(8))", 64);
BENCHMARK_CAPTURE(BM_EncodeLarge, cpu / 256MiB / 1x64Mi / delta_int4,
                  "delta(int(4),first=int(8))", 1);

void BM_SubtractRecord(benchmark::State& state) {
  const std::vector<float> value(kElements, 1.5f);
  const std::vector<uint16_t> record(kElements, 0x3F80);
  std::vector<float> difference(kElements);
  for (auto _ : state) {
    benchmark::DoNotOptimize(SubtractRecord(value.data(), record.data(),
                                            difference.data(), kElements));
  }
  ReportRates(state);
}
BENCHMARK(BM_SubtractRecord)->Name("BM_SubtractRecord/cpu/1024x1600/bf16");

void BM_AddToRecord(benchmark::State& state) {
  const std::vector<float> restored(kElements, 0.1f);
  const std::vector<uint16_t> record(kElements, 0x3F80);
  std::vector<uint16_t> next(kElements);
  for (auto _ : state) {
    AddToRecord(record.data(), restored.data(), next.data(), kElements);
    benchmark::DoNotOptimize(next.data());
    benchmark::ClobberMemory();
  }
  ReportRates(state);
}
BENCHMARK(BM_AddToRecord)->Name("BM_AddToRecord/cpu/1024x1600/bf16");

void BM_AddToRecordAndUse(benchmark::State& state) {
  std::vector<float> restored(kElements, 0.1f);
  const std::vector<uint16_t> record(kElements, 0x3F80);
  std::vector<uint16_t> next(kElements);
  for (auto _ : state) {
    AddToRecordAndUse(record.data(), restored.data(), next.data(), kElements);
    benchmark::DoNotOptimize(next.data());
    benchmark::ClobberMemory();
  }
  ReportRates(state);
}
BENCHMARK(BM_AddToRecordAndUse)
    ->Name("BM_AddToRecordAndUse/cpu/1024x1600/bf16");

}  // namespace
}  // namespace deltapipe
