// The kernels of CUDA, run on the host, against the codecs of the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/cuda/testing/carried_codec.h"
#include "compression/cuda/testing/host_launcher.h"
#include "compression/cuda/testing/kernel_settings.h"
#include "compression/cuda/testing/kernel_trials.h"
#include "compression/testing/codec_conformance.h"

namespace deltapipe {
namespace {

absl::StatusOr<std::unique_ptr<Codec>> OnKernels(absl::string_view text) {
  return MakeCarriedCodec(text, MakeHostLaunchedCodec, MakeHostMemory());
}

class KernelsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KernelsTest, PayloadsAndValuesEqualTheHosts) {
  CheckPayloadsEqualTheHosts(GetParam(),
                             {MakeHostLaunchedCodec, MakeHostMemory()});
}

INSTANTIATE_TEST_SUITE_P(BitEqual, KernelsTest,
                         ::testing::ValuesIn(BitEqualKernels()));

TEST(KernelsTest, SignWithoutBlocksHasTheHostsSignsAndNearlyItsScale) {
  const auto host = MakeCodec("sign(block=0)");
  const auto kernels = OnKernels("sign(block=0)");
  ASSERT_TRUE(kernels.ok()) << kernels.status();
  const std::vector<float> values = MakeTestData(TestData::kNormal, 100'003, 4);
  std::vector<uint8_t> expected((*host)->MaxPayloadBytes(values.size()));
  std::vector<uint8_t> payload = expected;

  ASSERT_TRUE(
      (*host)->Encode(values, RandomKey(), absl::MakeSpan(expected)).ok());
  ASSERT_TRUE(
      (*kernels)->Encode(values, RandomKey(), absl::MakeSpan(payload)).ok());

  float expected_scale, scale;
  std::memcpy(&expected_scale, expected.data(), sizeof(scale));
  std::memcpy(&scale, payload.data(), sizeof(scale));
  // One step of fp32 below 1, at most.
  EXPECT_NEAR(scale, expected_scale, 1.2e-7f);
  EXPECT_TRUE(
      std::equal(payload.begin() + 4, payload.end(), expected.begin() + 4));
}

// A setting of each kernel, since half warps that take turns take their time;
// tests/gpu has them all.
TEST(KernelsTest, KeepTheConformanceKit) {
  for (ConformanceCase test : KernelConformanceCases()) {
    const bool is_picked =
        test.codec == "none" || test.codec == "sign(block=0)" ||
        test.codec == "luq(block=48,samples=3)" || test.codec == "rowwise4" ||
        test.codec == "cast(fp16)" || test.codec == "aqsgd(3,row=50)" ||
        test.codec == "fp(3,2,round=stochastic)" ||
        test.codec == "prune(0.5,model=exact,values=none)" ||
        test.codec == "int(4,round=stochastic)" || test.codec == "int(2)" ||
        test.codec ==
            "int(4,block=256,round=stochastic,levels=affine,scale=bf16)" ||
        test.codec == "int(3,block=48,clip=minmax,levels=affine,scale=fp32)";
    if (!is_picked) continue;
    test.make = OnKernels;
    CheckConformance(test);
  }
}

}  // namespace
}  // namespace deltapipe
