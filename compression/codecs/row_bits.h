// Which row of a tensor gets how many bits: the plan of the `mixed` codec.
//
// Pure; allocates nothing once a thread has had as many rows.
#ifndef DELTAPIPE_COMPRESSION_CODECS_ROW_BITS_H_
#define DELTAPIPE_COMPRESSION_CODECS_ROW_BITS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

inline constexpr int kMaxRowBits = 8;

/// bits[i], 1 to 8, so that the sum of costs[i] / (2^bits[i] - 1)^2 is least
/// for bits that sum up to `total` (costs.size() to 8 * costs.size()). Of bits
/// that save the same the lower one, then the earlier row comes first. Costs
/// are finite and not negative.
void ChooseRowBits(absl::Span<const double> costs, int64_t total,
                   absl::Span<uint8_t> bits);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_ROW_BITS_H_
