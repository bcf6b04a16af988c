#include "compression/kernels/narrow_floats.h"

namespace deltapipe {
void NarrowFloats(NarrowFloat type, absl::Span<const float> in, uint8_t* out) {
  reference::NarrowFloats(type, in, out);
}
void WidenFloats(NarrowFloat type, const uint8_t* in, absl::Span<float> out) {
  reference::WidenFloats(type, in, out);
}
}  // namespace deltapipe
