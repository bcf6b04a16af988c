// Models as lists of layers that can be cut between any two of them.
//
// A PartialModel holds the layers [first, end) of a model, the embedding if it
// has the first layer and the head if it has the last.
#ifndef DELTAPIPE_WORKER_STAGE_MODELS_MODEL_H_
#define DELTAPIPE_WORKER_STAGE_MODELS_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

struct NamedParameter {
  std::string name;  // unique in the whole model
  at::Tensor tensor;
  /// Initial values are normal with this deviation around `mean`.
  double init_deviation = 0;
  double init_mean = 0;
  /// The model's other end has the same parameter, and is not held here.
  bool is_tied = false;
};

class PartialModel {
 public:
  virtual ~PartialModel() = default;

  /// What is computed one after the other: "embedding" if the first layer is
  /// held, each layer, "head" if the last one is. Saved activations are named
  /// after them, and computed anew in groups of them.
  virtual std::vector<std::string> PartNames() const = 0;
  /// The first part's `input`: int64 tokens or pixels for the first layer, else
  /// an activation in the type of the parameters, of InputShape(); a later
  /// part's is what the one before returned. The last part returns the
  /// activation, or after the last layer logits, of which each row of the last
  /// dimension is about one target: [samples, context, 256] of text, [samples,
  /// 10] of images; in that type.
  virtual at::Tensor ForwardPart(int part, const at::Tensor& input) = 0;
  /// All parts.
  at::Tensor Forward(const at::Tensor& input);

  /// The shape of what arrives: for the first layer `elements` bytes, [samples,
  /// context] of text, [samples, size, size] of images; else `elements` values,
  /// [samples, context, width], [samples, channels, size, size] of a
  /// convolutional network or [samples, width] of a perceptron over images. Its
  /// product is not `elements` where that fits no shape.
  virtual std::vector<int64_t> InputShape(int64_t samples,
                                          int64_t elements) const = 0;

  virtual std::vector<NamedParameter> Parameters() = 0;
};

std::unique_ptr<PartialModel> MakeGpt(const v1::ModelSpec& spec,
                                      int first_layer, int end_layer);
std::unique_ptr<PartialModel> MakeMlp(const v1::ModelSpec& spec,
                                      int first_layer, int end_layer);
std::unique_ptr<PartialModel> MakeImageMlp(const v1::ModelSpec& spec,
                                           int first_layer, int end_layer);
std::unique_ptr<PartialModel> MakeResNet(const v1::ModelSpec& spec,
                                         int first_layer, int end_layer);
/// By spec.kind(), which is no synthetic.
std::unique_ptr<PartialModel> MakeModel(const v1::ModelSpec& spec,
                                        int first_layer, int end_layer);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_MODELS_MODEL_H_
