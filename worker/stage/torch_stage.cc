#include "worker/stage/torch_stage.h"

#include <algorithm>
#include <functional>
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
#include "ATen/ops/full.h"
#include "ATen/ops/isfinite.h"
#include "ATen/ops/zeros.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "torch/csrc/autograd/function_hook.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/optim/ranges_at.h"
#include "worker/saved_activations/stage_saving.h"
#include "worker/stage/gradient_watch.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/microbatch_graph.h"
#include "worker/stage/models/model.h"
#include "worker/stage/operators/dropout_draw.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

/// Runs `body`, the only place where LibTorch's exceptions are caught.
template <typename Body>
absl::Status CatchTorch(const char* what, Body body) {
  try {
    return body();
  } catch (const SavedActivationError& error) {
    return error.status();
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
      const TorchStageOptions& options) {
    std::unique_ptr<TorchStage> stage(new TorchStage(spec, options));
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
      return OfStage(saving_->EndStep(), absl::StrCat("stage ", stage_, ": "));
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

  std::vector<ElementRange> gradient_order() const override {
    return watch_.order();
  }
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    // Elsewhere they are copied to the host after the pass.
    if (!device_.is_cpu()) return false;
    on_final_ = std::move(on_final);
    return true;
  }

  SavedActivations* saved_activations() override { return saving_.get(); }

 private:
  /// Called by autograd once a graph's part of a parameter's gradient is added.
  class AccumulatedHook : public torch::autograd::PostAccumulateGradHook {
   public:
    AccumulatedHook(GradientWatch* watch, size_t segment)
        : watch_(watch), segment_(segment) {}
    void operator()(const at::Tensor& parameter) override {
      watch_->Accumulated(segment_);
    }

   private:
    GradientWatch* const watch_;
    const size_t segment_;
  };

  /// The input of a forward pass, to run it again.
  struct Probed {
    at::Tensor value;
    std::vector<uint8_t> targets;
    MicrobatchGraphOptions options;
  };

  /// What Backward needs of a Forward.
  struct Pending {
    explicit Pending(MicrobatchGraphOptions options)
        : graph(std::move(options)) {}
    MicrobatchGraph graph;
    float loss_scale = 1;
    float gradient_scale = 1;
    // Where a probe is due: makes the micro-batch's graph again.
    std::unique_ptr<Probed> probed;
  };

  TorchStage(const v1::JobSpec& spec, const TorchStageOptions& options)
      : spec_(spec),
        make_packer_(options.make_packer),
        device_(options.device),
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
    part_names_ = model_->PartNames();
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
      torch::autograd::impl::set_post_acc_grad_hooks(
          tensor, std::make_unique<AccumulatedHook>(&watch_, i));
    }
    watch_ = GradientWatch(layout_, part_names_);
    return MakeSaving();
  }

  absl::Status MakeSaving() {
    StageSavingOptions options;
    options.seed = spec_.seed();
    options.device = !device_.is_cpu()         ? device_.str()
                     : make_packer_ != nullptr ? "cuda:0"
                                               : "cpu";
    options.make_packer = make_packer_;
    options.probe_every = spec_.compression().saved_probe_every();
    options.error_limit = spec_.compression().saved_error_limit();
    const std::string& policy = spec_.compression().saved_activations();
    DP_ASSIGN_OR_RETURN(
        saving_,
        StageSaving::Create(policy.empty() ? "none" : policy, options));
    std::vector<StageSaving::PartRange> ranges;
    for (const ParameterSegment& segment : layout_.segments) {
      for (const std::string& part : part_names_) {
        if (absl::StartsWith(segment.name, part + ".")) {
          ranges.push_back({part, segment.offset, segment.num_elements});
        }
      }
    }
    saving_->SetWeights({weights_}, std::move(ranges));
    return absl::OkStatus();
  }

  absl::Status DoForward(const StageInput& input, StageOutput* output) {
    at::AutoGradMode grad_mode(input.needs_backward);
    const std::vector<int64_t> shape =
        model_->InputShape(input.num_samples, ElementsOf(input));
    DP_RETURN_IF_ERROR(CheckCount("input", ElementsOf(input), shape));
    const at::Tensor value = is_first_ ? Bytes(input.tokens, shape)
                                       : Floats(input.activation, shape);
    if (!input.needs_backward) {
      const at::Tensor result =
          model_->Forward(is_first_ ? value : value.to(dtype_));
      if (is_last_) {
        output->loss = Loss(result, input.targets).item<double>();
        output->num_correct = NumCorrect(result, input.targets);
      } else {
        output->activation = Export(result);
      }
      return absl::OkStatus();
    }
    DP_RETURN_IF_ERROR(BeginSaving(input));
    MicrobatchGraphOptions options = GraphOptions(input);
    auto pending = std::make_unique<Pending>(options);
    pending->loss_scale = input.loss_scale;
    pending->gradient_scale = input.gradient_scale;
    const at::Tensor result = pending->graph.Forward(value);
    if (saving_->ProbesNow()) {
      pending->probed = MakeProbed(input, value, std::move(options));
    }
    pending_[input.microbatch] = std::move(pending);
    if (is_last_) {
      output->loss = result.item<double>();
    } else {
      output->activation = Export(result);
    }
    return absl::OkStatus();
  }

  absl::Status BeginSaving(const StageInput& input) {
    stage_ = input.stage;
    return OfStage(saving_->BeginForward(input.step),
                   absl::StrCat("stage ", input.stage, ", step ", input.step,
                                ", micro-batch ", input.microbatch, ": "));
  }

  static absl::Status OfStage(const absl::Status& status,
                              const std::string& where) {
    return status.ok() ? status
                       : absl::Status(status.code(),
                                      absl::StrCat(where, status.message()));
  }

  MicrobatchGraphOptions GraphOptions(const StageInput& input) {
    MicrobatchGraphOptions options;
    options.model = model_.get();
    options.part_names = &part_names_;
    options.stash = saving_->stash();
    options.recompute_every = saving_->recompute_every();
    options.recomputed_parts = saving_->RecomputedLayers();
    if (!options.recomputed_parts.empty()) {
      options.input_operators = &InputOperatorsOfParts();
    }
    options.context = {
        input.step, input.stage, input.microbatch,
        Checksum({reinterpret_cast<const uint8_t*>(input.sample_keys.data()),
                  input.sample_keys.size() * sizeof(uint64_t)})};
    options.dropout = Draw(input.step, input.sample_keys);
    options.type = dtype_;
    options.needs_input_gradient = !is_first_;
    options.before_segment = [this](int first_part) {
      watch_.EnterSegment(first_part);
    };
    if (device_.is_cpu() && is_full_precision()) {
      options.read_input = input.activation.read_again;
    }
    if (is_last_) {
      // Called before Forward of this stage returns.
      options.finish = [this, &input](const at::Tensor& result) {
        return Loss(result, input.targets);
      };
    }
    return options;
  }

  /// Null for models without dropout.
  std::shared_ptr<const DropoutDraw> Draw(
      int64_t step, absl::Span<const uint64_t> keys) const {
    if (spec_.model().dropout() == 0) return nullptr;
    return std::make_shared<const DropoutDraw>(
        DropoutDraw{spec_.seed(),
                    step,
                    {keys.begin(), keys.end()},
                    spec_.model().dropout()});
  }

  const std::vector<std::string>& InputOperatorsOfParts() {
    if (input_operators_.empty()) {
      DropoutScope dropout(Draw(/*step=*/0, /*keys=*/{0}));
      const int64_t pixels =
          IsImageModel(spec_.model().kind()) ? kImagePixels : 0;
      const int64_t elements = is_first_ ? pixels : input_elements();
      input_operators_ = InputOperators(
          model_.get(), at::zeros(model_->InputShape(1, elements),
                                  at::TensorOptions(device_).dtype(
                                      is_first_ ? at::kLong : dtype_)));
    }
    return input_operators_;
  }

  /// Mean over the micro-batch's tokens.
  at::Tensor Loss(const at::Tensor& result, absl::Span<const uint8_t> targets) {
    const at::Tensor rows = result.reshape({-1, result.size(-1)});
    const absl::Status status = CheckCount(
        "targets", static_cast<int64_t>(targets.size()), {rows.size(0)});
    // Called from within a forward pass, whose errors are exceptions.
    if (!status.ok()) throw SavedActivationError(status);
    return at::cross_entropy_loss(rows.to(at::kFloat),
                                  Bytes(targets, {rows.size(0)}));
  }

  /// Targets, as many as Loss has checked, whose logit is the row's largest.
  int64_t NumCorrect(const at::Tensor& result,
                     absl::Span<const uint8_t> targets) {
    const at::Tensor predicted =
        result.reshape({-1, result.size(-1)}).argmax(/*dim=*/1);
    return predicted.eq(Bytes(targets, predicted.sizes()))
        .sum()
        .item<int64_t>();
  }

  std::unique_ptr<Probed> MakeProbed(const StageInput& input,
                                     const at::Tensor& value,
                                     MicrobatchGraphOptions options) {
    auto probed = std::make_unique<Probed>();
    // Whoever put it in may use its memory again.
    probed->value = value.clone();
    probed->targets.assign(input.targets.begin(), input.targets.end());
    probed->options = std::move(options);
    probed->options.recompute_every = 0;
    probed->options.recomputed_parts.clear();
    if (is_last_) {
      probed->options.finish = [this,
                                kept = probed.get()](const at::Tensor& result) {
        return Loss(result, kept->targets);
      };
    }
    return probed;
  }

  /// Runs the passes that the probe asks for; gradients stay as they were.
  void RunProbe(const Probed& probed, const at::Tensor& incoming) {
    const at::Tensor before = layer_gradients_.clone();
    saving_->Probe([&](const StageSaving::Pass& pass) {
      layer_gradients_.zero_();
      MicrobatchGraphOptions options = probed.options;
      options.treatment = pass.treatment;
      options.meter = pass.meter;
      options.inputs = pass.inputs;
      options.context.key ^= pass.key_salt << 32 | pass.key_salt;
      MicrobatchGraph graph(std::move(options));
      graph.Forward(probed.value);
      graph.Backward(incoming);
      return layer_gradients_.to(at::kFloat, /*non_blocking=*/false,
                                 /*copy=*/true);
    });
    layer_gradients_.copy_(before);
  }

  absl::Status DoBackward(int microbatch, const TensorRef& gradient,
                          TensorRef* input_gradient) {
    // Also where an exception leaves it.
    const absl::Cleanup forget = [this] {
      on_final_ = nullptr;
      watch_.End();
    };
    const auto found = pending_.find(microbatch);
    if (found == pending_.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "backward of micro-batch ", microbatch, " without its forward"));
    }
    const std::unique_ptr<Pending> pending = std::move(found->second);
    pending_.erase(found);
    at::Tensor incoming;
    if (is_last_) {
      incoming = at::full({}, pending->loss_scale * ScaleOf(*pending),
                          at::TensorOptions(device_).dtype(at::kFloat));
    } else {
      DP_RETURN_IF_ERROR(
          CheckCount("gradient", static_cast<int64_t>(gradient.values.size()),
                     pending->graph.output_sizes()));
      incoming = Floats(gradient, pending->graph.output_sizes());
      if (dtype_ == at::kHalf) incoming = incoming.mul(ScaleOf(*pending));
      incoming = incoming.to(dtype_);
    }
    if (pending->probed != nullptr) RunProbe(*pending->probed, incoming);
    // Not of the probe's passes.
    int64_t num_taken = 0;  // of the order
    watch_.Begin(
        Follow(*pending, std::exchange(on_final_, nullptr), &num_taken));
    const at::Tensor outgoing = pending->graph.Backward(incoming);
    if (!is_full_precision()) {
      TakeLayerGradients(*pending, num_taken, layout_.num_elements);
      layer_gradients_.zero_();
    }
    if (!is_first_) *input_gradient = ExportInputGradient(*pending, outgoing);
    return absl::OkStatus();
  }

  /// What is done when elements of layer_gradients_ are final: they are taken,
  /// and `tell`, which may be null, is told. `num_taken`, of the order, must
  /// live as long.
  std::function<void(int64_t)> Follow(const Pending& pending,
                                      std::function<void(int64_t)> tell,
                                      int64_t* num_taken) {
    if (is_full_precision() || !device_.is_cpu()) return tell;
    // ExportInputGradient may mark what is not told.
    const int64_t limit = dtype_ == at::kHalf && !is_first_
                              ? layout_.num_elements - 1
                              : layout_.num_elements;
    // In the same pieces whether or not somebody is told: where a scale is no
    // power of two, LibTorch's vectors round otherwise than what is left of
    // them at the end of a piece.
    return [this, &pending, tell = std::move(tell), num_taken,
            limit](int64_t num_final) {
      TakeLayerGradients(pending, *num_taken, num_final);
      *num_taken = num_final;
      if (tell && num_final <= limit) tell(num_final);
    };
  }

  /// Only fp16's gradients are out of range without.
  float ScaleOf(const Pending& pending) const {
    return dtype_ == at::kHalf ? pending.gradient_scale : 1.0f;
  }

  /// Elements [begin, end) of the order. Micro-batches are summed in fp32.
  void TakeLayerGradients(const Pending& pending, int64_t begin, int64_t end) {
    const bool are_all = end - begin == layout_.num_elements;
    const std::vector<ElementRange> ranges =
        are_all ? std::vector<ElementRange>{{begin, end}}
                : RangesAt(watch_.order(), begin, end);
    for (const ElementRange& range : ranges) {
      const int64_t size = range.end - range.begin;
      gradients_.narrow(0, range.begin, size)
          .add_(layer_gradients_.narrow(0, range.begin, size),
                1.0 / ScaleOf(pending));
    }
  }

  TensorRef ExportInputGradient(const Pending& pending,
                                const at::Tensor& gradient) {
    if (dtype_ != at::kHalf) return Export(gradient);
    if (!at::isfinite(gradient).all().item<bool>() && gradients_.numel() > 0) {
      // The last of the order: nobody was told of it, see Follow.
      gradients_[watch_.order().back().end - 1] =
          std::numeric_limits<float>::quiet_NaN();
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
  const std::function<absl::StatusOr<std::unique_ptr<TensorPacker>>()>
      make_packer_;
  const at::Device device_;
  const at::ScalarType dtype_;  // that layers compute in
  bool is_first_ = false;
  bool is_last_ = false;
  int stage_ = 0;  // as inputs say
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
  std::vector<std::string> part_names_;
  GradientWatch watch_;
  std::function<void(int64_t)> on_final_;     // of the next Backward
  std::vector<std::string> input_operators_;  // empty until they are needed
  std::unique_ptr<StageSaving> saving_;
  std::map<int, std::unique_ptr<Pending>> pending_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> MakeTorchStage(
    const v1::JobSpec& spec, int first_layer, int end_layer,
    const std::string& device) {
  TorchStageOptions options;
  options.device = device;
  return MakeTorchStageWith(spec, first_layer, end_layer, options);
}

absl::StatusOr<std::unique_ptr<Stage>> MakeTorchStageWith(
    const v1::JobSpec& spec, int first_layer, int end_layer,
    const TorchStageOptions& options) {
  return TorchStage::Create(spec, first_layer, end_layer, options);
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
