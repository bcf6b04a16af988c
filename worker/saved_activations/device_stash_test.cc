// ActivationStash and StageSaving on a device, whose kernels the host runs.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/stage_saving.h"
#include "worker/saved_activations/testing/forwarding_packer.h"
#include "worker/saved_activations/testing/host_pack_device.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<TensorPacker> OnKernels() {
  return std::make_unique<DevicePacker>(MakeHostPackDevice());
}

ActivationStash::Treatment With(const std::string& text,
                                bool is_offloaded = false) {
  auto made = MakeCodec(text);
  EXPECT_TRUE(made.ok()) << made.status();
  const std::shared_ptr<const Codec> codec = *std::move(made);
  return [=](const SavedTensor&) {
    return SavedTreatment{codec, is_offloaded, "tried"};
  };
}

class DeviceStashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    x_ = torch::randn({64, 64}).set_requires_grad(true);
  }

  at::Tensor Forward(ActivationStash* stash, ActivationStash::Treatment with,
                     int microbatch = 0) {
    ActivationStash::Scope scope(stash, {4, 1, microbatch, 9}, std::move(with));
    return at::gelu(x_.exp().sin()).sum();
  }
  at::Tensor Gradient(const at::Tensor& output) {
    return torch::autograd::grad({output}, {x_})[0];
  }

  at::Tensor x_;
  ActivationStash host_{nullptr, 17};
  ActivationStash stash_{nullptr, 17, OnKernels()};
};

TEST_F(DeviceStashTest, GradientsEqualTheHostsBitForBit) {
  for (const int bits : {1, 2, 4, 8}) {
    const auto with = With(GroupCodecText(bits));
    const at::Tensor expected = Gradient(Forward(&host_, with));

    const at::Tensor output = Forward(&stash_, with);
    const int64_t live = stash_.live_bytes();
    const at::Tensor gradient = Gradient(output);

    EXPECT_TRUE(at::equal(gradient, expected)) << bits << " bits";
    EXPECT_GT(live, 0);
  }
  EXPECT_TRUE(stash_.ReadDevice().ok());
}

TEST_F(DeviceStashTest, ValuesThatAreNotFiniteAreCountedAndSpoilTheGradient) {
  {
    at::NoGradGuard no_grad;
    x_[3][4] = NAN;
  }
  stash_.SetInput(x_);

  const at::Tensor gradient =
      Gradient(Forward(&stash_, With(GroupCodecText(4))));
  ASSERT_TRUE(stash_.ReadDevice().ok());

  // The results of exp and of sin; sin's input is exp's result.
  EXPECT_EQ(stash_.TakeBytes().num_not_finite, 2);
  EXPECT_TRUE(gradient.isnan().any().item<bool>());
}

TEST_F(DeviceStashTest, WithoutACodecTensorsWaitInHostMemoryAsTheyAre) {
  const auto as_they_are = [](const SavedTensor&) {
    return SavedTreatment{nullptr, true, "in host memory, as it is"};
  };
  const at::Tensor expected = Gradient(at::gelu(x_.exp().sin()).sum());

  const at::Tensor output = Forward(&stash_, as_they_are);
  const int64_t live = stash_.live_bytes();
  const SavedBytes bytes = stash_.TakeBytes();
  stash_.Prefetch({4, 1, 0, 9});
  const at::Tensor gradient = Gradient(output);

  EXPECT_TRUE(at::equal(gradient, expected));
  // The results of exp, which sin shares, and of sin, which gelu saves.
  EXPECT_EQ(bytes.offloaded, 2 * 4 * 64 * 64);
  EXPECT_LT(live, 64 * 64);
  EXPECT_EQ(stash_.live_bytes(), 0);
}

TEST_F(DeviceStashTest, OffloadedBytesAreTheHostsAndGradientsTheSame) {
  const at::Tensor expected =
      Gradient(Forward(&host_, With(GroupCodecText(4))));

  const at::Tensor first = Forward(&stash_, With(GroupCodecText(4), true), 0);
  const at::Tensor second = Forward(&stash_, With(GroupCodecText(4), true), 1);
  const SavedBytes bytes = stash_.TakeBytes();
  const auto reports = stash_.LastForward();
  const int64_t live = stash_.live_bytes();
  EXPECT_EQ(stash_.TakeBytes().offloaded_peak, 4 * GroupCodecBytes(64 * 64, 4));
  // As a stage does before the backward pass, and without.
  stash_.Prefetch({4, 1, 1, 9});

  EXPECT_TRUE(at::equal(Gradient(second), expected));
  EXPECT_TRUE(at::equal(Gradient(first), expected));
  // Two tensors in each of the two passes.
  const int64_t packed = GroupCodecBytes(64 * 64, 4);
  EXPECT_EQ(bytes.offloaded, 4 * packed);
  EXPECT_EQ(bytes.offloaded_peak, 4 * packed);
  stash_.TakeBytes();
  EXPECT_EQ(stash_.TakeBytes().offloaded_peak, 0);
  EXPECT_EQ(bytes.packed, 0);
  EXPECT_EQ(live, bytes.metadata);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].host_bytes, packed);
  EXPECT_EQ(reports[0].stored_bytes, 0);
}

/// Counts what is fetched and read.
class WatchedPacker final : public ForwardingPacker {
 public:
  struct Reads {
    int num_fetched = 0;  // copies from the host
    int num_read = 0;
  };
  explicit WatchedPacker(Reads* reads) : reads_(reads) {}

  void Prefetch(const PackedTensor& packed) override {
    ++reads_->num_fetched;
    ForwardingPacker::Prefetch(packed);
  }
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) override {
    ++reads_->num_read;
    return ForwardingPacker::Unpack(packed);
  }

 private:
  Reads* const reads_;
};

/// Of the tensors of a stash, some in host memory.
int64_t LargestOnHost(const ActivationStash& stash) {
  int64_t largest = 0;
  for (const SavedTensorReport& report : stash.LastForward()) {
    largest = std::max(largest, report.host_bytes);
  }
  return largest;
}

// What waits on the device again counts against what the pass has given back.
TEST_F(DeviceStashTest, FetchesExceedTheLevelOfTheStartByOneTensorAtMost) {
  int num_offloaded = 0;
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    ActivationStash stash(nullptr, 17, OnKernels());
    // From all on the host to nearly nothing there.
    const size_t share = seed % 4 + 1;
    const auto with = [&](const SavedTensor& tensor) {
      const size_t draw =
          std::hash<std::string>()(absl::StrCat(tensor.name, " of ", seed));
      SavedTreatment treatment;
      if (draw / 64 % 5 > 0 || draw / 7 % 4 < share) {
        treatment.codec = MakeCodec(GroupCodecText(1 << draw % 4)).value();
      }
      treatment.is_offloaded = draw / 7 % 4 < share;
      return treatment;
    };
    const auto forward = [&](int64_t step, int microbatch) {
      std::mt19937 random(seed);
      ActivationStash::Scope scope(&stash, {step, 1, microbatch, 9}, with);
      std::vector<at::Tensor> values = {x_.sin()};
      const auto any = [&] { return values[random() % values.size()]; };
      for (int i = 0; i < 12; ++i) {
        switch (random() % 4) {
          case 0:
            values.push_back(values.back().sin());
            break;
          case 1:
            values.push_back(at::gelu(any()));
            break;
          case 2:
            values.push_back(at::mul(any(), values.back()));
            break;
          default:
            values.push_back(at::addcmul(any(), any(), any()));
        }
      }
      return at::cat(values).sum();
    };
    for (int64_t step = 0; step < 3; ++step) {
      const std::vector<at::Tensor> outputs = {forward(step, 0),
                                               forward(step, 1)};
      const int64_t largest = LargestOnHost(stash);
      num_offloaded += largest > 0 ? 1 : 0;
      for (int microbatch = 0; microbatch < 2; ++microbatch) {
        stash.TakeBytes();
        const int64_t level = stash.live_bytes();
        stash.Prefetch({step, 1, microbatch, 9});

        Gradient(outputs[static_cast<size_t>(microbatch)]);

        EXPECT_LE(stash.TakeBytes().live_peak, level + largest)
            << "step " << step << ", micro-batch " << microbatch << ", level "
            << level << ", largest " << largest;
      }
    }
    EXPECT_EQ(stash.live_bytes(), 0);
  }
  EXPECT_GT(num_offloaded, 60);
}

TEST_F(DeviceStashTest, FetchesStayBelowTheLevelWhereThePassGivesBackEnough) {
  WatchedPacker::Reads reads;
  ActivationStash stash(nullptr, 17, std::make_unique<WatchedPacker>(&reads));
  const std::shared_ptr<const Codec> codec =
      MakeCodec(GroupCodecText(4)).value();
  // As plans have it: the first saved are on the host, the last as they are.
  const auto with = [&](const SavedTensor& tensor) {
    const bool is_first = tensor.name < "model/sin/4";
    return SavedTreatment{is_first ? codec : nullptr, is_first, "tried"};
  };
  at::Tensor value = x_;
  stash.SetInput(x_);
  {
    ActivationStash::Scope scope(&stash, {4, 1, 0, 9}, with);
    for (int i = 0; i < 8; ++i) value = value.sin();
  }
  ASSERT_GT(LargestOnHost(stash), 0);
  stash.TakeBytes();
  const int64_t level = stash.live_bytes();
  stash.Prefetch({4, 1, 0, 9});

  Gradient(value.sum());

  EXPECT_EQ(stash.TakeBytes().live_peak, level);
}

// A policy that keeps all on the host overlaps its copies, too, once a pass has
// shown in which order tensors are read.
TEST_F(DeviceStashTest, OneTensorIsFetchedAheadOfItsRead) {
  WatchedPacker::Reads reads;
  ActivationStash stash(nullptr, 17, std::make_unique<WatchedPacker>(&reads));
  stash.SetInput(x_);
  std::vector<std::vector<int>> ahead(2);
  for (int64_t step = 0; step < 2; ++step) {
    at::Tensor value = x_;
    {
      ActivationStash::Scope scope(&stash, {step, 1, 0, 9},
                                   With(GroupCodecText(8), true));
      for (int i = 0; i < 6; ++i) {
        value = value.sin();
        value.register_hook([&, step](const at::Tensor&) {
          ahead[static_cast<size_t>(step)].push_back(reads.num_fetched -
                                                     reads.num_read);
        });
      }
    }
    stash.Prefetch({step, 1, 0, 9});
    Gradient(value.sum());
  }

  // Before each of the reads; nothing is fetched before the first one.
  EXPECT_THAT(ahead[0], ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(ahead[1], ElementsAre(0, 1, 1, 1, 1, 1));
  EXPECT_EQ(reads.num_fetched, 12);
}

TEST_F(DeviceStashTest, ACodecWithoutKernelsNamesTheTensor) {
  try {
    Forward(&stash_, With("error_bound(abs=0.1)"));
    FAIL() << "no error";
  } catch (const SavedActivationError& error) {
    EXPECT_EQ(error.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(error.what(), HasSubstr("/exp/0 (exp Float [64,64]) of stage "
                                        "1, step 4, micro-batch 0"));
    EXPECT_THAT(error.what(), HasSubstr("error_bound"));
  }
}

class DevicePolicyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    StageSavingOptions options;
    options.device = "cuda:0";
    options.make_packer = [] {
      return absl::StatusOr<std::unique_ptr<TensorPacker>>(OnKernels());
    };
    auto saving = StageSaving::Create("none", options);
    ASSERT_TRUE(saving.ok()) << saving.status();
    saving_ = *std::move(saving);
  }

  std::unique_ptr<StageSaving> saving_;
};

TEST_F(DevicePolicyTest, PoliciesWhoseCodecsHaveKernelsWork) {
  for (const std::string policy :
       {"none", "fixed(int(4))", "gact(2)", "auto(100)", "auto(10,offload=20)",
        "recompute(2)", "recompute(2,cast(bf16))", "offload(int(8))"}) {
    EXPECT_TRUE(saving_->CheckPolicy(policy).ok())
        << policy << ": " << saving_->CheckPolicy(policy);
    EXPECT_TRUE(saving_->SetPolicy(policy).ok()) << policy;
  }
  EXPECT_TRUE(saving_->SetPolicy("fixed(" + GroupCodecText(2) + ")").ok());
  EXPECT_NE(saving_->stash(), nullptr);
}

TEST_F(DevicePolicyTest, OthersAreRefusedByTheNameOfTheirCodec) {
  for (const auto& [policy, codec] :
       std::vector<std::pair<std::string, std::string>>{
           {"actnn(bits=2)", "packs by codec mixed, which has no CUDA kernel"},
           {"comet(0.01)", "packs by codec error_bound"},
           {"division", "packs by codec dual_precision"},
           {"mesa(8)", "packs by codec per_head"},
           {"fixed(topk(0.1))", "codec topk(0.1) has no CUDA kernel"},
           {"offload(prune(0.5))", "size the host would have to wait for"}}) {
    const absl::Status status = saving_->SetPolicy(policy);

    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << policy;
    EXPECT_THAT(std::string(status.message()), HasSubstr(codec));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("compression.saved_activations: "));
  }
}

TEST(DevicePolicyBuildTest, ABuildWithoutCudaSaysSo) {
  StageSavingOptions options;
  options.device = "cuda:0";

  const absl::Status status =
      StageSaving::Create("fixed(int(4))", options).status();

  // With CUDA the packer is made, which touches the GPU at its first tensor.
  if (status.ok()) GTEST_SKIP() << "this build has CUDA";
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--config=cuda"));
}

}  // namespace
}  // namespace deltapipe
