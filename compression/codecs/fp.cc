#include "compression/codecs/fp.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/minifloat_payload.h"
#include "compression/codecs/minifloat_split.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {
namespace {

constexpr int kMaxBits = 8;

Codec::Traits FpTraits(const MinifloatFormat& format) {
  Codec::Traits traits;
  traits.is_unbiased = format.is_stochastic;
  traits.is_stochastic = format.is_stochastic;
  traits.bits_per_element =
      format.bits() +
      (format.block == 0 ? 0.0 : 16.0 / static_cast<double>(format.block));
  return traits;
}

class FpCodec final : public Codec {
 public:
  FpCodec(std::string text, const MinifloatFormat& format)
      : text_(std::move(text)), format_(format) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return MinifloatPayloadBytes(format_, num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    MinifloatQuantize(format_, in, key, out.data());
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    return DecodeMinifloats(text_, format_, payload, out);
  }

  Traits traits() const override { return FpTraits(format_); }

  double ErrorBound(double block_max) const override {
    return MinifloatErrorBound(format_, block_max);
  }

 private:
  const std::string text_;
  const MinifloatFormat format_;
};

class AutoFpCodec final : public Codec {
 public:
  // `format` has the block, the rounding and the number of bits.
  AutoFpCodec(std::string text, const MinifloatFormat& format)
      : text_(std::move(text)), format_(format) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return num_elements == 0 ? 0
                             : 1 + MinifloatPayloadBytes(format_, num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    if (in.empty()) return size;
    const int exponent_bits = ChooseExponentBits(
        format_.bits(), LogSpreadWithinBlocks(in, format_.block));
    out[0] = static_cast<uint8_t>(exponent_bits);
    MinifloatQuantize(Split(exponent_bits), in, key, out.data() + 1);
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    if (out.empty()) return absl::OkStatus();
    const int exponent_bits = payload[0];
    if (exponent_bits < 1 || exponent_bits >= format_.bits()) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: ", exponent_bits,
                       " exponent bits, expected 1..", format_.bits() - 1));
    }
    return DecodeMinifloats(text_, Split(exponent_bits), payload.subspan(1),
                            out);
  }

  Traits traits() const override { return FpTraits(format_); }

  double ErrorBound(double block_max) const override {
    double bound = 0;
    for (int bits = 1; bits < format_.bits(); ++bits) {
      bound = std::max(bound, MinifloatErrorBound(Split(bits), block_max));
    }
    return bound;
  }

 private:
  MinifloatFormat Split(int exponent_bits) const {
    MinifloatFormat format = format_;
    format.exponent_bits = exponent_bits;
    format.mantissa_bits = format_.bits() - 1 - exponent_bits;
    return format;
  }

  const std::string text_;
  const MinifloatFormat format_;
};

constexpr CodecParameter ExponentParameter() {
  CodecParameter parameter =
      IntegerParameter("exponent", "", 1, kMaxBits - 1,
                       "exponent bits; auto: as fits the spread of the values");
  parameter.choices = "auto";
  return parameter;
}

constexpr CodecParameter kParameters[] = {
    ExponentParameter(),
    IntegerParameter("mantissa", "", 0, kMaxBits,
                     "mantissa bits; with auto: bits in all, with the sign"),
    IntegerParameter("block", "128", 0, 1 << 16,
                     "values that share a scale; 0: all of them", 16),
    ChoiceParameter("round", "nearest", "nearest|stochastic",
                    "stochastic is unbiased and has about twice the error"),
};

// INVALID_ARGUMENT if the second argument is not within what the first allows.
absl::Status CheckSecond(const CodecArguments& arguments, int min, int max,
                         absl::string_view what) {
  const int64_t value = arguments.Integer("mantissa");
  if (value >= min && value <= max) return absl::OkStatus();
  return CodecSpecError(
      arguments.Codec("mantissa"),
      absl::StrCat("mantissa: expected ", min, "..", max, " ", what, ", got ",
                   value, " (the nearest is ", value < min ? min : max, ")"));
}

}  // namespace

absl::Span<const CodecParameter> FpParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeFpCodec(
    const CodecArguments& arguments) {
  MinifloatFormat format;
  format.block = arguments.Integer("block");
  format.is_stochastic = arguments.Word("round") == "stochastic";
  if (arguments.IsWord("exponent")) {
    DP_RETURN_IF_ERROR(CheckSecond(arguments, kMinSplitBits, kMaxSplitBits,
                                   "bits in all with exponent=auto"));
    format.exponent_bits = 1;
    format.mantissa_bits = static_cast<int>(arguments.Integer("mantissa")) - 2;
    return std::unique_ptr<Codec>(
        new AutoFpCodec(arguments.CanonicalText(), format));
  }
  format.exponent_bits = static_cast<int>(arguments.Integer("exponent"));
  DP_RETURN_IF_ERROR(
      CheckSecond(arguments, 0, kMaxBits - 1 - format.exponent_bits,
                  absl::StrCat("with exponent=", format.exponent_bits)));
  format.mantissa_bits = static_cast<int>(arguments.Integer("mantissa"));
  return std::unique_ptr<Codec>(new FpCodec(arguments.CanonicalText(), format));
}

}  // namespace deltapipe
