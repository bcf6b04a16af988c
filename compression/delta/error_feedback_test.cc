#include "compression/delta/error_feedback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "compression/codec.h"

namespace deltapipe {
namespace {

constexpr int64_t kCount = 300;

class ErrorFeedbackTest : public testing::TestWithParam<const char*> {
 protected:
  ErrorFeedbackTest()
      : codec_(MakeCodec(GetParam()).value()),
        feedback_(codec_.get(), kCount),
        payload_(codec_->MaxPayloadBytes(kCount)),
        residual_(kCount),
        restored_(kCount) {}

  void Send(const std::vector<float>& values, uint32_t step) {
    const int64_t size =
        feedback_
            .Encode(values, residual_.data(), RandomKey{5, 1, step, 0, 1},
                    payload_.span(), residual_.data())
            .value();
    ASSERT_TRUE(
        codec_->Decode(payload_.span().first(size), absl::MakeSpan(restored_))
            .ok());
  }

  std::unique_ptr<Codec> codec_;
  ErrorFeedback feedback_;
  Buffer payload_;
  std::vector<float> residual_;
  std::vector<float> restored_;
};

TEST_P(ErrorFeedbackTest, IsConservedToAMillionth) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<double> sent(kCount);
  std::vector<double> arrived(kCount);
  double moved = 0;  // what went through each sum, for the relative bound
  for (uint32_t step = 0; step < 100; ++step) {
    std::vector<float> values(kCount);
    for (float& value : values) value = normal(random);

    Send(values, step);

    for (int64_t i = 0; i < kCount; ++i) {
      sent[i] += values[i];
      arrived[i] += restored_[i];
      moved += std::fabs(values[i]) / kCount;
    }
  }
  for (int64_t i = 0; i < kCount; ++i) {
    EXPECT_NEAR(arrived[i] + residual_[i], sent[i], 1e-6 * moved) << i;
  }
}

TEST_P(ErrorFeedbackTest, ResidualsStayBounded) {
  std::vector<float> values(kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    values[i] = std::sin(static_cast<float>(i));
  }
  for (uint32_t step = 0; step < 200; ++step) Send(values, step);

  for (const float residual : residual_) EXPECT_LT(std::fabs(residual), 30);
}

TEST_P(ErrorFeedbackTest, NonFiniteInputsLeaveFiniteResiduals) {
  std::vector<float> values(kCount, 1.0f);
  values[3] = NAN;
  values[200] = -INFINITY;

  Send(values, 0);

  for (const float residual : residual_) EXPECT_TRUE(std::isfinite(residual));
}

TEST_P(ErrorFeedbackTest, NullResidualIsZeros) {
  const std::vector<float> values(kCount, 0.3f);
  Send(values, 0);
  const std::vector<float> expected = residual_;
  std::vector<float> next(kCount);

  ASSERT_TRUE(feedback_
                  .Encode(values, nullptr, RandomKey{5, 1, 0, 0, 1},
                          payload_.span(), next.data())
                  .ok());

  EXPECT_EQ(next, expected);
}

TEST_P(ErrorFeedbackTest, WrongSizesAreRefusedAndTheResidualIsKept) {
  const std::vector<float> values(kCount, 0.3f);
  Send(values, 0);
  const std::vector<float> before = residual_;
  const std::vector<float> too_many(kCount + 1);

  EXPECT_EQ(feedback_
                .Encode(too_many, residual_.data(), {}, payload_.span(),
                        residual_.data())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(feedback_
                   .Encode(values, residual_.data(), {},
                           payload_.span().first(1), residual_.data())
                   .ok());

  EXPECT_EQ(residual_, before);
}

// What the fused pass gives, step by step.
class SignFeedbackTest : public testing::TestWithParam<const char*> {};

TEST_P(SignFeedbackTest, EqualsTheCodecBetweenTwoSumsToTheBit) {
  constexpr uint32_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  const auto codec = MakeCodec(GetParam()).value();
  for (const size_t count : {1, 63, 64, 300, 2048, 2049, 5000}) {
    SCOPED_TRACE(count);
    ErrorFeedback feedback(codec.get(), count);
    std::vector<float> residual(count);
    std::vector<float> expected_residual(count);
    std::vector<uint8_t> payload(codec->MaxPayloadBytes(count));
    std::vector<uint8_t> expected(payload.size());
    for (uint32_t step = 0; step < 4; ++step) {
      std::vector<float> values(count);
      for (float& value : values) value = normal(random);
      if (step == 2) values[count / 2] = INFINITY;
      if (step == 3) values[count - 1] = NAN;
      std::vector<float> sum(count);
      for (size_t i = 0; i < count; ++i) {
        sum[i] = values[i] + expected_residual[i];
      }
      ASSERT_TRUE(codec->Encode(sum, {}, absl::MakeSpan(expected)).ok());
      std::vector<float> restored(count);
      ASSERT_TRUE(codec->Decode(expected, absl::MakeSpan(restored)).ok());
      for (size_t i = 0; i < count; ++i) {
        const float lost = sum[i] - restored[i];
        expected_residual[i] = std::isfinite(lost) ? lost : 0;
      }

      ASSERT_EQ(feedback
                    .Encode(values, step == 0 ? nullptr : residual.data(), {},
                            absl::MakeSpan(payload), residual.data())
                    .value(),
                static_cast<int64_t>(payload.size()));

      ASSERT_EQ(payload, expected);
      ASSERT_EQ(residual, expected_residual);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, SignFeedbackTest,
                         testing::Values("sign", "sign(block=64)",
                                         "sign(block=0)",
                                         "sign(block=64,scale=mean)"));

INSTANTIATE_TEST_SUITE_P(Codecs, ErrorFeedbackTest,
                         testing::Values("int(2)", "int(4,round=stochastic)",
                                         "sign", "cast(bf16)"));

}  // namespace
}  // namespace deltapipe
