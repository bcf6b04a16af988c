#include "worker/stage/initial_weights.h"

#include <algorithm>
#include <cmath>

#include "base/checksum.h"
#include "base/philox.h"

namespace deltapipe {

void FillInitialWeights(uint64_t seed, const std::string& name, double mean,
                        double deviation, absl::Span<float> values) {
  if (deviation == 0) {
    std::fill(values.begin(), values.end(), static_cast<float>(mean));
    return;
  }
  constexpr double kTwoPi = 6.283185307179586;
  const uint64_t id = Checksum(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(name.data()), name.size()));
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  for (size_t i = 0; i < values.size(); i += 4) {
    const PhiloxBlock words = Philox4x32(
        {static_cast<uint32_t>(i / 4), static_cast<uint32_t>(i >> 34),
         static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)},
        key);
    for (size_t pair = 0; pair < 2; ++pair) {
      // Box-Muller, from (0, 1] and [0, 1).
      const double radius =
          std::sqrt(-2.0 * std::log((words[2 * pair] + 1.0) * 0x1.0p-32));
      const double angle = kTwoPi * words[2 * pair + 1] * 0x1.0p-32;
      const double normals[2] = {radius * std::cos(angle),
                                 radius * std::sin(angle)};
      for (size_t k = 0; k < 2 && i + 2 * pair + k < values.size(); ++k) {
        values[i + 2 * pair + k] =
            static_cast<float>(mean + deviation * normals[k]);
      }
    }
  }
}

}  // namespace deltapipe
