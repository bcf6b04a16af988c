// saved_suite: saved activations on a GPU, held to those of the host: the same
// bits, the bytes that the allocator sees, and no wait for the device. Skips,
// saying why, where there is no GPU or no CUDA in the build.
//
//   bazel build --config=cuda //tests/gpu:saved_suite
//   bazel-bin/tests/gpu/saved_suite
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/StreamGuard.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/host_packer.h"
#ifdef DELTAPIPE_HAS_CUDA
#include "c10/cuda/CUDAFunctions.h"
#endif

namespace deltapipe {
namespace {

constexpr int kSeed = 20261122;
constexpr int64_t kMany = (int64_t{4} << 20) + 77;

/// Gives the saved input as the gradient: what was kept of it, bit for bit.
struct Echo : public torch::autograd::Function<Echo> {
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x) {
    context->save_for_backward({x});
    return x.sum();
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::variable_list /*gradients*/) {
    return {context->get_saved_variables()[0].clone()};
  }
};

/// Throws where the host waits for the GPU, while alive.
class NoWaiting {
 public:
#ifdef DELTAPIPE_HAS_CUDA
  NoWaiting() { Set(c10::cuda::SyncDebugMode::L_ERROR); }
  ~NoWaiting() { Set(c10::cuda::SyncDebugMode::L_DISABLED); }

 private:
  static void Set(c10::cuda::SyncDebugMode mode) {
    c10::cuda::warning_state().set_sync_debug_mode(mode);
  }
#else
  NoWaiting() {}
  ~NoWaiting() {}
#endif
};

ActivationStash::Treatment With(const std::string& text,
                                bool is_offloaded = false) {
  const std::shared_ptr<const Codec> codec = MakeCodec(text).value();
  return [=](const SavedTensor&) {
    return SavedTreatment{codec, is_offloaded, "tried"};
  };
}

class SavedSuite : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) {
      GTEST_SKIP() << "there is no GPU that CUDA can use, or this program was "
                      "built without --config=cuda";
    }
    torch::manual_seed(kSeed);
    gpu_ = at::Device("cuda:0");
    stash_ = std::make_unique<ActivationStash>(nullptr, 17, OnGpu());
  }

  std::unique_ptr<TensorPacker> OnGpu() const {
    return std::make_unique<DevicePacker>(MakeCudaPackDevice(gpu_).value());
  }
  at::Tensor Leaf(int64_t count, at::Device device) const {
    torch::manual_seed(kSeed);
    return torch::randn({count}).to(device).set_requires_grad(true);
  }
  /// Two tensors are packed, one of which two operators share.
  at::Tensor Chain(const at::Tensor& x, ActivationStash::Treatment with,
                   int microbatch = 0) {
    ActivationStash::Scope scope(stash_.get(), {4, 0, microbatch, 9},
                                 std::move(with));
    return at::gelu(x.exp().sin()).sum();
  }
  /// What clients asked for and has not been given back, after all work.
  int64_t AllocatedBytes() const {
    c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(gpu_.index());
    // An allocation looks after what waited for other streams.
    at::empty({1}, at::TensorOptions().device(gpu_));
    return c10::getDeviceAllocator(at::kCUDA)
        ->getDeviceStats(gpu_.index())
        .requested_bytes[0]
        .current;
  }

  at::Device gpu_ = at::kCPU;
  std::unique_ptr<ActivationStash> stash_;
};

TEST_F(SavedSuite, PayloadsMasksAndValuesEqualTheHosts) {
  HostPacker host;
  const std::unique_ptr<TensorPacker> packer = OnGpu();
  for (const int bits : {1, 2, 4, 8}) {
    TensorPacker::CodecUse use;
    use.codec = MakeCodec(GroupCodecText(bits)).value();
    use.key = {5, 1, 2, 3, 3};
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const int64_t count : {int64_t{1000}, int64_t{5003}, kMany}) {
        SCOPED_TRACE(absl::StrCat(bits, " bits, ", c10::toString(type), ", ",
                                  count, " values, seed ", kSeed));
        const at::Tensor flat = torch::randn({count}).to(type);
        const at::Tensor bools = flat > 0;
        PackedTensor expected, packed;

        ASSERT_TRUE(host.PackWithCodec(flat, use, &expected).ok());
        ASSERT_TRUE(packer->PackWithCodec(flat.to(gpu_), use, &packed).ok());
        const auto packed_bools = packer->PackExactly(bools.to(gpu_));

        EXPECT_TRUE(at::equal(packed.kept.cpu(), expected.kept));
        EXPECT_TRUE(at::equal(packer->Unpack(packed).value().cpu(),
                              host.Unpack(expected).value()));
        EXPECT_TRUE(at::equal((**packed_bools).kept.cpu(),
                              (**host.PackExactly(bools)).kept));
        EXPECT_TRUE(
            at::equal(packer->Unpack(**packed_bools).value().cpu(), bools));
      }
    }
  }
}

TEST_F(SavedSuite, TheStashKeepsWhatThatOfTheHostKeeps) {
  ActivationStash host(nullptr, 17);
  for (const int bits : {1, 2, 4, 8}) {
    const auto kept = [&](ActivationStash* stash, at::Device device) {
      const at::Tensor x = Leaf(kMany, device);
      at::Tensor output;
      {
        ActivationStash::Scope scope(stash, {4, 0, 0, 9},
                                     With(GroupCodecText(bits)));
        // An activation: no leaf.
        output = Echo::apply(x * 2.0);
      }
      return torch::autograd::grad({output}, {x})[0].cpu();
    };

    EXPECT_TRUE(at::equal(kept(stash_.get(), gpu_), kept(&host, at::kCPU)))
        << bits << " bits, seed " << kSeed;
  }
}

TEST_F(SavedSuite, ARelusZerosStayZeros) {
  const at::Tensor x = Leaf(kMany, gpu_);
  at::Tensor output;
  {
    ActivationStash::Scope scope(stash_.get(), {4, 0, 0, 9},
                                 With(GroupCodecText(2)));
    output = at::relu(x * 2.0).sum();
  }

  const at::Tensor gradient = torch::autograd::grad({output}, {x})[0];

  EXPECT_TRUE(at::equal(gradient, (x.detach() > 0).to(at::kFloat) * 2.0));
}

TEST_F(SavedSuite, LiveBytesAreTheAllocatorsGrowthAndNothingIsLeft) {
  const at::Tensor x = Leaf(kMany, gpu_);
  // Makes codecs and their scratch memory.
  Chain(x, With(GroupCodecText(4)));
  stash_->TakeBytes();
  const int64_t before = AllocatedBytes();

  at::Tensor output = Chain(x, With(GroupCodecText(4)));
  const double grown = static_cast<double>(AllocatedBytes() - before);
  const double live =
      static_cast<double>(stash_->live_bytes() - stash_->TakeBytes().metadata);

  EXPECT_NEAR(live / grown, 1, 0.01) << live << " bytes against " << grown;
  output = at::Tensor();
  EXPECT_EQ(stash_->live_bytes(), 0);
  EXPECT_EQ(AllocatedBytes(), before);
}

TEST_F(SavedSuite, WhatIsOffloadedLeavesTheDeviceAndGradientsAreTheSame) {
  const at::Tensor x = Leaf(kMany, gpu_);
  const at::Tensor expected =
      torch::autograd::grad({Chain(x, With(GroupCodecText(4)))}, {x})[0];
  Chain(x, With(GroupCodecText(4), true));
  stash_->TakeBytes();
  const int64_t before = AllocatedBytes();

  std::vector<at::Tensor> outputs;
  for (int microbatch = 0; microbatch < 4; ++microbatch) {
    outputs.push_back(Chain(x, With(GroupCodecText(4), true), microbatch));
  }
  const int64_t grown = AllocatedBytes() - before;
  const int64_t offloaded = stash_->TakeBytes().offloaded;

  EXPECT_EQ(
      offloaded,
      4 * 2 * MakeCodec(GroupCodecText(4)).value()->MaxPayloadBytes(kMany));
  EXPECT_LT(grown, offloaded / 100);
  // Every second one is fetched before, as a stage does.
  for (int microbatch = 3; microbatch >= 0; --microbatch) {
    if (microbatch % 2 == 0) stash_->Prefetch({4, 0, microbatch, 9});
    EXPECT_TRUE(
        at::equal(torch::autograd::grad(
                      {outputs[static_cast<size_t>(microbatch)]}, {x})[0],
                  expected))
        << microbatch;
  }
}

TEST_F(SavedSuite, NeitherPackingNorUnpackingWaitsForTheDevice) {
#ifndef DELTAPIPE_HAS_CUDA
  GTEST_SKIP() << "built without --config=cuda";
#endif
  const at::Tensor x = Leaf(kMany, gpu_);
  const auto step = [&](bool is_offloaded) {
    const at::Tensor output = Chain(x, With(GroupCodecText(4), is_offloaded));
    stash_->Prefetch({4, 0, 0, 9});
    torch::autograd::grad({output}, {x});
  };
  for (const bool is_offloaded : {false, true}) {
    step(is_offloaded);  // memory is there afterwards
    NoWaiting no_waiting;

    EXPECT_NO_THROW(step(is_offloaded));
  }
  EXPECT_TRUE(stash_->ReadDevice().ok());
}

TEST_F(SavedSuite, StreamsMayDifferBetweenPackingAndUnpacking) {
  const at::Tensor x = Leaf(kMany, gpu_);
  const at::Tensor expected =
      torch::autograd::grad({Chain(x, With(GroupCodecText(4)))}, {x})[0];
  const c10::impl::VirtualGuardImpl streams(at::kCUDA);
  const c10::Stream other = streams.getStreamFromGlobalPool(gpu_);
  for (int round = 0; round < 20; ++round) {
    c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(gpu_.index());
    at::Tensor gradient;
    {
      c10::StreamGuard guard(other);
      gradient = torch::autograd::grad(
          {Chain(x, With(GroupCodecText(4), round % 2 == 1))}, {x})[0];
    }
    c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(gpu_.index());

    ASSERT_TRUE(at::equal(gradient, expected)) << "round " << round;
  }
}

TEST_F(SavedSuite, ValuesThatAreNotFiniteAreCountedAtTheEndOfTheStep) {
  const at::Tensor x = Leaf(kMany, gpu_);
  {
    at::NoGradGuard no_grad;
    x[12345] = NAN;
  }

  const at::Tensor gradient =
      torch::autograd::grad({Chain(x, With(GroupCodecText(4)))}, {x})[0];

  ASSERT_TRUE(stash_->ReadDevice().ok());
  EXPECT_EQ(stash_->TakeBytes().num_not_finite, 2);
  EXPECT_TRUE(gradient.isnan().any().item<bool>());
}

}  // namespace
}  // namespace deltapipe
