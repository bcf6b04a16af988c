// GELU (Hendrycks and Gimpel, arXiv 1606.08415) that can keep its derivative in
// a few bits in the place of its input.
//
// A packed input goes through the derivative, which is not linear: the gradient
// is biased though the input is not. A packed derivative is a factor of the
// gradient, whose mean over draws is the exact one, and lies within -0.13 and
// 1.13, so that few levels are near each other. In a stash whose policy takes
// it (lean) that is what is kept; everywhere else Gelu is at::gelu, node and
// all, and the forward pass is so to the bit.
//
//   value = Gelu(value);
//
// Errors are LibTorch's exceptions and SavedActivationError.
#ifndef DELTAPIPE_WORKER_STAGE_OPERATORS_GELU_H_
#define DELTAPIPE_WORKER_STAGE_OPERATORS_GELU_H_

#include "ATen/core/Tensor.h"

namespace deltapipe {

at::Tensor Gelu(const at::Tensor& input);

/// At each value of `input`, computed in fp32, in fp32.
at::Tensor GeluDerivative(const at::Tensor& input);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_OPERATORS_GELU_H_
