// What vectors gain: each encoder's kernel and its plain reference, which the
// compiler has as it has everything here, on the same values in one run.
// kernel/form/cpu/shape, in bytes of fp32 input per second. In one line:
//
//   bazel run //compression/kernels:kernel_benchmark --
//     --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//     --benchmark_report_aggregates_only=true
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "compression/kernels/channel_quantize.h"
#include "compression/kernels/double_levels.h"
#include "compression/kernels/even_levels.h"
#include "compression/kernels/int_quantize.h"
#include "compression/kernels/minifloat_quantize.h"
#include "compression/kernels/reference/channel_quantize.h"
#include "compression/kernels/reference/double_levels.h"
#include "compression/kernels/reference/even_levels.h"
#include "compression/kernels/reference/int_quantize.h"
#include "compression/kernels/reference/minifloat_quantize.h"
#include "compression/kernels/reference/sign_bits.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {
namespace {

constexpr size_t kCount = size_t{1} << 20;
// What kernels that serve one block or row at a time are called with.
constexpr size_t kRow = 1024;

using Encoder = std::function<void(absl::Span<const float>, uint8_t*)>;

const std::vector<float>& Values() {
  static const auto* const values = [] {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    auto* made = new std::vector<float>(kCount);
    for (float& value : *made) value = normal(generator);
    return made;
  }();
  return *values;
}

void Run(benchmark::State& state, const Encoder& encode) {
  std::vector<uint8_t> out(2 * kCount);
  for (auto _ : state) {
    encode(Values(), out.data());
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kCount * sizeof(float));
  state.SetItemsProcessed(state.iterations() * kCount);
}

void Add(const std::string& kernel, Encoder vectors, Encoder reference) {
  const std::pair<const char*, Encoder> forms[] = {
      {"vectors", std::move(vectors)}, {"reference", std::move(reference)}};
  for (const auto& [form, encode] : forms) {
    benchmark::RegisterBenchmark(
        absl::StrCat(kernel, "/", form, "/cpu/1Mi").c_str(),
        [encode = encode](benchmark::State& state) { Run(state, encode); });
  }
}

void AddInt(const std::string& name, const IntFormat& format) {
  const RandomKey key{1, 2, 3, 4, 1};
  Add(
      name, [=](auto in, uint8_t* out) { IntQuantize(format, in, key, out); },
      [=](auto in, uint8_t* out) {
        reference::IntQuantize(format, in, key, out);
      });
}

void AddMinifloat(const std::string& name, const MinifloatFormat& format) {
  const RandomKey key{1, 2, 3, 4, 1};
  Add(
      name,
      [=](auto in, uint8_t* out) { MinifloatQuantize(format, in, key, out); },
      [=](auto in, uint8_t* out) {
        reference::MinifloatQuantize(format, in, key, out);
      });
}

// A kernel that is called for one row after another.
template <class Function>
Encoder ByRow(Function function) {
  return [function](absl::Span<const float> in, uint8_t* out) {
    for (size_t at = 0; at < in.size(); at += kRow) {
      function(in.subspan(at, kRow), out + at);
    }
  };
}

void AddRows() {
  const EvenSteps even = {1.0f, -4.0f, 15 / 8.0f};
  Add("even_levels",
      ByRow([=](auto row, uint8_t* out) { EvenCodes(row, even, out); }),
      ByRow([=](auto row, uint8_t* out) {
        reference::EvenCodes(row, even, out);
      }));
  const DoubleSteps steps = {-4.0, 15 / 8.0, 0, 15};
  Add("double_levels",
      ByRow([=](auto row, uint8_t* out) { DoubleCodes(row, steps, out); }),
      ByRow([=](auto row, uint8_t* out) {
        reference::DoubleCodes(row, steps, out);
      }));
  const std::vector<uint32_t> words(kRow, 0x12345678u);
  Add("double_levels_stochastic", ByRow([=](auto row, uint8_t* out) {
        DoubleStochasticCodes(row, steps, words.data(), out);
      }),
      ByRow([=](auto row, uint8_t* out) {
        reference::DoubleStochasticCodes(row, steps, words.data(), out);
      }));
  const std::vector<float> divisors(kRow, 4.0f);
  Add("channels", ByRow([=](auto row, uint8_t* out) {
        ChannelCodes(row, divisors, 8.0f, out);
      }),
      ByRow([=](auto row, uint8_t* out) {
        reference::ChannelCodes(row, divisors, 8.0f, out);
      }));
}

void AddSigns() {
  Add(
      "sign",
      [](auto in, uint8_t* out) {
        PackSigns(in, absl::MakeSpan(out, SignBytes(in.size())));
      },
      [](auto in, uint8_t* out) {
        reference::PackSigns(in, absl::MakeSpan(out, SignBytes(in.size())));
      });
  Add(
      "sum_of_squares",
      [](auto in, uint8_t*) { benchmark::DoNotOptimize(SumOfSquares(in)); },
      [](auto in, uint8_t*) {
        benchmark::DoNotOptimize(reference::SumOfSquares(in));
      });
  static std::vector<float>* const values = new std::vector<float>(Values());
  Add(
      "sign_with_residual",
      [](auto in, uint8_t* out) {
        PackSignsWithResidual(absl::MakeSpan(*values), 0.5f,
                              absl::MakeSpan(out, SignBytes(in.size())));
      },
      [](auto in, uint8_t* out) {
        reference::PackSignsWithResidual(
            absl::MakeSpan(*values), 0.5f,
            absl::MakeSpan(out, SignBytes(in.size())));
      });
}

const bool kIsRegistered = [] {
  AddInt("int4_search", {4, 64, false, true});
  AddInt("int4_minmax", {4, 64, false, false});
  AddInt("int4_stochastic", {4, 64, true, false});
  AddInt("int2_search", {2, 64, false, true});
  AddInt("int8_stochastic", {8, 64, true, false});
  AddMinifloat("luq", {3, 0, 128, true, 1});
  AddMinifloat("fp4_3", {4, 3, 128, false, 1});
  AddMinifloat("fp4_3_stochastic", {4, 3, 128, true, 1});
  AddSigns();
  AddRows();
  return true;
}();

}  // namespace
}  // namespace deltapipe
