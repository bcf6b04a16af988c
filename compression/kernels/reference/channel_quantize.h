// The plain statement of compression/kernels/channel_quantize.h, one element at
// a time.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_CHANNEL_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_CHANNEL_QUANTIZE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {
namespace reference {

void UpdateChannelMaxima(absl::Span<const float> row,
                         absl::Span<float> channels);
void ChannelCodes(absl::Span<const float> row, absl::Span<const float> divisors,
                  float half, uint8_t* codes);
void ChannelValues(const uint8_t* codes, absl::Span<const float> scales,
                   float half, absl::Span<float> row);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_CHANNEL_QUANTIZE_H_
