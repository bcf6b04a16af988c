// The parameters of the models that workers build, by name and shape: what a
// spec says about parameters is checked before anything is started, and where
// there is no LibTorch. Pure, thread-safe.
//
//   for (const ModelParameter& parameter :
//        ModelParametersOf(model, 0, model.layers)) ...
#ifndef DELTAPIPE_BASE_MODEL_PARAMETERS_H_
#define DELTAPIPE_BASE_MODEL_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace deltapipe {

/// As the fields of a spec's `model` say.
struct ModelShape {
  std::string kind;
  int layers = 1;
  int64_t width = 1;
  int64_t context = 1;
  bool is_tied = false;
  std::string norm;
};

struct ModelParameter {
  std::string name;
  std::vector<int64_t> shape;
  /// -1: what comes before the first layer, or follows the last one.
  int layer = -1;
};

/// Of the layers [first_layer, end_layer), with the embedding if the first one
/// of the model is among them and the head if the last one is; in the order of
/// the computation, as `PartialModel` has them. Empty for a kind whose stages
/// are no model (synthetic).
std::vector<ModelParameter> ModelParametersOf(const ModelShape& model,
                                              int first_layer, int end_layer);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_MODEL_PARAMETERS_H_
