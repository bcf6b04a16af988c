#include "compression/kernels/narrow_floats.h"

#include <cstring>

#include "base/float_cast.h"

namespace deltapipe {
namespace reference {

void NarrowFloats(NarrowFloat type, absl::Span<const float> in, uint8_t* out) {
  for (const float value : in) {
    const uint16_t narrow = type == NarrowFloat::kBFloat16
                                ? FloatToBFloat16(value)
                                : FloatToFloat16(value);
    std::memcpy(out, &narrow, sizeof(narrow));
    out += sizeof(narrow);
  }
}

void WidenFloats(NarrowFloat type, const uint8_t* in, absl::Span<float> out) {
  for (float& value : out) {
    uint16_t narrow;
    std::memcpy(&narrow, in, sizeof(narrow));
    in += sizeof(narrow);
    value = type == NarrowFloat::kBFloat16 ? BFloat16ToFloat(narrow)
                                           : Float16ToFloat(narrow);
  }
}

}  // namespace reference
}  // namespace deltapipe
