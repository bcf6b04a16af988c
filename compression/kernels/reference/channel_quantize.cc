#include "compression/kernels/reference/channel_quantize.h"

#include <algorithm>
#include <cmath>

#include "base/float_cast.h"

namespace deltapipe {
namespace reference {

void UpdateChannelMaxima(absl::Span<const float> row,
                         absl::Span<float> channels) {
  for (size_t i = 0; i < row.size(); ++i) {
    // As integers magnitudes are in order and a NaN is the largest.
    channels[i] = BitsToFloat(std::max(FloatBits(channels[i]) & 0x7FFFFFFFu,
                                       FloatBits(row[i]) & 0x7FFFFFFFu));
  }
}

void ChannelCodes(absl::Span<const float> row, absl::Span<const float> divisors,
                  float half, uint8_t* codes) {
  for (size_t i = 0; i < row.size(); ++i) {
    const float divisor = divisors[divisors.size() == 1 ? 0 : i];
    if (std::isnan(divisor)) {
      codes[i] = 0;
      continue;
    }
    const float level = row[i] / divisor * half;
    const float clipped = std::min(std::max(level, -half), half - 1);
    codes[i] = static_cast<uint8_t>(std::nearbyint(clipped) + half);
  }
}

void ChannelValues(const uint8_t* codes, absl::Span<const float> scales,
                   float half, absl::Span<float> row) {
  for (size_t i = 0; i < row.size(); ++i) {
    const float scale = scales[scales.size() == 1 ? 0 : i];
    row[i] = (static_cast<float>(codes[i]) - half) / half * scale;
  }
}

}  // namespace reference
}  // namespace deltapipe
