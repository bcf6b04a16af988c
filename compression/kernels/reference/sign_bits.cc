#include "compression/kernels/reference/sign_bits.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace deltapipe {
namespace reference {
namespace {

bool GetBit(absl::Span<const uint8_t> bits, size_t index) {
  return (bits[index / 8] >> (index % 8) & 1) != 0;
}

// The sum of term(value), element i in lane i % 16.
template <class Term>
double SumTerms(absl::Span<const float> values, const Term& term) {
  std::array<double, 16> lanes{};
  for (size_t i = 0; i < values.size(); ++i) {
    lanes[i % 16] += term(static_cast<double>(values[i]));
  }
  for (int width = 8; width >= 1; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

double SumOfSquares(absl::Span<const float> values) {
  return SumTerms(values, [](double value) { return value * value; });
}

double SumOfMagnitudes(absl::Span<const float> values) {
  return SumTerms(values, [](double value) { return std::fabs(value); });
}

void PackSigns(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  std::fill_n(bits.begin(), (values.size() + 7) / 8, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] >= 0) bits[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
  }
}

void PackSignsWithResidual(absl::Span<float> values, float scale,
                           absl::Span<uint8_t> bits) {
  PackSigns(values, bits);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] -= GetBit(bits, i) ? scale : -scale;
  }
}

void PackSignsWithFiniteResidual(absl::Span<float> values, float scale,
                                 absl::Span<uint8_t> bits) {
  PackSignsWithResidual(values, scale, bits);
  for (float& value : values) {
    if (!std::isfinite(value)) value = 0;
  }
}

void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                 absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = GetBit(bits, i) ? scale : -scale;
  }
}

void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                           absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] += GetBit(bits, i) ? scale : -scale;
  }
}

double AddAndSumOfSquares(absl::Span<float> values,
                          absl::Span<const float> addend) {
  for (size_t i = 0; i < values.size(); ++i) values[i] += addend[i];
  return SumOfSquares(values);
}

}  // namespace reference
}  // namespace deltapipe
