// What `luq` and `fp` check of a payload before the kernel reads it, and the
// bound of their error.
#ifndef DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_PAYLOAD_H_
#define DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_PAYLOAD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {

/// Decodes a payload of exactly `out.size()` values. INVALID_ARGUMENT, naming
/// `codec`, if its size is another, a scale is none (IsMinifloatScale) or an
/// unused bit is not 0.
absl::Status DecodeMinifloats(const std::string& codec,
                              const MinifloatFormat& format,
                              absl::Span<const uint8_t> payload,
                              absl::Span<float> out);

/// Codec::ErrorBound, for scales that are the block's own.
double MinifloatErrorBound(const MinifloatFormat& format, double block_max);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_MINIFLOAT_PAYLOAD_H_
