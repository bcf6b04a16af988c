#include "compression/codecs/sign.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {
namespace {

class SignCodec final : public Codec {
 public:
  SignCodec(std::string text, const SignFormat& format)
      : text_(std::move(text)), format_(format) {}

  const SignFormat& format() const { return format_; }

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return format_.ScaleBytes(num_elements) + SignBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    uint8_t* scales = out.data();
    absl::Span<uint8_t> bits = out.subspan(format_.ScaleBytes(in.size()));
    while (!in.empty()) {
      const size_t count = format_.BlockCount(in.size());
      const float scale = format_.ScaleOf(in.first(count));
      std::memcpy(scales, &scale, sizeof(scale));
      scales += sizeof(scale);
      PackSigns(in.first(count), bits);
      bits.remove_prefix(SignBytes(count));
      in.remove_prefix(count);
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t num_elements = out.size();
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, num_elements, MaxPayloadBytes(num_elements), payload.size()));
    if (num_elements == 0) return absl::OkStatus();
    DP_RETURN_IF_ERROR(CheckUnusedBits(text_, num_elements, payload.back()));
    const uint8_t* scales = payload.data();
    absl::Span<const uint8_t> bits =
        payload.subspan(format_.ScaleBytes(num_elements));
    while (!out.empty()) {
      const size_t count = format_.BlockCount(out.size());
      float scale;
      std::memcpy(&scale, scales, sizeof(scale));
      scales += sizeof(scale);
      if (std::isinf(scale) || std::signbit(scale)) {
        return absl::InvalidArgumentError(
            absl::StrCat("decode with ", text_, " failed: a scale is ", scale,
                         ", expected a finite value >= 0 or a positive NaN"));
      }
      UnpackSigns(bits.first(SignBytes(count)), scale, out.first(count));
      bits.remove_prefix(SignBytes(count));
      out.remove_prefix(count);
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.bits_per_element = format_.block == 0 ? 1 : 1 + 32.0 / format_.block;
    return traits;
  }

  // RMS and mean lie between 0 and the largest magnitude. (With block=0 the
  // block is the whole payload.)
  double ErrorBound(double block_max) const override {
    return block_max * (1 + 1e-6);
  }

 private:
  const std::string text_;
  const SignFormat format_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("block", "2048", 0, 1 << 24,
                     "values that share a scale; 0: all of them", 64),
    ChoiceParameter("scale", "rms", "rms|mean",
                    "mean has the least squared error")};

}  // namespace

absl::Span<const CodecParameter> SignParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeSignCodec(
    const CodecArguments& arguments) {
  return std::unique_ptr<Codec>(new SignCodec(
      arguments.CanonicalText(),
      {arguments.Integer("block"), arguments.Word("scale") == "mean"}));
}

int64_t SignFormat::ScaleBytes(int64_t num_elements) const {
  const int64_t num_blocks = block == 0 ? (num_elements > 0 ? 1 : 0)
                                        : (num_elements + block - 1) / block;
  return num_blocks * static_cast<int64_t>(sizeof(float));
}

int64_t SignFormat::BlockCount(int64_t remaining) const {
  return block == 0 ? remaining : std::min(remaining, block);
}

float SignFormat::ScaleOf(absl::Span<const float> values) const {
  const double sum = is_mean ? SumOfMagnitudes(values) : SumOfSquares(values);
  // NaN for infinities too: the sum of finite floats cannot overflow.
  if (!std::isfinite(sum)) return std::numeric_limits<float>::quiet_NaN();
  const double mean = sum / static_cast<double>(values.size());
  return static_cast<float>(is_mean ? mean : std::sqrt(mean));
}

const SignFormat* SignFormatOf(const Codec& codec) {
  const auto* const sign = dynamic_cast<const SignCodec*>(&codec);
  return sign == nullptr ? nullptr : &sign->format();
}

}  // namespace deltapipe
