#include "worker/stage/models/model.h"

namespace deltapipe {

at::Tensor PartialModel::Forward(const at::Tensor& input) {
  at::Tensor value = input;
  const int num_parts = static_cast<int>(PartNames().size());
  for (int part = 0; part < num_parts; ++part) value = ForwardPart(part, value);
  return value;
}

std::unique_ptr<PartialModel> MakeModel(const v1::ModelSpec& spec,
                                        int first_layer, int end_layer) {
  if (spec.kind() == "mlp") return MakeMlp(spec, first_layer, end_layer);
  if (spec.kind() == "image_mlp") {
    return MakeImageMlp(spec, first_layer, end_layer);
  }
  if (spec.kind() == "resnet") return MakeResNet(spec, first_layer, end_layer);
  return MakeGpt(spec, first_layer, end_layer);
}

}  // namespace deltapipe
