// DeviceCodec by the kernels of CUDA, run on the host: state, outcomes, errors.
#include "compression/cuda/device_codec.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/float_cast.h"
#include "compression/codec.h"
#include "compression/cuda/testing/host_launcher.h"
#include "compression/delta/boundary_spec.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/error_feedback.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kSeeds[] = {5, 20261122};

/// The sender of compression/delta/boundary_encoder.cc, for one sample.
class HostDelta {
 public:
  explicit HostDelta(const std::string& text)
      : spec_(*ParseBoundarySpec(text, 0)) {}

  bool is_float32() const {
    return spec_.store == BoundarySpec::Store::kFloat32;
  }
  bool is_delta() const { return is_delta_; }
  /// As bytes, so that they compare by their bits.
  const std::vector<uint8_t>& record() const { return record_; }

  std::vector<uint8_t> Encode(const std::vector<float>& values,
                              const RandomKey& key) {
    std::vector<float> difference(values.size()), restored(values.size());
    is_delta_ = false;
    if (!record_.empty()) {
      const SquaredNorms norms = Subtract(values, &difference);
      is_delta_ = std::isfinite(norms.value) &&
                  norms.difference <= 0.7 * 0.7 * norms.value;
    }
    const Codec& codec = is_delta_ ? *spec_.codec : *spec_.first;
    std::vector<uint8_t> payload(codec.MaxPayloadBytes(values.size()));
    EXPECT_TRUE(codec
                    .Encode(is_delta_ ? difference : values, key,
                            absl::MakeSpan(payload))
                    .ok());
    EXPECT_TRUE(codec.Decode(payload, absl::MakeSpan(restored)).ok());
    Update(restored);
    return payload;
  }

 private:
  SquaredNorms Subtract(const std::vector<float>& values,
                        std::vector<float>* difference) {
    const int64_t count = values.size();
    return is_float32() ? SubtractRecord(values.data(), As<float>(),
                                         difference->data(), count)
                        : SubtractRecord(values.data(), As<uint16_t>(),
                                         difference->data(), count);
  }
  void Update(const std::vector<float>& restored) {
    is_float32() ? UpdateAs<float>(restored) : UpdateAs<uint16_t>(restored);
  }
  template <class Element>
  void UpdateAs(const std::vector<float>& restored) {
    std::vector<Element> next(restored.size());
    if (is_delta_) {
      AddToRecord(As<Element>(), restored.data(), next.data(), next.size());
    } else {
      StoreRecord(restored.data(), next.data(), next.size());
    }
    record_.resize(next.size() * sizeof(Element));
    std::memcpy(record_.data(), next.data(), record_.size());
  }
  template <class Element>
  const Element* As() const {
    return reinterpret_cast<const Element*>(record_.data());
  }

  const BoundarySpec spec_;
  std::vector<uint8_t> record_;
  bool is_delta_ = false;
};

/// Values that drift, now and then jump, and at times are not finite.
std::vector<float> NextValues(int step, const std::vector<float>& last,
                              std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> next = last;
  const float drift = step % 5 == 4 ? 10.0f : 0.1f;
  for (size_t i = 0; i < next.size(); ++i) {
    next[i] += drift * normal(*random) * (i / 100 % 3 == 0 ? 1e-3f : 1.0f);
  }
  if (step == 6)
    next[next.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  if (step == 7) next[next.size() / 2] = 1;
  if (step == 8) next[0] = -std::numeric_limits<float>::infinity();
  if (step == 9) next[0] = FLT_MAX;
  if (step == 10) next[0] = 1;
  return next;
}

class DeltaChainTest : public ::testing::TestWithParam<std::string> {};

TEST_P(DeltaChainTest, PayloadsAndRecordsEqualTheHostsOverManySteps) {
  constexpr int kNumSteps = 16;
  for (const uint32_t seed : kSeeds) {
    for (const size_t count : {size_t{1}, size_t{63}, size_t{2085}}) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", count ", count));
      std::mt19937 random(seed);
      HostDelta host(GetParam());
      auto sender = MakeHostLaunchedCodec(GetParam(), count);
      auto receiver = MakeHostLaunchedCodec(GetParam(), count);
      ASSERT_TRUE(sender.ok()) << sender.status();
      const size_t element = host.is_float32() ? 4 : 2;
      std::vector<uint8_t> record(count * element), received(count * element);
      std::vector<uint8_t> payload((*sender)->MaxPayloadBytes(count));
      std::vector<float> values(count), used(count);
      int num_deltas = 0;
      for (int step = 0; step < kNumSteps; ++step) {
        SCOPED_TRACE(absl::StrCat("step ", step));
        values = NextValues(step, values, &random);
        const RandomKey key{seed, 1, static_cast<uint32_t>(step), 2, 0};
        const std::vector<uint8_t> expected = host.Encode(values, key);

        // The record is replaced where it lies.
        const void* const before = step == 0 ? nullptr : record.data();
        cuda::EncodeOutcome outcome{};
        ASSERT_TRUE((*sender)
                        ->EncodeDelta({values.data(), int64_t(count), before,
                                       record.data()},
                                      key, payload.data(), &outcome, nullptr)
                        .ok());
        uint32_t problem = 0;
        ASSERT_TRUE(
            (*receiver)
                ->DecodeDelta(
                    {payload.data(), outcome.payload_bytes, &problem},
                    outcome.is_delta != 0,
                    {nullptr, int64_t(count),
                     step == 0 ? nullptr : received.data(), received.data()},
                    used.data(), nullptr)
                .ok());

        ASSERT_EQ(outcome.is_delta != 0, host.is_delta());
        ASSERT_EQ(absl::MakeSpan(payload).first(outcome.payload_bytes),
                  absl::MakeConstSpan(expected));
        ASSERT_EQ(record, host.record());
        ASSERT_EQ(received, record);
        ASSERT_EQ(problem, 0u);
        for (size_t i = 0; i < count; ++i) {
          float stored = 0;
          std::memcpy(host.is_float32()
                          ? reinterpret_cast<uint8_t*>(&stored)
                          : reinterpret_cast<uint8_t*>(&stored) + 2,
                      record.data() + i * element, element);
          ASSERT_EQ(FloatBits(used[i]), FloatBits(stored)) << i;
        }
        num_deltas += host.is_delta();
      }
      if (count > 1) {
        EXPECT_GT(num_deltas, 3);
        EXPECT_LT(num_deltas, kNumSteps - 2);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Specs, DeltaChainTest,
    ::testing::Values(
        "delta(int(4))", "delta(int(4),store=fp32)",
        "delta(int(2,round=stochastic),first=cast(bf16))",
        "delta(int(4,block=128),first=int(8))",
        "delta(int(3,block=16,clip=minmax),first=int(6,block=16))",
        "delta(luq)", "delta(luq(block=0,samples=2),store=fp32)",
        "delta(fp(2,1),first=none)", "delta(sign(scale=mean))",
        "delta(rowwise4(row=37),first=rowwise4(row=50))",
        "delta(aqsgd(4,row=21),first=aqsgd(8))",
        "delta(cast(fp16),first=int(8,block=32))"));

class FeedbackChainTest : public ::testing::TestWithParam<std::string> {};

TEST_P(FeedbackChainTest, PayloadsAndResidualsEqualTheHostsOverManySteps) {
  const std::string inner = GetParam();
  for (const uint32_t seed : kSeeds) {
    for (const size_t count : {size_t{1}, size_t{777}, size_t{5000}}) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", count ", count));
      std::mt19937 random(seed);
      const auto codec = MakeCodec(inner);
      ErrorFeedback host(codec->get(), count);
      auto kernels =
          MakeHostLaunchedCodec(absl::StrCat("ef(", inner, ")"), count);
      ASSERT_TRUE(kernels.ok()) << kernels.status();
      std::vector<float> expected_residual(count), residual(count);
      std::vector<uint8_t> expected((*codec)->MaxPayloadBytes(count));
      std::vector<uint8_t> payload(expected.size());
      std::vector<float> values(count);
      for (int step = 0; step < 12; ++step) {
        SCOPED_TRACE(absl::StrCat("step ", step));
        values = NextValues(step, values, &random);
        const RandomKey key{seed, 1, static_cast<uint32_t>(step), 2, 0};
        ASSERT_TRUE(
            host.Encode(values, step == 0 ? nullptr : expected_residual.data(),
                        key, absl::MakeSpan(expected), expected_residual.data())
                .ok());

        cuda::EncodeOutcome outcome{};
        ASSERT_TRUE((*kernels)
                        ->EncodeFeedback({values.data(), int64_t(count),
                                          step == 0 ? nullptr : residual.data(),
                                          residual.data()},
                                         key, payload.data(), &outcome, nullptr)
                        .ok());

        ASSERT_EQ(outcome.payload_bytes, int64_t(expected.size()));
        ASSERT_EQ(payload, expected);
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(FloatBits(residual[i]), FloatBits(expected_residual[i]))
              << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, FeedbackChainTest,
                         ::testing::Values("sign", "sign(block=64,scale=mean)",
                                           "int(4)", "int(2,block=48)", "luq",
                                           "fp(3,0,block=0)", "rowwise4"));

TEST(DeviceCodecTest, SignWithoutBlocksLeavesWhatItsOwnScaleLeaves) {
  constexpr int64_t kCount = 5003;
  auto codec = MakeHostLaunchedCodec("ef(sign(block=0))", kCount);
  ASSERT_TRUE(codec.ok()) << codec.status();
  std::mt19937 random(kSeeds[0]);
  std::vector<float> values(kCount), residual(kCount);
  values = NextValues(0, values, &random);
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
        "delta(int(4),first=lowrank(4))", "delta(int(4),store=int(8))"}) {
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
  for (const Case& test :
       std::vector<Case>{{"int(4)", 0, 236, cuda::kImpossibleWindow},
                         {"int(4)", 33, 0xF0, cuda::kUnusedBitsAreSet},
                         {"sign", 3, 0x80, cuda::kImpossibleScale},
                         {"sign", 11, 0x80, cuda::kUnusedBitsAreSet},
                         {"luq", 1, 0x80, cuda::kImpossibleScale},
                         {"luq", 33, 0xF0, cuda::kUnusedBitsAreSet},
                         {"rowwise4", 1, 0x80, cuda::kImpossibleScale},
                         {"rowwise4", 35, 0xF0, cuda::kUnusedBitsAreSet},
                         {"aqsgd(4)", 1, 0x7C, cuda::kImpossibleScale},
                         {"aqsgd(4)", 33, 0xF0, cuda::kUnusedBitsAreSet}}) {
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
