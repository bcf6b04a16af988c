// The plain statement of double_levels.h, one element at a time.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_DOUBLE_LEVELS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_DOUBLE_LEVELS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "compression/kernels/double_levels.h"

namespace deltapipe {
namespace reference {

/// As the functions of the same names in deltapipe.
void DoubleCodes(absl::Span<const float> values, const DoubleSteps& steps,
                 uint8_t* codes);
void DoubleStochasticCodes(absl::Span<const float> values,
                           const DoubleSteps& steps, const uint32_t* words,
                           uint8_t* codes);
double DoubleError(absl::Span<const float> values, const DoubleSteps& steps);
void DoubleValues(const uint8_t* codes, double base, double step,
                  absl::Span<float> values);

/// The sum of eight lanes, as a tree.
inline double SumOfEight(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_DOUBLE_LEVELS_H_
