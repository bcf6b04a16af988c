// The plain statement of compression/kernels/log_moments.h, one element at a
// time.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_LOG_MOMENTS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_LOG_MOMENTS_H_

#include "absl/types/span.h"
#include "compression/kernels/log_moments.h"

namespace deltapipe {
namespace reference {

/// As deltapipe::LogMomentsOf.
inline LogMoments LogMomentsOf(absl::Span<const float> values) {
  LogMoments moments;
  for (const float value : values) {
    const uint32_t magnitude = FloatBits(value) & 0x7FFFFFFFu;
    if (magnitude == 0 || magnitude >= 0x7F800000u) continue;
    const int64_t units = Log2Units(BitsToFloat(magnitude));
    ++moments.count;
    moments.sum += units;
    moments.sum_squares += units * units;
  }
  return moments;
}

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_LOG_MOMENTS_H_
