#include "compression/codecs/luq.h"

#include <string>
#include <utility>

#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/minifloat_payload.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {
namespace {

// The first number of the memory tells it from that of other codecs.
constexpr float kMemoryTag = 2112.10769f;

class LuqCodec final : public Codec {
 public:
  LuqCodec(std::string text, const MinifloatFormat& format, bool is_hindsight,
           float momentum)
      : text_(std::move(text)),
        format_(format),
        is_hindsight_(is_hindsight),
        momentum_(momentum) {}

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

  absl::StatusOr<int64_t> EncodeNext(absl::Span<const float> in,
                                     const RandomKey& key,
                                     std::vector<float>* memory,
                                     absl::Span<uint8_t> out) const override {
    if (!is_hindsight_) return Encode(in, key, out);
    const float running = RunningMaximum(*memory);
    const uint32_t largest = LargestMagnitudeBits(in);
    const bool is_finite = largest < kInfinityBits;
    int64_t size = MaxPayloadBytes(in.size());
    if (running > 0 && is_finite) {
      DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
      MinifloatQuantizeInRange(format_, running, in, key, out.data());
    } else {
      DP_ASSIGN_OR_RETURN(size, Encode(in, key, out));
    }
    float next = running;
    if (is_finite && !in.empty()) {
      const float own = BitsToFloat(largest);
      next = running > 0 ? (1 - momentum_) * own + momentum_ * running : own;
    }
    *memory = {kMemoryTag, next};
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    return DecodeMinifloats(text_, format_, payload, out);
  }

  Traits traits() const override {
    Traits traits;
    traits.is_unbiased = !is_hindsight_;
    traits.is_stochastic = true;
    traits.has_memory = is_hindsight_;
    traits.bits_per_element =
        4.0 * format_.num_samples +
        (format_.block == 0 ? 0.0 : 16.0 / static_cast<double>(format_.block));
    return traits;
  }

  double ErrorBound(double block_max) const override {
    return MinifloatErrorBound(format_, block_max);
  }

 private:
  // 0 if there is none.
  static float RunningMaximum(const std::vector<float>& memory) {
    if (memory.size() != 2 || memory[0] != kMemoryTag) return 0;
    return memory[1] > 0 && FloatBits(memory[1]) < kInfinityBits ? memory[1]
                                                                 : 0;
  }

  const std::string text_;
  const MinifloatFormat format_;
  const bool is_hindsight_;
  const float momentum_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("block", "128", 0, 1 << 16,
                     "values that share a scale; 0: all of them; no effect "
                     "with range=hindsight",
                     16),
    IntegerParameter("samples", "1", 1, 16,
                     "independent draws, all sent, of which the mean is taken"),
    ChoiceParameter("range", "exact", "exact|hindsight",
                    "hindsight takes the running maximum of former tensors, "
                    "and clamps"),
    NumberParameter("momentum", "0.1", 0, 1,
                    "weight of the past in the running maximum"),
};

}  // namespace

absl::Span<const CodecParameter> LuqParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeLuqCodec(
    const CodecArguments& arguments) {
  const bool is_hindsight = arguments.Word("range") == "hindsight";
  MinifloatFormat format;
  format.exponent_bits = 3;
  format.mantissa_bits = 0;
  format.block = is_hindsight ? 0 : arguments.Integer("block");
  format.is_stochastic = true;
  format.num_samples = static_cast<int>(arguments.Integer("samples"));
  return std::unique_ptr<Codec>(
      new LuqCodec(arguments.CanonicalText(), format, is_hindsight,
                   static_cast<float>(arguments.Number("momentum"))));
}

}  // namespace deltapipe
