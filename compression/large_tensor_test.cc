// Every codec on a tensor of more than 2^31 elements: sizes and positions are
// 64 bits wide throughout. Takes 19 GiB of memory and five minutes:
//
//   bazel test //compression:large_tensor_test --test_output=all
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/thread.h"
#include "compression/codec.h"
#include "compression/testing/codec_settings.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr int64_t kSegment = int64_t{1} << 20;
// No multiple of any block.
constexpr int64_t kCount = (int64_t{1} << 31) + 2 * kSegment + 133;
// A prime, so that blocks differ.
constexpr int64_t kPeriod = 65521;

class LargeTensorTest : public ::testing::TestWithParam<std::string> {
 protected:
  LargeTensorTest() : period_(static_cast<size_t>(kPeriod)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : period_) value = normal(random);
  }

  float ValueAt(int64_t i) const {
    return period_[static_cast<size_t>(i % kPeriod)];
  }

  /// ||x - x'|| / ||x|| of a segment from `begin` on.
  double RelativeError(absl::Span<const float> restored, int64_t begin) const {
    double error = 0;
    double norm = 0;
    for (int64_t i = begin; i < begin + kSegment; ++i) {
      const double value = ValueAt(i);
      const double difference = restored[static_cast<size_t>(i)] - value;
      error += difference * difference;
      norm += value * value;
    }
    return std::sqrt(error / norm);
  }

  std::vector<float> period_;
};

TEST_P(LargeTensorTest, IsRestoredToItsEnd) {
  const auto codec = MakeCodec(GetParam()).value();
  Buffer tensor(kCount * static_cast<int64_t>(sizeof(float)));
  const absl::Span<float> values(reinterpret_cast<float*>(tensor.data()),
                                 static_cast<size_t>(kCount));
  for (int64_t i = 0; i < kCount; ++i) {
    values[static_cast<size_t>(i)] = ValueAt(i);
  }
  Buffer payload(codec->MaxPayloadBytes(kCount));

  // Each in a thread of its own, with which what it kept for its next call
  // goes.
  absl::StatusOr<int64_t> size = 0;
  Thread("encode", [&] {
    size = codec->Encode(values, RandomKey{17}, payload.span());
  }).Join();
  ASSERT_TRUE(size.ok()) << size.status();
  for (float& value : values) value = std::numeric_limits<float>::quiet_NaN();
  absl::Status decoded;
  Thread("decode", [&] {
    decoded =
        codec->Decode(payload.span().first(static_cast<size_t>(*size)), values);
  }).Join();
  ASSERT_TRUE(decoded.ok()) << decoded;

  const double at_begin = RelativeError(values, 0);
  for (const int64_t begin :
       {int64_t{1} << 30, int64_t{1} << 31, kCount - kSegment}) {
    const double error = RelativeError(values, begin);
    // Errors are of the same size everywhere; a NaN fails.
    EXPECT_LE(error, 1.2 * at_begin + 1e-6) << "from " << begin;
    EXPECT_GE(error, at_begin / 1.2 - 1e-6) << "from " << begin;
  }
  RecordProperty("bytes", std::to_string(*size));
}

/// Codecs around another one keep a copy of the tensor; with int(4) within, it
/// and the payload are no more than others need.
std::vector<std::string> CodecsThatFit() {
  std::vector<std::string> codecs = AllExampleCodecs();
  for (std::string& text : codecs) {
    text = absl::StrReplaceAll(text, {{"(none)", "(int(4))"}});
  }
  return codecs;
}

INSTANTIATE_TEST_SUITE_P(AllCodecs, LargeTensorTest,
                         ::testing::ValuesIn(CodecsThatFit()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return TestNameOfCodec(info.param);
                         });

}  // namespace
}  // namespace deltapipe
