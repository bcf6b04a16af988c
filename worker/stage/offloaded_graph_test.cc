// A micro-batch whose saved tensors are offloaded, by kernels on the host.
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gtest/gtest.h"
#include "worker/saved_activations/stage_saving.h"
#include "worker/saved_activations/testing/forwarding_packer.h"
#include "worker/stage/microbatch_graph.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

/// Notes what the stash fetches ahead.
class WatchedPacker final : public ForwardingPacker {
 public:
  explicit WatchedPacker(std::set<const PackedTransfer*>* fetched)
      : fetched_(fetched) {}

  void Prefetch(const PackedTensor& packed) override {
    if (packed.transfer != nullptr) fetched_->insert(packed.transfer.get());
    ForwardingPacker::Prefetch(packed);
  }

 private:
  std::set<const PackedTransfer*>* const fetched_;
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
  MicrobatchGraph Graph(ActivationStash* stash, int microbatch,
                        const StageSaving::Pass& pass = {}) {
    MicrobatchGraphOptions options;
    options.treatment = pass.treatment;
    options.meter = pass.meter;
    options.inputs = pass.inputs;
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

// auto(budget,offload): measured, planned and packed by kernels as on a GPU.
TEST_F(OffloadedGraphTest, AutoKeepsWithinBothBudgets) {
  constexpr double kBudget = 0.45;
  constexpr double kOffload = 0.1;
  StageSavingOptions options;
  options.seed = 17;
  options.device = "cuda:0";
  options.probe_every = 0;
  options.make_packer = [this] {
    return absl::StatusOr<std::unique_ptr<TensorPacker>>(
        std::make_unique<WatchedPacker>(&fetched_));
  };
  auto made = StageSaving::Create(
      absl::StrCat("auto(", kBudget, ",offload=", kOffload, ")"), options);
  ASSERT_TRUE(made.ok()) << made.status();
  StageSaving& saving = **made;
  saving.SetWeights(parameters_, {});
  saving.SetInFlight(2);
  ASSERT_TRUE(saving.BeginForward(0).ok());
  ASSERT_TRUE(saving.ProbesNow());
  saving.Probe([&](const StageSaving::Pass& pass) {
    MicrobatchGraph graph = Graph(saving.stash(), 0, pass);
    graph.Forward(Tokens());
    graph.Backward(at::ones({}));
    return TakeGradients();
  });
  ASSERT_TRUE(saving.EndStep().ok());
  saving.TakeBytes();
  fetched_.clear();

  MicrobatchGraph first = Graph(saving.stash(), 0);
  MicrobatchGraph second = Graph(saving.stash(), 1);
  first.Forward(Tokens());
  second.Forward(Tokens());
  const SavedBytes bytes = saving.TakeBytes();

  EXPECT_GT(bytes.offloaded, 0.5 * kOffload * (1 << 20));
  EXPECT_LE(bytes.offloaded, kOffload * (1 << 20));
  EXPECT_EQ(bytes.offloaded_peak, bytes.offloaded);
  EXPECT_LE(bytes.packed + bytes.passed, kBudget * (1 << 20));
  size_t num_offloaded = 0;
  for (const SavedTensorReport& report : saving.LastForward()) {
    const bool is_there = report.host_bytes > 0;
    EXPECT_EQ(is_there, absl::StrContains(report.reason, "in host memory, "))
        << report.name << ": " << report.reason;
    EXPECT_TRUE(!is_there || report.stored_bytes == 0) << report.name;
    num_offloaded += is_there ? 1 : 0;
  }
  EXPECT_GT(num_offloaded, 1u);
  // The same bits, kept on the device.
  StageSaving::Pass on_device;
  on_device.treatment = [&](const SavedTensor& tensor) {
    SavedTreatment treatment = saving.stash()->policy()->Treat(tensor);
    treatment.is_offloaded = false;
    return treatment;
  };
  second.Backward(at::ones({}));
  const at::Tensor gradients = TakeGradients();
  EXPECT_EQ(fetched_.size(), num_offloaded);
  first.Backward(at::ones({}));
  EXPECT_TRUE(at::equal(TakeGradients(), gradients));
  EXPECT_EQ(saving.live_bytes(), 0);
  // What came back for the backward pass is on the device, too.
  const SavedBytes back = saving.TakeBytes();
  EXPECT_LE(back.live_peak - bytes.metadata, kBudget * (1 << 20));
  EXPECT_EQ(back.offloaded_peak, bytes.offloaded);
  MicrobatchGraph kept = Graph(saving.stash(), 0, on_device);
  kept.Forward(Tokens());
  kept.Backward(at::ones({}));
  EXPECT_TRUE(at::equal(TakeGradients(), gradients));
  EXPECT_EQ(saving.TakeBytes().offloaded_peak, 0);
}

}  // namespace
}  // namespace deltapipe
