#include "compression/codecs/minifloat_payload.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "compression/codecs/payload_checks.h"

namespace deltapipe {

absl::Status DecodeMinifloats(const std::string& codec,
                              const MinifloatFormat& format,
                              absl::Span<const uint8_t> payload,
                              absl::Span<float> out) {
  DP_RETURN_IF_ERROR(CheckPayloadSize(codec, out.size(),
                                      MinifloatPayloadBytes(format, out.size()),
                                      payload.size()));
  if (out.empty()) return absl::OkStatus();
  const int64_t num_blocks = MinifloatNumBlocks(format, out.size());
  for (int64_t i = 0; i < num_blocks; ++i) {
    uint16_t scale;
    std::memcpy(&scale, payload.data() + 2 * i, sizeof(scale));
    if (!IsMinifloatScale(scale)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", codec, " failed: the scale of block ", i, " is 0x",
          absl::Hex(scale, absl::kZeroPad4),
          ", expected a positive normal bf16 number, 0 or the quiet NaN"));
    }
  }
  const int64_t code_bytes = MinifloatCodeBytes(format, out.size());
  for (int sample = 1; sample <= format.num_samples; ++sample) {
    DP_RETURN_IF_ERROR(
        CheckUnusedBits(codec, static_cast<int64_t>(out.size()) * format.bits(),
                        payload[2 * num_blocks + sample * code_bytes - 1]));
  }
  MinifloatDequantize(format, payload.data(), out);
  return absl::OkStatus();
}

double MinifloatErrorBound(const MinifloatFormat& format, double block_max) {
  // Rounding of y, of z and of the product with the scale.
  constexpr double kRounding = 1 + 1e-6;
  constexpr double kSmallestScale = 0x1p-126;
  constexpr double kSmallestFloat = 0x1p-149;
  if (block_max == 0) return 0;
  const double scale =
      std::max(block_max / format.top() * (1 + 0x1p-7), kSmallestScale);
  // The step at the block's largest value.
  const double in_scales =
      std::max<double>(block_max / scale, format.smallest_normal());
  const double step =
      scale * std::ldexp(1.0, std::ilogb(std::min<double>(in_scales * kRounding,
                                                          format.top())) -
                                  format.mantissa_bits);
  const double largest_step =
      std::max(step, scale * format.smallest_normal() *
                         std::ldexp(1.0, -format.mantissa_bits));
  return (format.is_stochastic ? largest_step : largest_step / 2) * kRounding +
         kSmallestFloat;
}

}  // namespace deltapipe
