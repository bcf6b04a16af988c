// The main function of benchmarks of codecs and kernels, with the vector
// instructions to keep to: --vectors=sse4|avx2|avx512 (the best that the
// machine has, unless given). What it has not, is said, and nothing is
// measured.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "compression/delta/delta_kernels.h"
#include "hwy/highway.h"

namespace deltapipe {
namespace {

struct Vectors {
  const char* name;
  int64_t target;  // of Highway; better ones have lower bits
  int bits;
};
constexpr Vectors kVectors[] = {{"sse4", HWY_SSE4, 128},
                                {"avx2", HWY_AVX2, 256},
                                {"avx512", HWY_AVX3, 512}};

/// False, and said why, if there are none of this name.
bool KeepTo(const std::string& name) {
  for (const Vectors& vectors : kVectors) {
    if (name != vectors.name) continue;
    if ((hwy::SupportedTargets() & vectors.target) == 0) {
      std::fprintf(stderr, "this machine has no %s\n", vectors.name);
      return false;
    }
    hwy::DisableTargets(vectors.target - 1);
    SetVectorBitsForTest(vectors.bits);
    benchmark::AddCustomContext("vectors", name);
    return true;
  }
  std::fprintf(stderr, "--vectors=%s: expected sse4, avx2 or avx512\n",
               name.c_str());
  return false;
}

}  // namespace
}  // namespace deltapipe

int main(int argc, char** argv) {
  constexpr char kFlag[] = "--vectors=";
  int num_left = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kFlag, std::strlen(kFlag)) != 0) {
      argv[num_left++] = argv[i];
    } else if (!deltapipe::KeepTo(argv[i] + std::strlen(kFlag))) {
      return 2;
    }
  }
  benchmark::Initialize(&num_left, argv);
  if (benchmark::ReportUnrecognizedArguments(num_left, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
