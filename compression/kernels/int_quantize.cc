#include "compression/kernels/int_quantize.h"

#include "compression/kernels/reference/int_quantize.h"

namespace deltapipe {
void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload) {
  reference::IntQuantize(format, in, key, payload);
}
void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out) {
  reference::IntDequantize(format, payload, out);
}
}  // namespace deltapipe
