#include "compression/cuda/testing/kernel_settings.h"

#include "absl/strings/str_cat.h"

namespace deltapipe {

std::vector<ConformanceCase> KernelConformanceCases() {
  std::vector<ConformanceCase> cases = {
      {"none"},
      {"cast(bf16)"},
      {"cast(fp16)"},
      {"sign", 2048},
      {"sign(block=64)", 64},
      {"sign(block=192,scale=mean)", 192},
      {"sign(block=0)", 0},
      {"luq", 128},
      {"luq(block=16)", 16},
      {"luq(block=48,samples=3)", 48},
      {"luq(block=0)", 0},
      {"luq(block=0,samples=16)", 0},
      {"fp(1,0)", 128},
      {"fp(2,1,block=16)", 16},
      {"fp(3,2,round=stochastic)", 128},
      {"fp(4,3,block=0)", 0},
      {"fp(7,0,block=208,round=stochastic)", 208},
      {"fp(1,6,block=80)", 80},
      {"rowwise4", 64},
      {"rowwise4(row=1)", 1},
      {"rowwise4(row=37)", 37},
      {"rowwise4(row=1000)", 1000},
      {"prune(0.85)", 0},
      {"prune(0.5,model=exact,values=none)", 0},
      {"prune(0.95,model=exact,values=fp(3,2,round=stochastic,block=64))", 0},
      {"prune(0.7,model=normal,values=cast(bf16))", 0},
      {"aqsgd(1)", 0},
      {"aqsgd(4)", 0},
      {"aqsgd(3,row=50)", 1, [](size_t i) { return i % 50; }},
      {"aqsgd(8,row=16)", 1, [](size_t i) { return i % 16; }},
  };
  for (int bits = 1; bits <= 8; ++bits) {
    const std::string name = absl::StrCat("int(", bits);
    // That of saved activations.
    cases.push_back(
        {absl::StrCat(name,
                      ",block=256,round=stochastic,levels=affine,scale=bf16)"),
         256});
    cases.push_back(
        {absl::StrCat(name, ",block=48,clip=minmax,levels=affine,scale=fp32)"),
         48});
    cases.push_back(
        {absl::StrCat(name,
                      ",block=16,round=stochastic,levels=affine,scale=fp32)"),
         16});
    cases.push_back(
        {absl::StrCat(name, ",block=208,clip=minmax,levels=affine,scale=bf16)"),
         208});
    cases.push_back({absl::StrCat(name, ")"), 64});
    cases.push_back({absl::StrCat(name, ",clip=minmax)"), 64});
    cases.push_back({absl::StrCat(name, ",round=stochastic)"), 64});
    cases.push_back({absl::StrCat(name, ",clip=laplace)"), 64});
    cases.push_back({absl::StrCat(name, ",clip=gauss)"), 64});
    cases.push_back({absl::StrCat(name, ",block=16)"), 16});
    cases.push_back({absl::StrCat(name, ",block=48,round=stochastic)"), 48});
    cases.push_back({absl::StrCat(name, ",block=4096)"), 4096});
    cases.push_back({absl::StrCat(name, ",block=208,clip=minmax)"), 208});
  }
  return cases;
}

std::vector<std::string> BitEqualKernels() {
  std::vector<std::string> texts;
  for (const ConformanceCase& test : KernelConformanceCases()) {
    if (test.codec != "sign(block=0)" &&
        test.codec.find("model=normal") == std::string::npos) {
      texts.push_back(test.codec);
    }
  }
  return texts;
}

}  // namespace deltapipe
