#include "compression/codecs/int.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/int_general.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/int_quantize.h"

namespace deltapipe {
namespace {

class IntCodec final : public Codec {
 public:
  IntCodec(std::string text, const IntFormat& format)
      : text_(std::move(text)), format_(format) {}

  const IntFormat& format() const { return format_; }

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return IntPayloadBytes(format_, num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    IntQuantize(format_, in, key, out.data());
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    if (out.empty()) return absl::OkStatus();
    if (payload[0] > kIntMaxWindow) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", text_, " failed: window ",
          static_cast<int>(payload[0]), ", expected at most ", kIntMaxWindow));
    }
    DP_RETURN_IF_ERROR(
        CheckUnusedBits(text_, static_cast<int64_t>(out.size()) * format_.bits,
                        payload.back()));
    IntDequantize(format_, payload.data(), out);
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.is_unbiased = format_.is_stochastic;
    traits.is_stochastic = format_.is_stochastic;
    traits.bits_per_element = format_.bits + 8.0 / format_.block;
    return traits;
  }

  // The bound holds in the worst case, a block far from the payload's window,
  // where the unit is up to 16 times what the block needs.
  double ErrorBound(double block_max) const override {
    constexpr double kRounding = 1 + 1e-5;
    constexpr double kSmallestUnit = 0x1p-126;
    const double half_range = std::ldexp(1.0, format_.bits - 1);
    if (format_.searches_clip) {
      // Nearest levels with zero among them never err by more than the value.
      // Searched scales err, over a block, by no more than half the first unit.
      const double coarsest_unit = 16 * block_max / half_range;
      const double of_search =
          std::sqrt(static_cast<double>(format_.block)) * coarsest_unit / 2;
      const bool is_computed = format_.model != IntClipModel::kNone;
      return (format_.bits <= 2 || is_computed
                  ? block_max
                  : std::min(block_max, of_search)) *
                 kRounding +
             kSmallestUnit;
    }
    const double levels = format_.bits == 1   ? 1
                          : format_.bits == 2 ? 3
                                              : half_range - 1;
    // Powers of 16; above the last of them comes the largest float.
    const double coarsest = block_max / levels > 0x1p118
                                ? static_cast<double>(FLT_MAX)
                                : 16 * block_max / levels;
    const double step =
        (format_.bits <= 2 ? 2 : 1) * std::max(coarsest, kSmallestUnit);
    return (format_.is_stochastic ? step : step / 2) * kRounding;
  }

 private:
  const std::string text_;
  const IntFormat format_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("bits", "", 1, 8, "bits per value"),
    IntegerParameter("block", "64", 16, 4096, "values that share a scale", 16),
    ChoiceParameter("round", "nearest", "nearest|stochastic",
                    "stochastic is unbiased and has about twice the error"),
    ChoiceParameter("clip", "search", "minmax|search|laplace|gauss",
                    "how the scale is chosen: computed for a distribution, or "
                    "searched; no effect with round=stochastic"),
    ChoiceParameter("levels", "symmetric", "symmetric|affine",
                    "affine: from a block's least value, kept in 16 bits more, "
                    "to its largest"),
    ChoiceParameter("scale", "log8", "log8|bf16|fp32",
                    "how the scale of a block is stored"),
    ChoiceParameter("axis", "row", "row|column",
                    "blocks of neighbours, or of values in one column"),
    ChoiceParameter("channel", "off", "off|slow",
                    "slow: divides columns by their running magnitude"),
    ExtentParameter("row", 1, "columns of a row; 0: one column",
                    "axis|channel"),
};

}  // namespace

absl::Span<const CodecParameter> IntParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeIntCodec(
    const CodecArguments& arguments) {
  IntGeneralOptions options;
  IntFormat& format = options.block.format;
  format.bits = static_cast<int>(arguments.Integer("bits"));
  format.block = arguments.Integer("block");
  format.is_stochastic = arguments.Word("round") == "stochastic";
  const std::string& clip = arguments.Word("clip");
  format.searches_clip = clip != "minmax" && !format.is_stochastic;
  if (format.searches_clip && clip == "laplace") {
    format.model = IntClipModel::kLaplace;
  } else if (format.searches_clip && clip == "gauss") {
    format.model = IntClipModel::kGauss;
  }
  options.block.is_affine = arguments.Word("levels") == "affine";
  const std::string& scale = arguments.Word("scale");
  options.block.field = scale == "log8"   ? IntScaleField::kLog8
                        : scale == "bf16" ? IntScaleField::kBFloat16
                                          : IntScaleField::kFloat32;
  options.row = arguments.Integer("row");
  options.is_by_column = arguments.Word("axis") == "column" && options.row != 0;
  options.has_channels = arguments.Word("channel") == "slow";
  std::string text = arguments.CanonicalText();
  if (options.block.is_affine || options.is_by_column || options.has_channels ||
      options.block.field != IntScaleField::kLog8) {
    return MakeGeneralIntCodec(std::move(text), options);
  }
  return std::unique_ptr<Codec>(new IntCodec(std::move(text), format));
}

const IntFormat* IntTileFormat(const Codec& codec) {
  const auto* const tiled = dynamic_cast<const IntCodec*>(&codec);
  return tiled == nullptr ? nullptr : &tiled->format();
}

}  // namespace deltapipe
