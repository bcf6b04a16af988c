#include "compression/codecs/cast.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/narrow_floats.h"

namespace deltapipe {
namespace {

class CastCodec final : public Codec {
 public:
  CastCodec(std::string text, NarrowFloat type)
      : text_(std::move(text)), type_(type) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return num_elements * 2;
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    NarrowFloats(type_, in, out.data());
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    WidenFloats(type_, payload.data(), out);
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.bits_per_element = 16;
    return traits;
  }

  double ErrorBound(double block_max) const override {
    if (type_ == NarrowFloat::kBFloat16) {
      return block_max * 0x1p-8 + 0x1p-134;
    }
    return std::max(block_max * 0x1p-11 + 0x1p-25, block_max - 65504);
  }

 private:
  const std::string text_;
  const NarrowFloat type_;
};

constexpr CodecParameter kParameters[] = {
    ChoiceParameter("type", "", "bf16|fp16", "the 16-bit type")};

}  // namespace

absl::Span<const CodecParameter> CastParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeCastCodec(
    const CodecArguments& arguments) {
  return std::unique_ptr<Codec>(
      new CastCodec(arguments.CanonicalText(), arguments.Word("type") == "bf16"
                                                   ? NarrowFloat::kBFloat16
                                                   : NarrowFloat::kFloat16));
}

}  // namespace deltapipe
