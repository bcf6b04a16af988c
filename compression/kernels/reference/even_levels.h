// The plain statement of compression/kernels/even_levels.h, one element at a
// time.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_EVEN_LEVELS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_EVEN_LEVELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "compression/kernels/even_levels.h"

namespace deltapipe {
namespace reference {

ValueRange RangeOfValues(absl::Span<const float> values);
void EvenCodes(absl::Span<const float> values, const EvenSteps& steps,
               uint8_t* codes);
double EvenError(absl::Span<const float> values, const EvenSteps& steps);
void EvenValues(const uint8_t* codes, float scale, float bias,
                absl::Span<float> values);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_EVEN_LEVELS_H_
