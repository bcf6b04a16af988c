// DeviceCodec by the kernels of CUDA, run on the host: state, outcomes, errors.
#include "compression/cuda/device_codec.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/cuda/testing/host_launcher.h"
#include "compression/cuda/testing/kernel_trials.h"
#include "compression/testing/codec_conformance.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

TrialDevice Host() { return {MakeHostLaunchedCodec, MakeHostMemory()}; }

class DeltaChainTest : public ::testing::TestWithParam<std::string> {};

TEST_P(DeltaChainTest, PayloadsAndRecordsEqualTheHostsOverManySteps) {
  CheckDeltaChain(GetParam(), Host());
}

INSTANTIATE_TEST_SUITE_P(Specs, DeltaChainTest,
                         ::testing::ValuesIn(DeltaChainCodecs()));

class FeedbackChainTest : public ::testing::TestWithParam<std::string> {};

TEST_P(FeedbackChainTest, PayloadsAndResidualsEqualTheHostsOverManySteps) {
  CheckFeedbackChain(GetParam(), Host());
}

INSTANTIATE_TEST_SUITE_P(Codecs, FeedbackChainTest,
                         ::testing::ValuesIn(FeedbackChainCodecs()));

TEST(DeviceCodecTest, SignWithoutBlocksLeavesWhatItsOwnScaleLeaves) {
  constexpr int64_t kCount = 5003;
  auto codec = MakeHostLaunchedCodec("ef(sign(block=0))", kCount);
  ASSERT_TRUE(codec.ok()) << codec.status();
  std::vector<float> values = MakeTestData(TestData::kNormal, kCount, 3);
  std::vector<float> residual(kCount);
  std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(kCount));
  cuda::EncodeOutcome outcome{};

  ASSERT_TRUE(
      (*codec)
          ->EncodeFeedback({values.data(), kCount, nullptr, residual.data()},
                           RandomKey(), payload.data(), &outcome, nullptr)
          .ok());

  std::vector<float> restored(kCount);
  ASSERT_TRUE((*MakeCodec("sign(block=0)"))
                  ->Decode(payload, absl::MakeSpan(restored))
                  .ok());
  for (int64_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(residual[i], values[i] - restored[i]) << i;
  }
}

TEST(DeviceCodecTest, NamesTheCodecThatHasNoKernel) {
  for (const char* text :
       {"topk(0.1)", "int(4,levels=affine)", "fp(auto,4)", "hadamard(int(4))",
        "luq(range=hindsight)", "rowwise4(search=greedy)",
        "prune(0.5,values=int(4))", "prune(0.5,values=luq(block=0))",
        "delta(int(4),first=lowrank(4))", "delta(int(4),store=int(8))",
        "ef(int(4),store=int(8))"}) {
    const absl::Status status = MakeHostLaunchedCodec(text, 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("no CUDA kernel"));
  }
  EXPECT_THAT(
      std::string(MakeHostLaunchedCodec("delta(int(4),first=topk(0.1))", 1)
                      .status()
                      .message()),
      HasSubstr("codec topk(0.1)"));
}

TEST(DeviceCodecTest, RefusesWhatMakeCodecRefuses) {
  const absl::Status status = MakeHostLaunchedCodec("int(9)", 1).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected 1..8, got 9"));
}

TEST(DeviceCodecTest, RefusesSizesAndKindsThatCannotBe) {
  const auto codec = MakeHostLaunchedCodec("int(4)", 64);
  const auto delta = MakeHostLaunchedCodec("delta(int(4))", 64);
  std::vector<float> values(65);
  std::vector<uint8_t> payload(100);
  cuda::EncodeOutcome outcome{};
  uint32_t problem = 0;

  const absl::Status too_many = (*codec)->Encode(
      values.data(), 65, RandomKey(), payload.data(), &outcome, nullptr);
  const absl::Status too_short = (*codec)->Decode(
      {payload.data(), 33, &problem}, values.data(), 64, nullptr);
  const absl::Status other_kind = (*delta)->Encode(
      values.data(), 64, RandomKey(), payload.data(), &outcome, nullptr);
  const absl::Status no_record = (*delta)->DecodeDelta(
      {payload.data(), 34, &problem}, true,
      {nullptr, 64, nullptr, payload.data()}, values.data(), nullptr);

  EXPECT_EQ(too_many.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_many.message()),
              HasSubstr("65 values, expected 0..64"));
  EXPECT_EQ(too_short.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_short.message()),
              HasSubstr("payload of 33 bytes, expected 34 for 64 elements"));
  EXPECT_EQ(other_kind.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(no_record.code(), absl::StatusCode::kInvalidArgument);
}

TEST(DeviceCodecTest, ReportsPayloadsThatCannotBe) {
  struct Case {
    const char* codec;
    size_t byte;
    uint8_t value;
    uint32_t problem;
  };
  for (const Case& test : std::vector<Case>{
           {"int(4)", 0, 236, cuda::kImpossibleWindow},
           {"int(4)", 33, 0xF0, cuda::kUnusedBitsAreSet},
           {"sign", 3, 0x80, cuda::kImpossibleScale},
           {"sign", 11, 0x80, cuda::kUnusedBitsAreSet},
           {"luq", 1, 0x80, cuda::kImpossibleScale},
           {"luq", 33, 0xF0, cuda::kUnusedBitsAreSet},
           // A constant, as its scale of 0 says; and codes of the last block.
           {"int(4,block=256,round=stochastic,levels=affine,scale=bf16)", 6, 1,
            cuda::kUnusedBitsAreSet},
           {"int(8,block=16,clip=minmax,levels=affine,scale=fp32)", 80, 1,
            cuda::kUnusedBitsAreSet},
           {"rowwise4", 1, 0x80, cuda::kImpossibleScale},
           {"rowwise4", 35, 0xF0, cuda::kUnusedBitsAreSet},
           {"aqsgd(4)", 1, 0x7C, cuda::kImpossibleScale},
           {"aqsgd(4)", 33, 0xF0, cuda::kUnusedBitsAreSet},
           {"prune(0.5)", 3, 0x80, cuda::kImpossibleScale},
           {"prune(0.5)", 11, 0x80, cuda::kUnusedBitsAreSet},
           // One is kept, and the payload is longer than that needs.
           {"prune(0.5)", 4, 0x01, cuda::kImpossibleSize}}) {
    constexpr int64_t kCount = 63;
    const auto codec = MakeHostLaunchedCodec(test.codec, kCount);
    std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(kCount), 0);
    std::vector<float> values(kCount);
    payload[test.byte] = test.value;
    uint32_t problem = 0;

    ASSERT_TRUE((*codec)
                    ->Decode({payload.data(),
                              static_cast<int64_t>(payload.size()), &problem},
                             values.data(), kCount, nullptr)
                    .ok());

    EXPECT_EQ(problem, test.problem) << test.codec << ", byte " << test.byte;
  }
}

}  // namespace
}  // namespace deltapipe
