#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/cross_entropy_loss.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/isfinite.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/models/model.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

/// Runs `body`, the only place where LibTorch's exceptions are caught.
template <typename Body>
absl::Status CatchTorch(const char* what, Body body) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat(
        what,
        " failed: device memory is exhausted: ", error.what_without_backtrace(),
        "; use more stages, a smaller train.microbatch or model"));
  } catch (const c10::Error& error) {
    return absl::InternalError(
        absl::StrCat(what, " failed: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(what, " failed: ", error.what()));
  }
}

class TorchStage : public Stage {
 public:
  static absl::StatusOr<std::unique_ptr<Stage>> Create(
      const v1::JobSpec& spec, int first_layer, int end_layer,
      const std::string& device) {
    std::unique_ptr<TorchStage> stage(new TorchStage(spec, device));
    DP_RETURN_IF_ERROR(CatchTorch("build the model", [&] {
      return stage->Build(first_layer, end_layer);
    }));
    return {std::move(stage)};
  }

  const ParameterLayout& parameters() const override { return layout_; }
  absl::Span<float> weights() override {
    return {host_weights_.data_ptr<float>(),
            static_cast<size_t>(layout_.num_elements)};
  }
  absl::Span<float> gradients() override {
    if (!device_.is_cpu()) host_gradients_.copy_(gradients_);
    return {host_gradients_.data_ptr<float>(),
            static_cast<size_t>(layout_.num_elements)};
  }
  absl::Status WeightsChanged() override {
    return CatchTorch("take over the weights", [&] {
      if (has_copy()) weights_.copy_(host_weights_);
      gradients_.zero_();
      return absl::OkStatus();
    });
  }
  BoundaryShape input_shape() const override { return input_shape_; }
  BoundaryShape output_shape() const override { return output_shape_; }

  absl::Status Forward(const StageInput& input, StageOutput* output) override {
    return CatchTorch("forward", [&] { return DoForward(input, output); });
  }

  absl::StatusOr<TensorRef> Backward(int microbatch,
                                     const TensorRef& gradient) override {
    TensorRef input_gradient;
    DP_RETURN_IF_ERROR(CatchTorch("backward", [&] {
      return DoBackward(microbatch, gradient, &input_gradient);
    }));
    return input_gradient;
  }

 private:
  /// What Backward needs of a Forward.
  struct Pending {
    at::Tensor input;   // the activation, with its gradient later
    at::Tensor output;  // the activation sent, or the scaled loss
    float gradient_scale = 1;
  };

  TorchStage(const v1::JobSpec& spec, const std::string& device)
      : spec_(spec),
        device_(device),
        dtype_(TypeOf(spec.train().precision())) {}

  static at::ScalarType TypeOf(const std::string& precision) {
    if (precision == "bf16") return at::kBFloat16;
    return precision == "fp16" ? at::kHalf : at::kFloat;
  }

  /// Whether layers compute with other memory than host_weights_.
  bool has_copy() const { return !device_.is_cpu() || !is_full_precision(); }
  bool is_full_precision() const { return dtype_ == at::kFloat; }

  absl::Status Build(int first_layer, int end_layer) {
    const v1::ModelSpec& model = spec_.model();
    is_first_ = first_layer == 0;
    is_last_ = end_layer == model.layers();
    const auto shape_after = [&](int layer) {
      return BoundaryShapeOf(model.kind(), std::max(layer, 1), model.layers(),
                             model.width(), model.context());
    };
    input_shape_ = shape_after(first_layer);
    output_shape_ = shape_after(end_layer);
    model_ = MakeModel(model, first_layer, end_layer);
    std::vector<NamedParameter> parameters = model_->Parameters();
    std::sort(parameters.begin(), parameters.end(),
              [](const NamedParameter& a, const NamedParameter& b) {
                return std::tie(a.is_tied, a.name) <
                       std::tie(b.is_tied, b.name);
              });
    for (const NamedParameter& parameter : parameters) {
      ParameterSegment segment;
      segment.name = parameter.name;
      segment.shape.assign(parameter.tensor.sizes().begin(),
                           parameter.tensor.sizes().end());
      segment.offset = layout_.num_elements;
      segment.num_elements = parameter.tensor.numel();
      segment.has_weight_decay = parameter.tensor.dim() >= 2;
      layout_.num_elements += segment.num_elements;
      if (parameter.is_tied) layout_.num_tied += segment.num_elements;
      layout_.segments.push_back(std::move(segment));
    }
    // What models tie is of their two ends.
    if (layout_.num_tied > 0) {
      layout_.tied_stages = {0, spec_.parallel().stages() - 1};
    }
    const auto host =
        at::TensorOptions().dtype(at::kFloat).pinned_memory(!device_.is_cpu());
    host_weights_ = at::zeros({layout_.num_elements}, host);
    host_gradients_ = at::zeros({layout_.num_elements}, host);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParameterSegment& segment = layout_.segments[i];
      FillInitialWeights(
          spec_.seed(), parameters[i].name, parameters[i].init_mean,
          parameters[i].init_deviation,
          weights().subspan(static_cast<size_t>(segment.offset),
                            static_cast<size_t>(segment.num_elements)));
    }
    weights_ = has_copy() ? host_weights_.to(device_, dtype_) : host_weights_;
    const auto on_device = weights_.options();
    gradients_ = device_.is_cpu() ? host_gradients_
                                  : at::zeros({layout_.num_elements},
                                              on_device.dtype(at::kFloat));
    layer_gradients_ = is_full_precision()
                           ? gradients_
                           : at::zeros({layout_.num_elements}, on_device);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParameterSegment& segment = layout_.segments[i];
      at::Tensor tensor = parameters[i].tensor;
      const auto view = [&](const at::Tensor& flat) {
        return flat.narrow(0, segment.offset, segment.num_elements)
            .view(tensor.sizes());
      };
      // Parameters and their gradients are windows of the flat buffers: the
      // optimizer writes in place and autograd adds in place.
      const at::Tensor gradient = view(layer_gradients_);
      tensor.set_data(view(weights_));
      tensor.mutable_grad() = gradient;
    }
    return absl::OkStatus();
  }

  absl::Status DoForward(const StageInput& input, StageOutput* output) {
    at::AutoGradMode grad_mode(input.needs_backward);
    const std::vector<int64_t> shape =
        model_->InputShape(input.num_samples, ElementsOf(input));
    DP_RETURN_IF_ERROR(CheckCount("input", ElementsOf(input), shape));
    at::Tensor value;
    if (is_first_) {
      value = Bytes(input.tokens, shape);
    } else {
      value = Floats(input.activation, shape);
      if (input.needs_backward) value.set_requires_grad(true);
    }
    Pending pending;
    pending.gradient_scale = input.gradient_scale;
    if (!is_first_) pending.input = value;
    at::Tensor result = model_->Forward(is_first_ ? value : value.to(dtype_));
    if (is_last_) {
      const at::Tensor rows = result.reshape({-1, result.size(-1)});
      DP_RETURN_IF_ERROR(CheckCount("targets",
                                    static_cast<int64_t>(input.targets.size()),
                                    {rows.size(0)}));
      const at::Tensor loss = at::cross_entropy_loss(
          rows.to(at::kFloat), Bytes(input.targets, {rows.size(0)}));
      output->loss = loss.item<double>();
      if (input.needs_backward) {
        pending.output = loss.mul(input.loss_scale * ScaleOf(pending));
      }
    } else {
      output->activation = Export(result.detach());
      if (input.needs_backward) pending.output = result;
    }
    if (input.needs_backward) {
      pending_[input.microbatch] = std::move(pending);
    }
    return absl::OkStatus();
  }

  absl::Status DoBackward(int microbatch, const TensorRef& gradient,
                          TensorRef* input_gradient) {
    const auto found = pending_.find(microbatch);
    if (found == pending_.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "backward of micro-batch ", microbatch, " without its forward"));
    }
    Pending pending = std::move(found->second);
    pending_.erase(found);
    if (is_last_) {
      torch::autograd::backward({pending.output}, {});
    } else {
      DP_RETURN_IF_ERROR(
          CheckCount("gradient", static_cast<int64_t>(gradient.values.size()),
                     pending.output.sizes()));
      at::Tensor incoming = Floats(gradient, pending.output.sizes());
      if (dtype_ == at::kHalf) incoming = incoming.mul(ScaleOf(pending));
      torch::autograd::backward({pending.output}, {incoming.to(dtype_)});
    }
    if (!is_full_precision()) TakeLayerGradients(pending);
    if (!is_first_) *input_gradient = ExportInputGradient(pending);
    return absl::OkStatus();
  }

  /// Only fp16's gradients are out of range without.
  float ScaleOf(const Pending& pending) const {
    return dtype_ == at::kHalf ? pending.gradient_scale : 1.0f;
  }

  /// Micro-batches are summed in fp32.
  void TakeLayerGradients(const Pending& pending) {
    gradients_.add_(layer_gradients_, 1.0 / ScaleOf(pending));
    layer_gradients_.zero_();
  }

  TensorRef ExportInputGradient(const Pending& pending) {
    const at::Tensor gradient = pending.input.grad();
    if (dtype_ != at::kHalf) return Export(gradient);
    if (!at::isfinite(gradient).all().item<bool>() && gradients_.numel() > 0) {
      gradients_[0] = std::numeric_limits<float>::quiet_NaN();
    }
    return Export(gradient.mul(1.0 / ScaleOf(pending)));
  }

  at::Tensor Bytes(absl::Span<const uint8_t> bytes, at::IntArrayRef shape) {
    return at::from_blob(const_cast<uint8_t*>(bytes.data()), shape, at::kByte)
        .to(device_, at::kLong);
  }

  int64_t ElementsOf(const StageInput& input) const {
    return static_cast<int64_t>(is_first_ ? input.tokens.size()
                                          : input.activation.values.size());
  }

  static absl::Status CheckCount(const char* what, int64_t elements,
                                 at::IntArrayRef shape) {
    int64_t expected = 1;
    for (const int64_t extent : shape) expected *= extent;
    if (elements == expected) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "stage: ", what, " of ", elements, " elements, expected ", expected));
  }

  /// Of `shape`, sharing memory with `values` on the CPU.
  at::Tensor Floats(const TensorRef& values, at::IntArrayRef shape) {
    // The deleter holds the owner for as long as autograd holds the tensor.
    std::shared_ptr<const void> owner = values.owner;
    const at::Tensor host = at::from_blob(
        const_cast<float*>(values.values.data()), shape,
        [owner](void*) mutable { owner.reset(); }, at::kFloat);
    if (device_.is_cpu()) return host;
    // The allocator of pinned memory keeps the block until the copy is done.
    return Pinned(host.sizes()).copy_(host).to(device_, /*non_blocking=*/true);
  }

  static at::Tensor Pinned(at::IntArrayRef shape) {
    return at::empty(shape,
                     at::TensorOptions().dtype(at::kFloat).pinned_memory(true));
  }

  /// On the CPU, from a device through pinned memory.
  static TensorRef Export(const at::Tensor& tensor) {
    auto host = std::make_shared<at::Tensor>(
        tensor.is_cpu() ? tensor.to(at::kFloat).contiguous()
                        : Pinned(tensor.sizes()).copy_(tensor));
    return {absl::MakeConstSpan(host->data_ptr<float>(),
                                static_cast<size_t>(host->numel())),
            host};
  }

  const v1::JobSpec spec_;
  const at::Device device_;
  const at::ScalarType dtype_;  // that layers compute in
  bool is_first_ = false;
  bool is_last_ = false;
  BoundaryShape input_shape_;
  BoundaryShape output_shape_;
  std::unique_ptr<PartialModel> model_;
  ParameterLayout layout_;
  at::Tensor host_weights_;
  at::Tensor host_gradients_;
  // What layers compute with: on the CPU in fp32 the same memory as
  // host_weights_.
  at::Tensor weights_;
  at::Tensor gradients_;        // in fp32; on the CPU that of host_gradients_
  at::Tensor layer_gradients_;  // of one micro-batch; in fp32 gradients_
  std::map<int, Pending> pending_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> MakeTorchStage(
    const v1::JobSpec& spec, int first_layer, int end_layer,
    const std::string& device) {
  return TorchStage::Create(spec, first_layer, end_layer, device);
}

absl::StatusOr<std::pair<std::string, std::string>> ResolveDevice(
    const std::string& device) {
  const bool has_cuda =
      at::hasCUDA() && at::detail::getCUDAHooks().getNumGPUs() > 0;
  if (device == "cuda" && !has_cuda) {
    return absl::UnavailableError(
        "parallel.device is cuda, but this worker finds no CUDA device (or was "
        "built without --config=cuda): use parallel.device: cpu");
  }
  if (device == "cpu" || !has_cuda) return std::make_pair("cpu", "cpu");
  return std::make_pair("cuda", "cuda:0");
}

void SetComputeThreads(int num_threads) {
  at::set_num_threads(std::max(num_threads, 1));
}

}  // namespace deltapipe
