// What keeping a tensor in few bits adds to the variance of the gradient, from
// what was measured of it.
//
// Rounded stochastically onto B = 2^b - 1 steps over a range R, a value has an
// error of mean 0 and variance R^2 / (6 B^2), values lying anywhere between two
// levels (at most R^2 / (4 B^2)). An error in x reaches the gradient through
// what the backward pass multiplies x with:
//
//   a product or convolution, dW = sum over positions p of x_p^T g_p: each of
//   the P' positions of g is multiplied with K of the P positions of x, one for
//   each tap of the kernel, so that an element of x meets K P' / P of them on
//   average, and of each the channels of its group: |g|^2 / P' on average over
//   positions, over `groups`. P' falls out, and so does the stride:
//     Var dW = c / B^2,  c = (256 / 6) sum R^2 * (K / groups) * |g|^2 / P
//   with the sum over groups of 256 elements. ActNN (section 4.2, and the
//   authors' program) has C = (K / (4 groups)) (G / P) sum R^2 |g|^2 for each
//   sample, the same but for the bound in the place of the mean. R^2 and |g|^2
//   of samples belong together: their products' sum is `alignment` times that
//   of the means.
//
//   anything else, element by element, dx = f'(x) g: with f'' taken for 1
//     c = (256 / 6) sum R^2 * |g|^2 / (elements of g)
//   and `alignment` as above.
//
// Chen et al., ActNN, ICML 2021, arXiv 2104.14129. Pure functions.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_GRADIENT_VARIANCE_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_GRADIENT_VARIANCE_H_

#include <cstdint>

#include "compression/bit_plan/saved_policy.h"

namespace deltapipe {

/// Elements per channel: of [N, C, H, W] N * H * W, of others what is before
/// the last extent. At least 1.
int64_t NumPositions(const SavedTensor& tensor);

/// c: at b bits the tensor adds c / (2^b - 1)^2 to the gradient's variance,
/// summed over its elements. NaN if what it takes was not measured, or is
/// negative or infinite.
double GradientVariance(const SavedMeasurement& measurement);

/// The same by the measured sensitivity, where there is one: at 1 bit, the
/// squared distance of two gradients is twice their variance.
double MeasuredVariance(const SavedMeasurement& measurement);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_GRADIENT_VARIANCE_H_
