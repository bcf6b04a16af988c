// codec_suite: the kernels of compression/cuda on a GPU, held to the
// conformance kit and, bit by bit, to the codecs of the host. Skips, saying
// why, where there is no GPU or no CUDA in the build.
//
// It needs nothing but the driver and a few system libraries, so that it can be
// carried to another machine:
//
//   bazel build --config=cuda //tests/gpu:codec_suite
//   ldd bazel-bin/tests/gpu/codec_suite | grep -o '/[^ ]*' | xargs cp -L -t lib
//   lib/ld-linux-x86-64.so.2 --library-path lib ./codec_suite
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "compression/codec.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/testing/carried_codec.h"
#include "compression/cuda/testing/kernel_settings.h"
#include "compression/cuda/testing/kernel_trials.h"
#include "compression/testing/codec_conformance.h"

namespace deltapipe {
namespace {

absl::StatusOr<std::unique_ptr<Codec>> OnGpu(absl::string_view text) {
  auto memory = MakeCudaMemory();
  if (!memory.ok()) return memory.status();
  return MakeCarriedCodec(text, MakeDeviceCodec, *std::move(memory));
}

class CodecSuite : public ::testing::Test {
 protected:
  void SetUp() override {
    auto memory = MakeCudaMemory();
    if (!memory.ok()) GTEST_SKIP() << memory.status().message();
    device_ = {MakeDeviceCodec, *std::move(memory)};
  }

  TrialDevice device_;
};

TEST_F(CodecSuite, KernelsKeepTheConformanceKit) {
  for (ConformanceCase test : KernelConformanceCases()) {
    test.make = OnGpu;
    CheckConformance(test);
  }
}

TEST_F(CodecSuite, KernelsKeepTheKitOnLargeTensors) {
  for (ConformanceCase test : KernelConformanceCases()) {
    SCOPED_TRACE(test.codec);
    test.make = OnGpu;
    CheckLargeTensor(test);
  }
}

TEST_F(CodecSuite, PayloadsAndValuesEqualTheHosts) {
  for (const std::string& codec : BitEqualKernels()) {
    CheckPayloadsEqualTheHosts(codec, device_);
  }
}

// Many blocks of threads, which the small sizes of the trials are not.
TEST_F(CodecSuite, LargePayloadsEqualTheHosts) {
  const std::vector<float> values =
      MakeTestData(TestData::kHeavyTailed, (size_t{4} << 20) + 77, 11);
  const RandomKey key{20261122, 1, 2, 3, 1};
  for (const std::string& codec : BitEqualKernels()) {
    SCOPED_TRACE(codec);
    const auto host = MakeCodec(codec);
    const auto gpu = OnGpu(codec);
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    std::vector<uint8_t> expected((*host)->MaxPayloadBytes(values.size()));
    std::vector<uint8_t> payload(expected.size());
    std::vector<float> expected_values(values.size()), decoded(values.size());

    ASSERT_TRUE((*host)->Encode(values, key, absl::MakeSpan(expected)).ok());
    ASSERT_TRUE((*gpu)->Encode(values, key, absl::MakeSpan(payload)).ok());
    ASSERT_TRUE(
        (*host)->Decode(expected, absl::MakeSpan(expected_values)).ok());
    ASSERT_TRUE((*gpu)->Decode(expected, absl::MakeSpan(decoded)).ok());

    EXPECT_TRUE(payload == expected);
    EXPECT_TRUE(decoded == expected_values);
  }
}

TEST_F(CodecSuite, DeltasAndRecordsEqualTheHostsOverManySteps) {
  for (const std::string& codec : DeltaChainCodecs()) {
    CheckDeltaChain(codec, device_);
  }
}

TEST_F(CodecSuite, ResidualsEqualTheHostsOverManySteps) {
  for (const std::string& codec : FeedbackChainCodecs()) {
    CheckFeedbackChain(codec, device_);
  }
}

}  // namespace
}  // namespace deltapipe
