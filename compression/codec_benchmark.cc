// Speed of every codec on one core: op/device/shape/spec, in bytes of fp32
// input per second. memcpy of the same bytes is there for the ratio.
//
//   bazel run //compression:codec_benchmark -- --benchmark_filter=1024x1600
#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "compression/codec_registry.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {
namespace {

// The same values for all benchmarks; made once, since that takes longer than
// most of them.
std::vector<float> NormalValues(int64_t count) {
  static std::vector<float>* const values = new std::vector<float>();
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  while (static_cast<int64_t>(values->size()) < count) {
    values->push_back(normal(generator));
  }
  return std::vector<float>(values->begin(), values->begin() + count);
}

// What a codec is for: of `nonzero` the output of a ReLU.
std::vector<float> ValuesFor(const std::string& text, int64_t count) {
  std::vector<float> values = NormalValues(count);
  if (absl::StartsWith(text, "nonzero")) {
    for (float& value : values) value = std::max(value, 0.0f);
  }
  return values;
}

void ReportInput(benchmark::State& state, int64_t count) {
  state.SetBytesProcessed(state.iterations() * count *
                          static_cast<int64_t>(sizeof(float)));
  state.SetItemsProcessed(state.iterations() * count);
}

void Memcpy(benchmark::State& state, int64_t count) {
  const std::vector<float> in = NormalValues(count);
  std::vector<float> out(count);
  for (auto _ : state) {
    std::memcpy(out.data(), in.data(), count * sizeof(float));
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  ReportInput(state, count);
}

void Encode(benchmark::State& state, int64_t count, const std::string& text) {
  auto codec = MakeCodec(text);
  if (!codec.ok())
    return state.SkipWithError(codec.status().ToString().c_str());
  const std::vector<float> in = ValuesFor(text, count);
  std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(count));
  RandomKey key;
  for (auto _ : state) {
    ++key.step;
    auto size = (*codec)->Encode(in, key, absl::MakeSpan(payload));
    benchmark::DoNotOptimize(size);
    benchmark::ClobberMemory();
  }
  ReportInput(state, count);
}

void Decode(benchmark::State& state, int64_t count, const std::string& text) {
  auto codec = MakeCodec(text);
  if (!codec.ok())
    return state.SkipWithError(codec.status().ToString().c_str());
  std::vector<float> values = ValuesFor(text, count);
  std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(count));
  auto size = (*codec)->Encode(values, RandomKey{}, absl::MakeSpan(payload));
  payload.resize(size.value_or(0));
  for (auto _ : state) {
    absl::Status status = (*codec)->Decode(payload, absl::MakeSpan(values));
    benchmark::DoNotOptimize(status);
    benchmark::ClobberMemory();
  }
  ReportInput(state, count);
}

void PackWithResidual(benchmark::State& state, int64_t count) {
  std::vector<float> values = NormalValues(count);
  std::vector<uint8_t> bits(SignBytes(count));
  for (auto _ : state) {
    const double sum = SumOfSquares(values);
    benchmark::DoNotOptimize(sum);
    PackSignsWithResidual(absl::MakeSpan(values), 0.5f, absl::MakeSpan(bits));
    benchmark::ClobberMemory();
  }
  ReportInput(state, count);
}

void UnpackAccumulate(benchmark::State& state, int64_t count) {
  std::vector<float> values = NormalValues(count);
  const std::vector<uint8_t> bits(SignBytes(count), 0x5A);
  for (auto _ : state) {
    UnpackSignsAccumulate(bits, 0.5f, absl::MakeSpan(values));
    benchmark::ClobberMemory();
  }
  ReportInput(state, count);
}

std::vector<std::string> AllTexts() {
  std::vector<std::string> texts = {"cast(fp16)",
                                    "int(2)",
                                    "int(3)",
                                    "int(4)",
                                    "int(4,block=32)",
                                    "int(4,clip=minmax)",
                                    "int(6)",
                                    "int(8)",
                                    "int(4,round=stochastic)",
                                    "int(8,round=stochastic)",
                                    "sign(block=0)",
                                    "aqsgd(4,row=128)",
                                    "rowwise4",
                                    "rowwise4(search=greedy)",
                                    "rowwise4(search=codebook,row=1024)",
                                    "topk(0.01)",
                                    "error_bound(rel=0.01)",
                                    "dual_precision(height=64,width=64)",
                                    "per_head(int(4),row=1024)",
                                    "hadamard(int(4))",
                                    "lowrank(4,columns=1024)"};
  for (const char* text :
       {"luq(samples=2)", "luq(block=0)", "fp(3,0)", "fp(4,3)",
        "fp(4,3,round=stochastic)", "fp(auto,8)", "prune(0.85)",
        "eoq_shift8(round=stochastic)", "int(4,clip=laplace)",
        "int(4,levels=affine)", "int(4,round=stochastic,levels=affine)",
        "int(4,scale=bf16)", "int(4,axis=column,row=1024)",
        "int(4,channel=slow,row=1024)", "nonzero(int(4))",
        "int(2,block=256,round=stochastic,levels=affine,scale=bf16)",
        "nonzero(int(2,block=256,round=stochastic,levels=affine,scale=bf16))",
        "mixed(bits=2.5,row=1024)"}) {
    texts.push_back(text);
  }
  for (const CodecInfo& info : AllCodecs()) {
    if (!info.is_wrapper()) texts.push_back(ExampleCodecText(info));
  }
  return texts;
}

void RegisterAll() {
  // A sample of the main job, one of GPT-2 XL (1024 x 1600), two beyond caches.
  const std::pair<int64_t, const char*> shapes[] = {{128 * 128, "128x128"},
                                                    {1024 * 1600, "1024x1600"},
                                                    {16 << 20, "16Mi"},
                                                    {64 << 20, "64Mi"}};
  const auto add = [](const std::string& name, auto function) {
    benchmark::RegisterBenchmark(name.c_str(), function);
  };
  for (const auto& [count, shape] : shapes) {
    const std::string place = absl::StrCat("/cpu/", shape, "/");
    add(absl::StrCat("memcpy", place, "fp32"),
        [count = count](benchmark::State& state) { Memcpy(state, count); });
    for (const std::string& text : AllTexts()) {
      add(absl::StrCat("encode", place, text),
          [count = count, text](benchmark::State& state) {
            Encode(state, count, text);
          });
      add(absl::StrCat("decode", place, text),
          [count = count, text](benchmark::State& state) {
            Decode(state, count, text);
          });
    }
    add(absl::StrCat("norm_and_pack_with_residual", place, "sign_bits"),
        [count = count](benchmark::State& state) {
          PackWithResidual(state, count);
        });
    add(absl::StrCat("unpack_accumulate", place, "sign_bits"),
        [count = count](benchmark::State& state) {
          UnpackAccumulate(state, count);
        });
  }
}

const bool kIsRegistered = (RegisterAll(), true);

}  // namespace
}  // namespace deltapipe
