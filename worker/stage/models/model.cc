#include "worker/stage/models/model.h"

namespace deltapipe {

at::Tensor PartialModel::Forward(const at::Tensor& input) {
  at::Tensor value = input;
  const int num_parts = static_cast<int>(PartNames().size());
  for (int part = 0; part < num_parts; ++part) value = ForwardPart(part, value);
  return value;
}

}  // namespace deltapipe
