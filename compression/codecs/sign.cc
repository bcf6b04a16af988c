#include "compression/codecs/sign.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {
namespace {

float RootMeanSquare(absl::Span<const float> values) {
  const double sum = SumOfSquares(values);
  // NaN for infinities too: the sum of finite floats cannot overflow.
  if (!std::isfinite(sum)) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(
      std::sqrt(sum / static_cast<double>(values.size())));
}

class SignCodec final : public Codec {
 public:
  SignCodec(std::string text, int64_t block)
      : text_(std::move(text)), block_(block) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return ScaleBytes(num_elements) + SignBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    uint8_t* scales = out.data();
    absl::Span<uint8_t> bits = out.subspan(ScaleBytes(in.size()));
    while (!in.empty()) {
      const size_t count = BlockCount(in.size());
      const float scale = RootMeanSquare(in.first(count));
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
    absl::Span<const uint8_t> bits = payload.subspan(ScaleBytes(num_elements));
    while (!out.empty()) {
      const size_t count = BlockCount(out.size());
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
    traits.bits_per_element = block_ == 0 ? 1 : 1 + 32.0 / block_;
    return traits;
  }

  // The RMS lies between 0 and the largest magnitude. (With block=0 the block
  // is the whole payload.)
  double ErrorBound(double block_max) const override {
    return block_max * (1 + 1e-6);
  }

 private:
  int64_t ScaleBytes(int64_t num_elements) const {
    const int64_t num_blocks = block_ == 0
                                   ? (num_elements > 0 ? 1 : 0)
                                   : (num_elements + block_ - 1) / block_;
    return num_blocks * static_cast<int64_t>(sizeof(float));
  }
  size_t BlockCount(size_t remaining) const {
    return block_ == 0 || remaining < static_cast<size_t>(block_)
               ? remaining
               : static_cast<size_t>(block_);
  }

  const std::string text_;
  const int64_t block_;
};

constexpr CodecParameter MakeBlockParameter() {
  CodecParameter parameter;
  parameter.name = "block";
  parameter.default_text = "2048";
  parameter.min = 0;
  parameter.max = 1 << 24;
  parameter.multiple_of = 64;
  parameter.summary = "values that share a scale; 0: all of them";
  return parameter;
}

constexpr CodecParameter kParameters[] = {MakeBlockParameter()};

}  // namespace

absl::Span<const CodecParameter> SignParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeSignCodec(
    const CodecArguments& arguments) {
  return std::unique_ptr<Codec>(
      new SignCodec(arguments.CanonicalText(), arguments.Integer("block")));
}

}  // namespace deltapipe
