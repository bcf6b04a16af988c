#include "compression/delta/sign_feedback.h"

#include <algorithm>
#include <cstring>

#include "compression/delta/delta_kernels.h"
#include "compression/kernels/sign_bits.h"

namespace deltapipe {

void EncodeSignsWithFeedback(const SignFormat& format,
                             absl::Span<const float> values,
                             const float* residual, absl::Span<uint8_t> payload,
                             float* next) {
  const int64_t num_elements = static_cast<int64_t>(values.size());
  uint8_t* scales = payload.data();
  absl::Span<uint8_t> bits =
      payload.subspan(static_cast<size_t>(format.ScaleBytes(num_elements)));
  for (int64_t begin = 0; begin < num_elements;) {
    const int64_t count = format.BlockCount(num_elements - begin);
    if (residual == nullptr) {
      std::copy_n(values.data() + begin, count, next + begin);
    } else {
      AddResidual(values.data() + begin, residual + begin, next + begin, count);
    }
    const auto block = absl::MakeSpan(next + begin, static_cast<size_t>(count));
    const float scale = format.ScaleOf(block);
    std::memcpy(scales, &scale, sizeof(scale));
    scales += sizeof(scale);
    PackSignsWithFiniteResidual(block, scale, bits);
    bits.remove_prefix(static_cast<size_t>(SignBytes(count)));
    begin += count;
  }
}

}  // namespace deltapipe
