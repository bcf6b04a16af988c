// The trials that codec_decoder_fuzzer repeats, from a fixed seed: runs
// wherever the suite runs, with gcc and under all sanitizers.
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/testing/allocation_meter.h"
#include "compression/testing/codec_settings.h"
#include "compression/testing/decoder_trial.h"
#include "compression/testing/trial_input.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

// A trial of fewer than 512 values, so that there is time for many.
std::vector<uint8_t> SmallTrial(std::mt19937* random) {
  std::vector<uint8_t> input = {static_cast<uint8_t>((*random)()),
                                static_cast<uint8_t>((*random)() % 2)};
  input.resize(input.size() + (*random)() % 64);
  for (size_t i = 2; i < input.size(); ++i) {
    input[i] = static_cast<uint8_t>((*random)());
  }
  return input;
}

TEST(CodecDecoderTrialTest, EveryDecoderKeepsItsPromises) {
  std::mt19937 random(20);
  for (const std::string& text : AllCodecSettings()) {
    const std::unique_ptr<Codec> codec = MakeCodec(text).value();
    for (int trial = 0; trial < 30; ++trial) {
      const std::vector<uint8_t> input = SmallTrial(&random);
      ASSERT_EQ(TryDecoder(*codec, TrialInput(input)), absl::OkStatus())
          << text << ", trial " << trial;
    }
  }
}

TEST(CodecDecoderTrialTest, EveryRowHasSettings) {
  for (const CodecInfo& info : AllCodecs()) {
    const std::vector<std::string> settings = CodecSettings(info);
    const std::set<std::string> different(settings.begin(), settings.end());
    EXPECT_EQ(different.size(), settings.size()) << info.name;
    if (info.is_wrapper()) {
      EXPECT_TRUE(settings.empty()) << info.name;
    } else if (info.parameters.empty()) {
      EXPECT_EQ(settings.size(), 1u) << info.name;
    } else {
      EXPECT_GE(settings.size(), 2u) << info.name;
    }
  }
}

// Breaks one promise after the other.
class BrokenCodec : public Codec {
 public:
  enum class Fault {
    kNone,
    kLeavesAValue,
    kTakesAnySize,
    kRefuses,
    kOtherCode,
    kHoards,
  };

  explicit BrokenCodec(Fault fault) : fault_(fault) {}
  std::string text() const override { return "broken"; }
  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return num_elements;
  }
  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    return in.size();
  }
  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    if (fault_ == Fault::kRefuses) return absl::InvalidArgumentError("never");
    if (fault_ == Fault::kHoards) hoard_.assign(size_t{1} << 20, 1);
    if (fault_ == Fault::kOtherCode) return absl::DataLossError("other code");
    if (payload.size() != out.size() && fault_ != Fault::kTakesAnySize) {
      return absl::InvalidArgumentError("size");
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (i > 0 || fault_ != Fault::kLeavesAValue) out[i] = 0;
    }
    return absl::OkStatus();
  }
  Traits traits() const override { return {}; }
  double ErrorBound(double block_max) const override { return block_max; }

 private:
  const Fault fault_;
  mutable std::vector<char> hoard_;
};

TEST(CodecDecoderTrialTest, ABrokenPromiseIsNamed) {
  // 5 values: as they are encoded, or two bytes.
  const std::vector<uint8_t> intact = {5, 0, 1, 0, 0, 0};
  const std::vector<uint8_t> raw = {5, 0, 0, 1, 1};
  const auto outcome = [](BrokenCodec::Fault fault,
                          const std::vector<uint8_t>& input) {
    return TryDecoder(BrokenCodec(fault), TrialInput(input)).ToString();
  };
  using Fault = BrokenCodec::Fault;

  EXPECT_EQ(outcome(Fault::kNone, intact), "OK");
  EXPECT_EQ(outcome(Fault::kNone, raw), "OK");
  EXPECT_THAT(outcome(Fault::kLeavesAValue, intact), HasSubstr("left values"));
  EXPECT_THAT(outcome(Fault::kTakesAnySize, raw),
              HasSubstr("took 2 bytes, expected 5"));
  EXPECT_THAT(outcome(Fault::kRefuses, intact),
              HasSubstr("refused what it encoded"));
  EXPECT_THAT(outcome(Fault::kOtherCode, raw), HasSubstr("other code"));
  // Only a sanitizer's runtime counts.
  if (__sanitizer_install_malloc_and_free_hooks != nullptr) {
    EXPECT_THAT(outcome(Fault::kHoards, raw),
                HasSubstr("for a payload of 2, limit 524616"));
  }
}

}  // namespace
}  // namespace deltapipe
