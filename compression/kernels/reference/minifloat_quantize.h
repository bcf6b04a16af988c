// The plain statement of the minifloat kernels, one element at a time: what the
// vector kernels must equal in every bit. Used by tests, by targets without
// vectors and by anyone who wants to read what the codecs do.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_MINIFLOAT_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_MINIFLOAT_QUANTIZE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/kernels/minifloat_format.h"

namespace deltapipe {
namespace reference {

/// The 16 random bits of `element` in sample `sample`.
uint32_t MinifloatRandomBits(const RandomKey& key, int sample, size_t element);

/// The word that decides where those cannot.
uint32_t MinifloatTieWord(const RandomKey& key, int sample, size_t element);

/// As deltapipe::MinifloatQuantize.
void MinifloatQuantize(const MinifloatFormat& format,
                       absl::Span<const float> in, const RandomKey& key,
                       uint8_t* payload);

/// As deltapipe::MinifloatQuantizeInRange.
void MinifloatQuantizeInRange(const MinifloatFormat& format, float range,
                              absl::Span<const float> in, const RandomKey& key,
                              uint8_t* payload);

/// As deltapipe::MinifloatDequantize.
void MinifloatDequantize(const MinifloatFormat& format, const uint8_t* payload,
                         absl::Span<float> out);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_MINIFLOAT_QUANTIZE_H_
