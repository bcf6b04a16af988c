#include "compression/kernels/sign_bits.h"

#include "compression/kernels/reference/sign_bits.h"

namespace deltapipe {
double SumOfSquares(absl::Span<const float> values) {
  return reference::SumOfSquares(values);
}
void PackSigns(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  reference::PackSigns(values, bits);
}
void PackSignsWithResidual(absl::Span<float> values, float scale,
                           absl::Span<uint8_t> bits) {
  reference::PackSignsWithResidual(values, scale, bits);
}
void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                 absl::Span<float> out) {
  reference::UnpackSigns(bits, scale, out);
}
void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                           absl::Span<float> out) {
  reference::UnpackSignsAccumulate(bits, scale, out);
}
double AddAndSumOfSquares(absl::Span<float> values,
                          absl::Span<const float> addend) {
  return reference::AddAndSumOfSquares(values, addend);
}
}  // namespace deltapipe
