#include "worker/saved_activations/packed_tensor.h"

namespace deltapipe {

PackedTensor PackedTensor::Of(Form form, const at::Tensor& flat) {
  PackedTensor packed;
  packed.form = form;
  packed.type = flat.scalar_type();
  packed.num_elements = flat.numel();
  return packed;
}

int64_t PackedTensor::stored_bytes() const {
  if (form == Form::kExact) {
    return static_cast<int64_t>(kept.storage().nbytes());
  }
  if (transfer != nullptr || !kept.defined()) return 0;
  return static_cast<int64_t>(kept.nbytes()) +
         (mask.defined() ? mask.numel() : 0);
}

int64_t PackedTensor::host_bytes() const {
  if (transfer == nullptr) return 0;
  return kept.numel() + (mask.defined() ? mask.numel() : 0);
}

PackedTensor CopyOf(const at::Tensor& flat) {
  PackedTensor packed = PackedTensor::Of(PackedTensor::Form::kCopy, flat);
  packed.kept = flat.clone();
  return packed;
}

}  // namespace deltapipe
