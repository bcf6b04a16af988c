#include "compression/codecs/none.h"

#include <cstring>
#include <string>

#include "base/status_macros.h"
#include "compression/codecs/payload_checks.h"

namespace deltapipe {
namespace {

class NoneCodec final : public Codec {
 public:
  std::string text() const override { return "none"; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return num_elements * static_cast<int64_t>(sizeof(float));
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom("none", size, out.size()));
    if (size > 0) std::memcpy(out.data(), in.data(), size);
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t size = MaxPayloadBytes(out.size());
    DP_RETURN_IF_ERROR(
        CheckPayloadSize("none", out.size(), size, payload.size()));
    if (size > 0) std::memcpy(out.data(), payload.data(), size);
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.is_unbiased = true;
    traits.is_lossless = true;
    return traits;
  }

  double ErrorBound(double /*block_max*/) const override { return 0; }
};

}  // namespace

absl::Span<const CodecParameter> NoneParameters() { return {}; }

absl::StatusOr<std::unique_ptr<Codec>> MakeNoneCodec(
    const CodecArguments& /*arguments*/) {
  return std::unique_ptr<Codec>(new NoneCodec());
}

}  // namespace deltapipe
