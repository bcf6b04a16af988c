// OneBitCompressor<Real>: the arithmetic of 1-bit Adam's and 1-bit LAMB's
// compressed all-reduce (arXiv 2102.02888, DeepSpeed's compressed_allreduce),
// without the messages.
//
// A compression with error feedback is x <- values + e; scale = ||x|| /
// sqrt(d); bit = x >= 0 (zero counts as +1); e <- x - (bit ? scale : -scale). d
// is the true number of elements. A server adds (scale_i / n) * sign_i over the
// ranks in their order. A value that is not finite makes the scale so, and with
// it all that is decoded.
//
// Real is float in training, with the kernels of compression/kernels; double in
// tests that compare with a transcription of the paper.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_ONEBIT_COMPRESSOR_H_
#define DELTAPIPE_WORKER_COLLECTIVE_ONEBIT_COMPRESSOR_H_

#include <cmath>
#include <cstdint>

#include "absl/types/span.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {

/// The kernels of compression/kernels/sign_bits.h, plainly, for any Real.
template <typename Real>
struct SignKernels {
  static double AddAndSumOfSquares(absl::Span<Real> values,
                                   absl::Span<const Real> addend) {
    double lanes[16] = {};
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] += addend[i];
      const double value = static_cast<double>(values[i]);
      lanes[i % 16] += value * value;
    }
    for (size_t width = 8; width > 0; width /= 2) {
      for (size_t lane = 0; lane < width; ++lane) {
        lanes[lane] += lanes[lane + width];
      }
    }
    return lanes[0];
  }
  static void PackSignsWithResidual(absl::Span<Real> values, Real scale,
                                    absl::Span<uint8_t> bits) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % 8 == 0) bits[i / 8] = 0;
      const bool sign = values[i] >= 0;
      bits[i / 8] |= static_cast<uint8_t>(sign) << (i % 8);
      values[i] -= sign ? scale : -scale;
    }
  }
  static void UnpackSigns(absl::Span<const uint8_t> bits, Real scale,
                          absl::Span<Real> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = (bits[i / 8] >> (i % 8) & 1) != 0 ? scale : -scale;
    }
  }
  static void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, Real scale,
                                    absl::Span<Real> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] += (bits[i / 8] >> (i % 8) & 1) != 0 ? scale : -scale;
    }
  }
};

template <>
struct SignKernels<float> {
  static double AddAndSumOfSquares(absl::Span<float> values,
                                   absl::Span<const float> addend) {
    return deltapipe::AddAndSumOfSquares(values, addend);
  }
  static void PackSignsWithResidual(absl::Span<float> values, float scale,
                                    absl::Span<uint8_t> bits) {
    deltapipe::PackSignsWithResidual(values, scale, bits);
  }
  static void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                          absl::Span<float> out) {
    deltapipe::UnpackSigns(bits, scale, out);
  }
  static void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                                    absl::Span<float> out) {
    deltapipe::UnpackSignsAccumulate(bits, scale, out);
  }
};

template <typename Real>
struct OneBitCompressor {
  using Kernels = SignKernels<Real>;

  /// values <- values + residual; returns the scale of the sum, 0 for none.
  static Real AddResidual(absl::Span<Real> values,
                          absl::Span<const Real> residual) {
    if (values.empty()) return 0;
    const double squares = Kernels::AddAndSumOfSquares(values, residual);
    return static_cast<Real>(
        std::sqrt(squares / static_cast<double>(values.size())));
  }

  /// Writes the signs of `values`, whose residual replaces them.
  static void Compress(absl::Span<Real> values, Real scale,
                       absl::Span<uint8_t> bits) {
    Kernels::PackSignsWithResidual(values, scale, bits);
  }

  /// mean <- mean + what one of `num_ranks` ranks sent, divided by their
  /// number.
  static void AccumulateMean(absl::Span<const uint8_t> bits, Real scale,
                             int num_ranks, absl::Span<Real> mean) {
    Kernels::UnpackSignsAccumulate(bits, scale / static_cast<Real>(num_ranks),
                                   mean);
  }

  static void Decompress(absl::Span<const uint8_t> bits, Real scale,
                         absl::Span<Real> out) {
    Kernels::UnpackSigns(bits, scale, out);
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_ONEBIT_COMPRESSOR_H_
