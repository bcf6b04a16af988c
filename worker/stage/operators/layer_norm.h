// Layer norm that can do without its input in the backward pass.
//
// The input's normalised values are (output - bias) / weight, so that the
// output, which the next matrix product saves in any case, and a reciprocal
// deviation per row stand for input and mean (Andoorveedu et al., Tempo,
// NeurIPS 2022, section 3.2). In a stash whose policy takes it (lean) that is
// what happens; everywhere else LayerNorm is at::layer_norm, node and all.
//
//   value = LayerNorm(value, norm->weight, norm->bias, norm->options.eps());
//
// The forward pass is that of at::layer_norm to the bit. Errors are LibTorch's
// exceptions and SavedActivationError.
#ifndef DELTAPIPE_WORKER_STAGE_OPERATORS_LAYER_NORM_H_
#define DELTAPIPE_WORKER_STAGE_OPERATORS_LAYER_NORM_H_

#include "ATen/core/Tensor.h"

namespace deltapipe {

/// Over the last dimension of `input`, whose extent `weight` and `bias` have.
at::Tensor LayerNorm(const at::Tensor& input, const at::Tensor& weight,
                     const at::Tensor& bias, double epsilon);

/// The same, with the backward pass that needs the output in any case. Computes
/// it in fp32; of an output that is kept in 16 bits, or packed, gradients are
/// those of the values that are kept.
at::Tensor LayerNormFromOutput(const at::Tensor& input,
                               const at::Tensor& weight, const at::Tensor& bias,
                               double epsilon);

/// An error e of the output is one of e / |weight| of a normalised value, and
/// outputs reach as far as |weight| and |bias| let them. True where no column's
/// weight is smaller than the largest weight and bias together by more than
/// kLargestSpread: packed outputs then lose three bits at most in the worst
/// column against packed normalised values, and an fp32 output's are good to
/// 2^-20. Weights begin at 1, biases at 0: a spread of 1. Reads both on the
/// host.
bool DeterminesItsInput(const at::Tensor& weight, const at::Tensor& bias);
inline constexpr float kLargestSpread = 8;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_OPERATORS_LAYER_NORM_H_
