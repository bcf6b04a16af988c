// What an ActivationStash says where a saved tensor cannot be kept or read: the
// operator, the tensor, the stage, the step and the micro-batch.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/host_packer.h"
#include "worker/saved_activations/saved_scope.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kPlace[] = "of stage 1, step 3, micro-batch 2";
const SavedContext kContext = {3, 1, 2, 0};

ActivationStash::Treatment With(const std::string& text) {
  auto codec = MakeCodec(text);
  EXPECT_TRUE(codec.ok()) << codec.status();
  const std::shared_ptr<const Codec> shared = *std::move(codec);
  return [codec = shared](const SavedTensor&) {
    return SavedTreatment{codec, false, codec->text()};
  };
}

at::Tensor Input(std::vector<int64_t> sizes) {
  return torch::randn(sizes).set_requires_grad(true);
}

/// The error that `body` throws.
template <typename Body>
absl::Status ErrorOf(Body body) {
  try {
    body();
  } catch (const SavedActivationError& error) {
    return error.status();
  }
  return absl::OkStatus();
}

/// Of the host; holds what it packed last, and may hand out something shorter.
class WatchedPacker : public TensorPacker {
 public:
  struct Seen {
    PackedTensor packed;
    bool cuts = false;
  };
  explicit WatchedPacker(Seen* seen) : seen_(seen) {}

  at::Device device() const override { return packer_.device(); }
  absl::StatusOr<std::optional<PackedTensor>> PackExactly(
      const at::Tensor& flat) override {
    auto packed = packer_.PackExactly(flat);
    if (packed.ok() && packed->has_value()) seen_->packed = **packed;
    return packed;
  }
  absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                        const CodecUse& use,
                                        PackedTensor* packed) override {
    const auto outcome = packer_.PackWithCodec(flat, use, packed);
    seen_->packed = *packed;
    return outcome;
  }
  void Prefetch(const PackedTensor&) override {}
  void DropFetched(const PackedTensor&) override {}
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) override {
    auto flat = packer_.Unpack(packed);
    if (flat.ok() && seen_->cuts) return flat->narrow(0, 0, 1).clone();
    return flat;
  }
  void Share(const at::Tensor&) override {}
  int64_t TakeScratchPeak() override { return packer_.TakeScratchPeak(); }
  absl::StatusOr<int64_t> TakeNotFinite() override { return 0; }

 private:
  HostPacker packer_;
  Seen* const seen_;
};

class StashErrorsTest : public ::testing::Test {
 protected:
  WatchedPacker::Seen seen_;
  ActivationStash stash_{nullptr, 17, std::make_unique<WatchedPacker>(&seen_)};
};

TEST_F(StashErrorsTest, ABitThatFlippedInAPayloadIsFound) {
  for (const char* codec :
       {"int(1)", "int(4)", "int(8)", "cast(bf16)",
        "int(2,block=256,levels=affine,round=stochastic,scale=bf16)"}) {
    SCOPED_TRACE(codec);
    const at::Tensor x = Input({64, 65});
    for (const int64_t part : {0, 1, 2}) {  // of the payload
      at::Tensor output;
      {
        ActivationStash::Scope scope(&stash_, kContext, With(codec));
        SavedPart layer("blocks.0");
        output = x.exp().sum();
      }
      uint8_t* const bytes = seen_.packed.kept.data_ptr<uint8_t>();
      bytes[(seen_.packed.kept.numel() - 1) * part / 2] ^= 0x10;

      const absl::Status status = ErrorOf([&] { output.backward(); });

      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("saved activation blocks.0/exp/0 (exp Float "
                                  "[64,65]) "),
                        HasSubstr(kPlace), HasSubstr("have the checksum"),
                        HasSubstr("memory was overwritten")));
    }
  }
}

TEST_F(StashErrorsTest, ABitThatFlippedInAMaskOrInIntegersIsFound) {
  const at::Tensor x = Input({64, 65});
  const at::Tensor ids = torch::randint(0, 64, {1000}, at::kLong);
  const auto flip = [&] {
    static_cast<uint8_t*>(seen_.packed.kept.data_ptr())[5] ^= 1;
  };
  at::Tensor output;
  {
    ActivationStash::Scope scope(&stash_, kContext, With("int(4)"));
    output = at::relu(x).sum();
  }
  ASSERT_TRUE(seen_.packed.codec != nullptr);
  flip();
  EXPECT_EQ(ErrorOf([&] { output.backward(); }).code(),
            absl::StatusCode::kDataLoss);

  {
    ActivationStash::Scope scope(&stash_, kContext, With("int(4)"));
    output = at::where(x > 0, x, x * 2).sum();
  }
  ASSERT_EQ(seen_.packed.form, PackedTensor::Form::kBits);
  flip();
  EXPECT_EQ(ErrorOf([&] { output.backward(); }).code(),
            absl::StatusCode::kDataLoss);

  {
    ActivationStash::Scope scope(&stash_, kContext, With("int(4)"));
    output = x.index_select(0, ids).sum();
  }
  ASSERT_EQ(seen_.packed.form, PackedTensor::Form::kNarrow);
  flip();
  EXPECT_EQ(ErrorOf([&] { output.backward(); }).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(StashErrorsTest, SomethingShorterIsNotBroadcast) {
  const at::Tensor x = Input({64, 65});
  at::Tensor output;
  {
    ActivationStash::Scope scope(&stash_, kContext, With("int(8)"));
    SavedPart layer("blocks.0");
    output = x.exp().sum();
  }
  seen_.cuts = true;

  const absl::Status status = ErrorOf([&] { output.backward(); });

  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("blocks.0/exp/0 (exp Float [64,65])"), HasSubstr(kPlace),
            HasSubstr("unpacked as 1 elements of Float, expected 4160 "
                      "of Float")));
  EXPECT_FALSE(x.grad().defined());
}

TEST_F(StashErrorsTest, AWeightThatChangedInPlaceIsNamed) {
  const at::Tensor x = Input({64, 48});
  const at::Tensor w = Input({32, 48});
  stash_.SetWeights({w});
  at::Tensor output;
  {
    ActivationStash::Scope scope(&stash_, kContext, With("int(8)"));
    output = at::linear(x, w).sum();
  }
  {
    at::NoGradGuard no_grad;
    w.add_(1);
  }

  const absl::Status status = ErrorOf([&] { output.backward(); });

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("a weight (Float [48,32])"), HasSubstr(kPlace),
                    HasSubstr(", which mm reads, was changed in place between "
                              "forward and backward")));
}

/// Saves its argument in 8 bits, as quantised tensors have them.
struct SavesQuantized : public torch::autograd::Function<SavesQuantized> {
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x) {
    context->save_for_backward(
        {at::quantize_per_tensor(x, 0.1, 0, at::kQInt8)});
    return x * 2;
  }
  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext*, torch::autograd::variable_list g) {
    return {g[0] * 2};
  }
};

TEST_F(StashErrorsTest, AnUnknownTypeIsNamed) {
  const at::Tensor x = Input({64, 48});

  const absl::Status status = ErrorOf([&] {
    ActivationStash::Scope scope(&stash_, kContext, With("int(8)"));
    SavedPart layer("blocks.0");
    SavesQuantized::apply(x.exp());
  });

  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("saved activation blocks.0/"),
                    HasSubstr(" [64,48] "), HasSubstr(kPlace),
                    HasSubstr("has the type QInt8, which is not known here: "
                              "use compression.saved_activations: none")));
  EXPECT_EQ(stash_.live_bytes(), 0);
}

}  // namespace
}  // namespace deltapipe
