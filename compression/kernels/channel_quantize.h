// The `aqsgd` codec's arithmetic for rows whose elements have a scale each, or
// all the same one. All functions run the best vector instructions of the
// machine, take any alignment and any count, and are bit-equal to
// compression/kernels/reference/channel_quantize.h.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_CHANNEL_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_CHANNEL_QUANTIZE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

/// channels[i] <- the larger of channels[i], which is >= 0 or NaN, and
/// |row[i]|; a NaN is larger than anything. Needs channels.size() >=
/// row.size().
void UpdateChannelMaxima(absl::Span<const float> row,
                         absl::Span<float> channels);

/// codes[i] = round_half_even(row[i] / d * half, clipped to [-half, half - 1])
/// + half, with d = divisors[i], or divisors[0] if there is only one; 0 where d
/// is NaN. `half` is a power of two up to 128.
void ChannelCodes(absl::Span<const float> row, absl::Span<const float> divisors,
                  float half, uint8_t* codes);

/// row[i] = (codes[i] - half) / half * s, with s = scales[i], or scales[0] if
/// there is only one.
void ChannelValues(const uint8_t* codes, absl::Span<const float> scales,
                   float half, absl::Span<float> row);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_CHANNEL_QUANTIZE_H_
