#include "compression/codecs/eoq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/philox_words.h"

namespace deltapipe {
namespace {

constexpr int kExponentBias = 126;
constexpr uint8_t kZeroBlock = 0;
constexpr uint8_t kNonFiniteBlock = 255;
// Steps to R, and fine steps to a coarse one.
constexpr double kLevels = 128;
constexpr double kLargestCode = 127;

// log2(R) + 126 for the largest magnitude's bits.
uint8_t ScaleCode(uint32_t largest_bits) {
  // The mantissa of sqrt(2) lies between these bits less 1 and these bits.
  constexpr uint32_t kSqrtTwoMantissa = 0x3504F4;
  if (largest_bits == 0) return kZeroBlock;
  if (largest_bits >= kInfinityBits) return kNonFiniteBlock;
  const int exponent = static_cast<int>(largest_bits >> 23) - 127 +
                       ((largest_bits & 0x7FFFFFu) >= kSqrtTwoMantissa ? 1 : 0);
  return static_cast<uint8_t>(std::max(exponent, -125) + kExponentBias);
}

double ScaleOf(uint8_t code) {
  return std::ldexp(1.0, static_cast<int>(code) - kExponentBias);
}

// To an integer; |t| < 2^51.
double RoundToNearestEven(double t) {
  constexpr double kShift = 0x1.8p52;
  return (t + kShift) - kShift;
}

class EoqCodec final : public Codec {
 public:
  EoqCodec(std::string text, bool has_flags, int64_t block, bool is_stochastic)
      : text_(std::move(text)),
        has_flags_(has_flags),
        block_(block),
        is_stochastic_(is_stochastic) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return NumBlocks(num_elements) + num_elements + FlagBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    std::fill(out.begin(), out.begin() + size, 0);
    uint8_t* const codes = out.data() + NumBlocks(in.size());
    uint8_t* const flags = codes + in.size();
    ElementWords words(key);
    for (size_t begin = 0; begin < in.size(); begin += BlockSize(in.size())) {
      const auto values = in.subspan(begin, BlockSize(in.size()));
      const uint8_t scale = ScaleCode(LargestMagnitudeBits(values));
      out[begin / BlockSize(in.size())] = scale;
      const bool is_plain = scale != kZeroBlock && scale != kNonFiniteBlock;
      const double inverse_step = is_plain ? kLevels / ScaleOf(scale) : 0;
      for (size_t i = 0; i < values.size(); ++i) {
        // All elements draw, so that blocks do not depend on one another.
        const uint32_t word = is_stochastic_ ? words.Next() : 0;
        if (!is_plain) continue;
        const double t = values[i] * inverse_step;
        double code = 0;
        if (has_flags_ && std::fabs(t) < 1) {
          code = Round(t * kLevels, word);
          if (std::fabs(code) < kLevels) {
            flags[(begin + i) / 8] |=
                static_cast<uint8_t>(1 << ((begin + i) % 8));
          } else {
            code /= kLevels;  // a whole coarse step
          }
        } else {
          code = std::clamp(Round(t, word), -kLargestCode, kLargestCode);
        }
        codes[begin + i] = static_cast<uint8_t>(static_cast<int8_t>(code));
      }
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t num_elements = out.size();
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, num_elements, MaxPayloadBytes(num_elements), payload.size()));
    if (num_elements == 0) return absl::OkStatus();
    const uint8_t* const codes = payload.data() + NumBlocks(num_elements);
    const uint8_t* const flags = codes + num_elements;
    if (std::memchr(codes, 0x80, num_elements) != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_,
                       " failed: a code is -128, expected -127..127"));
    }
    if (has_flags_) {
      DP_RETURN_IF_ERROR(CheckUnusedBits(text_, num_elements, payload.back()));
    }
    for (size_t begin = 0; begin < out.size(); begin += BlockSize(out.size())) {
      const auto values = out.subspan(begin, BlockSize(out.size()));
      const uint8_t scale = payload[begin / BlockSize(out.size())];
      if (scale == kZeroBlock || scale == kNonFiniteBlock) {
        std::fill(values.begin(), values.end(),
                  scale == kZeroBlock
                      ? 0.0f
                      : std::numeric_limits<float>::quiet_NaN());
        continue;
      }
      // Exact, as are the products.
      const float step = static_cast<float>(ScaleOf(scale) / kLevels);
      const float fine_step =
          static_cast<float>(ScaleOf(scale) / (kLevels * kLevels));
      for (size_t i = 0; i < values.size(); ++i) {
        const float code =
            static_cast<float>(static_cast<int8_t>(codes[begin + i]));
        const bool is_fine =
            has_flags_ &&
            (flags[(begin + i) / 8] >> ((begin + i) % 8) & 1) != 0;
        values[i] = code * (is_fine ? fine_step : step);
      }
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.is_stochastic = is_stochastic_;
    traits.bits_per_element =
        (has_flags_ ? 9 : 8) +
        (block_ == 0 ? 0.0 : 8.0 / static_cast<double>(block_));
    return traits;
  }

  // What is clipped from the largest magnitude, 1 - (127 / 128) / sqrt(2) of
  // it; below 2^-125, where R does not follow, a step.
  double ErrorBound(double block_max) const override {
    return block_max * 0.2985 + 0x1p-132;
  }

 private:
  double Round(double t, uint32_t word) const {
    if (!is_stochastic_) return RoundToNearestEven(t);
    const double floor = std::floor(t);
    return floor + (UniformFloat(word) < t - floor ? 1 : 0);
  }

  int64_t NumBlocks(int64_t num_elements) const {
    if (num_elements == 0) return 0;
    return block_ == 0 ? 1 : (num_elements + block_ - 1) / block_;
  }
  size_t BlockSize(size_t num_elements) const {
    return block_ == 0 ? num_elements : static_cast<size_t>(block_);
  }
  int64_t FlagBytes(int64_t num_elements) const {
    return has_flags_ ? (num_elements + 7) / 8 : 0;
  }

  const std::string text_;
  const bool has_flags_;
  const int64_t block_;
  const bool is_stochastic_;
};

constexpr CodecParameter kParameters[] = {
    ChoiceParameter("round", "nearest", "nearest|stochastic",
                    "stochastic is unbiased below the clipped end"),
    IntegerParameter("block", "0", 0, 1 << 24,
                     "values that share a scale; 0: all of them", 16),
};

std::unique_ptr<Codec> MakeEoq(const CodecArguments& arguments,
                               bool has_flags) {
  return std::unique_ptr<Codec>(new EoqCodec(
      arguments.CanonicalText(), has_flags, arguments.Integer("block"),
      arguments.Word("round") == "stochastic"));
}

}  // namespace

absl::Span<const CodecParameter> EoqShift8Parameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeEoqShift8Codec(
    const CodecArguments& arguments) {
  return MakeEoq(arguments, /*has_flags=*/false);
}

absl::Span<const CodecParameter> EoqFlag8Parameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeEoqFlag8Codec(
    const CodecArguments& arguments) {
  return MakeEoq(arguments, /*has_flags=*/true);
}

}  // namespace deltapipe
