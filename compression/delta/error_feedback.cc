#include "compression/delta/error_feedback.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/payload_checks.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/sign_feedback.h"

namespace deltapipe {

ErrorFeedback::ErrorFeedback(const Codec* codec, int64_t num_elements)
    : codec_(codec), sign_(SignFormatOf(*codec)), num_elements_(num_elements) {
  if (sign_ != nullptr) return;
  input_ = Buffer(num_elements * static_cast<int64_t>(sizeof(float)));
  restored_ = Buffer(num_elements * static_cast<int64_t>(sizeof(float)));
}

absl::StatusOr<int64_t> ErrorFeedback::Encode(
    absl::Span<const float> values, const float* residual, const RandomKey& key,
    absl::Span<uint8_t> out, float* next_residual, std::vector<float>* memory) {
  const int64_t count = static_cast<int64_t>(values.size());
  if (count != num_elements_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "error feedback: expected ", num_elements_, " values, got ", count));
  }
  if (sign_ != nullptr) {
    const int64_t size = codec_->MaxPayloadBytes(count);
    if (static_cast<int64_t>(out.size()) < size) {
      return CheckRoom(codec_->text(), size, out.size());
    }
    EncodeSignsWithFeedback(*sign_, values, residual,
                            out.first(static_cast<size_t>(size)),
                            next_residual);
    return size;
  }
  float* input = reinterpret_cast<float*>(input_.data());
  float* restored = reinterpret_cast<float*>(restored_.data());
  if (residual == nullptr) {
    std::copy(values.begin(), values.end(), input);
  } else {
    AddResidual(values.data(), residual, input, count);
  }
  const auto sum = absl::MakeConstSpan(input, values.size());
  DP_ASSIGN_OR_RETURN(const int64_t size,
                      memory == nullptr
                          ? codec_->Encode(sum, key, out)
                          : codec_->EncodeNext(sum, key, memory, out));
  DP_RETURN_IF_ERROR(codec_->Decode(out.first(static_cast<size_t>(size)),
                                    absl::MakeSpan(restored, values.size())));
  LeaveResidual(input, restored, next_residual, count);
  return size;
}

}  // namespace deltapipe
