// A micro-batch whose saved tensors are offloaded, by kernels on the host.
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gtest/gtest.h"
#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/testing/host_pack_device.h"
#include "worker/stage/microbatch_graph.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

/// Notes what the stash fetches ahead.
class WatchedPacker final : public TensorPacker {
 public:
  explicit WatchedPacker(std::set<const PackedTransfer*>* fetched)
      : fetched_(fetched) {}

  at::Device device() const override { return packer_.device(); }
  absl::StatusOr<std::optional<PackedTensor>> PackExactly(
      const at::Tensor& flat) override {
    return packer_.PackExactly(flat);
  }
  absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                        const CodecUse& use,
                                        PackedTensor* packed) override {
    return packer_.PackWithCodec(flat, use, packed);
  }
  void Prefetch(const PackedTensor& packed) override {
    if (packed.transfer != nullptr) fetched_->insert(packed.transfer.get());
    packer_.Prefetch(packed);
  }
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) override {
    return packer_.Unpack(packed);
  }
  void Share(const at::Tensor& unpacked) override { packer_.Share(unpacked); }
  int64_t TakeScratchPeak() override { return packer_.TakeScratchPeak(); }
  absl::StatusOr<int64_t> TakeNotFinite() override {
    return packer_.TakeNotFinite();
  }

 private:
  std::set<const PackedTransfer*>* const fetched_;
  DevicePacker packer_{MakeHostPackDevice()};
};

class OffloadedGraphTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    v1::ModelSpec spec;
    spec.set_kind("gpt");
    spec.set_layers(3);
    spec.set_width(32);
    spec.set_heads(4);
    spec.set_context(32);
    model_ = MakeGpt(spec, 0, 3);
    names_ = model_->PartNames();
    for (NamedParameter& parameter : model_->Parameters()) {
      at::NoGradGuard no_grad;
      parameter.tensor.normal_(0, 0.1);
      parameters_.push_back(parameter.tensor);
    }
  }

  std::unique_ptr<ActivationStash> Stash(const std::string& policy) {
    auto stash = std::make_unique<ActivationStash>(
        MakeSavedPolicy(policy).value(), 17,
        std::make_unique<WatchedPacker>(&fetched_));
    stash->SetWeights(parameters_);
    return stash;
  }
  MicrobatchGraph Graph(ActivationStash* stash, int microbatch) {
    MicrobatchGraphOptions options;
    options.model = model_.get();
    options.part_names = &names_;
    options.stash = stash;
    options.context = {1, 0, microbatch, 9};
    options.finish = [](const at::Tensor& logits) {
      return at::cross_entropy_loss(logits.reshape({64, 256}),
                                    at::arange(64, at::kLong));
    };
    return MicrobatchGraph(options);
  }
  static at::Tensor Tokens() { return at::arange(64, at::kLong).view({2, 32}); }
  at::Tensor TakeGradients() {
    std::vector<at::Tensor> flat;
    for (at::Tensor& parameter : parameters_) {
      flat.push_back(parameter.grad().reshape({-1}));
      parameter.mutable_grad() = at::Tensor();
    }
    return at::cat(flat);
  }

  std::unique_ptr<PartialModel> model_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_;
  std::set<const PackedTransfer*> fetched_;
};

TEST_F(OffloadedGraphTest, BackwardFetchesItsMicrobatchAheadAndNoOther) {
  const std::string codec = GroupCodecText(4);
  const auto fixed = Stash("fixed(" + codec + ")");
  MicrobatchGraph expected = Graph(fixed.get(), 0);
  expected.Forward(Tokens());
  expected.Backward(at::ones({}));
  const at::Tensor gradients = TakeGradients();
  EXPECT_TRUE(fetched_.empty());

  const auto stash = Stash("offload(" + codec + ")");
  MicrobatchGraph first = Graph(stash.get(), 0);
  MicrobatchGraph second = Graph(stash.get(), 1);
  first.Forward(Tokens());
  second.Forward(Tokens());
  size_t num_offloaded = 0;
  for (const SavedTensorReport& report : stash->LastForward()) {
    num_offloaded += report.host_bytes > 0 ? 1 : 0;
  }

  second.Backward(at::ones({}));

  EXPECT_GT(num_offloaded, 10u);
  EXPECT_EQ(fetched_.size(), num_offloaded);
  EXPECT_TRUE(at::equal(TakeGradients(), gradients));
  first.Backward(at::ones({}));
  EXPECT_TRUE(at::equal(TakeGradients(), gradients));
  EXPECT_EQ(stash->live_bytes(), 0);
}

}  // namespace
}  // namespace deltapipe
