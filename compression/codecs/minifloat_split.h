// How `fp(auto,bits)` divides its bits between exponent and mantissa.
//
// Chmiel et al., "Neural gradients are near-lognormal", ICLR 2021, arXiv
// 2006.08173: the split of least expected relative error
// E|x - Q(x)| / |x| for ln|x| ~ N(mu, sigma^2). Here the scale is not free, but
// puts the largest of a block on top: the table is for blocks of 128, whose
// median largest value is 2.549 sigma above mu, and for rounding to nearest.
#ifndef DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_SPLIT_H_
#define DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_SPLIT_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

constexpr int kMinSplitBits = 3;
constexpr int kMaxSplitBits = 8;

/// The exponent bits, 1..bits - 1, for `bits` in all with the sign and the
/// standard deviation `sigma` of ln|x|.
int ChooseExponentBits(int bits, double sigma);

/// The standard deviation of ln|x| over the values that are not 0, within
/// blocks of `block` (0: all of them) and pooled over them, since what the
/// blocks differ in is their scales' part. Blocks with a NaN or an infinity do
/// not count. 0 where there are fewer than two values.
double LogSpreadWithinBlocks(absl::Span<const float> values, int64_t block);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_SPLIT_H_
