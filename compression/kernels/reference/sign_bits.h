// The plain statement of compression/kernels/sign_bits.h, one element at a
// time.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_SIGN_BITS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_SIGN_BITS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {
namespace reference {

double SumOfSquares(absl::Span<const float> values);
double SumOfMagnitudes(absl::Span<const float> values);
void PackSigns(absl::Span<const float> values, absl::Span<uint8_t> bits);
void PackSignsWithResidual(absl::Span<float> values, float scale,
                           absl::Span<uint8_t> bits);
void PackSignsWithFiniteResidual(absl::Span<float> values, float scale,
                                 absl::Span<uint8_t> bits);
void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                 absl::Span<float> out);
void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                           absl::Span<float> out);
double AddAndSumOfSquares(absl::Span<float> values,
                          absl::Span<const float> addend);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_SIGN_BITS_H_
