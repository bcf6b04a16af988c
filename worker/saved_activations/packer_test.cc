// TensorPackers, that of the host and that of devices, whose kernels the host
// runs here.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/host_packer.h"
#include "worker/saved_activations/testing/host_pack_device.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using Outcome = TensorPacker::Outcome;

constexpr int kSeed = 20261122;

TensorPacker::CodecUse UseOf(const std::string& text) {
  TensorPacker::CodecUse use;
  auto codec = MakeCodec(text);
  EXPECT_TRUE(codec.ok()) << codec.status();
  use.codec = *std::move(codec);
  use.key = {5, 1, 2, 3, 3};
  return use;
}

PackedTensor Packed(TensorPacker* packer, const at::Tensor& flat,
                    const TensorPacker::CodecUse& use) {
  PackedTensor packed;
  const auto outcome = packer->PackWithCodec(flat, use, &packed);
  EXPECT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome.value_or(Outcome::kNotSmaller), Outcome::kPacked);
  return packed;
}

at::Tensor Unpacked(TensorPacker* packer, const PackedTensor& packed) {
  const auto flat = packer->Unpack(packed);
  EXPECT_TRUE(flat.ok()) << flat.status();
  return flat.value_or(at::Tensor());
}

class PackerTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(kSeed); }

  HostPacker host_;
  DevicePacker device_{MakeHostPackDevice()};
};

class PackerCodecTest : public PackerTest,
                        public ::testing::WithParamInterface<std::string> {};

TEST_P(PackerCodecTest, HostAndKernelsKeepAndRestoreTheSameBits) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t count : {64, 1000, 4096, 5003}) {
      SCOPED_TRACE(absl::StrCat(c10::toString(type), ", ", count,
                                " values, seed ", kSeed));
      const at::Tensor flat = torch::randn({count}).to(type);
      const auto use = UseOf(GetParam());
      // What 16 bits would not get smaller by.
      if (use.codec->MaxPayloadBytes(count) >=
          static_cast<int64_t>(flat.nbytes())) {
        continue;
      }

      const PackedTensor expected = Packed(&host_, flat, use);
      const PackedTensor packed = Packed(&device_, flat, use);

      EXPECT_TRUE(at::equal(packed.kept, expected.kept));
      EXPECT_EQ(packed.stored_bytes(), expected.stored_bytes());
      const at::Tensor restored = Unpacked(&device_, packed);
      EXPECT_EQ(restored.scalar_type(), type);
      EXPECT_TRUE(at::equal(restored, Unpacked(&host_, expected)));
      // What either has packed the other one reads.
      EXPECT_TRUE(at::equal(restored, Unpacked(&device_, expected)));
    }
  }
  EXPECT_EQ(*device_.TakeNotFinite(), 0);
}

TEST_P(PackerCodecTest, KernelsKeepZerosAndSignsOfARelu) {
  const at::Tensor flat = torch::randn({5003}).relu();
  auto use = UseOf(GetParam());
  use.keeps_zeros = true;

  const PackedTensor packed = Packed(&device_, flat, use);
  const at::Tensor restored = Unpacked(&device_, packed);

  EXPECT_TRUE(at::equal(restored == 0, flat == 0)) << "seed " << kSeed;
  EXPECT_TRUE((restored >= 0).all().item<bool>());
  EXPECT_EQ(packed.stored_bytes(),
            use.codec->MaxPayloadBytes(5003) + (5003 + 7) / 8);
}

INSTANTIATE_TEST_SUITE_P(Codecs, PackerCodecTest,
                         ::testing::Values(GroupCodecText(1), GroupCodecText(2),
                                           GroupCodecText(3), GroupCodecText(4),
                                           GroupCodecText(8), "int(4)",
                                           "int(3,round=stochastic)",
                                           "cast(bf16)", "luq", "fp(2,1)",
                                           "sign(block=64)"));

TEST_F(PackerTest, BoolsTakeABitAndComeBack) {
  for (const int64_t count : {64, 65, 1001}) {
    const at::Tensor flat = torch::rand({count}) < 0.3;

    const auto expected = host_.PackExactly(flat);
    const auto packed = device_.PackExactly(flat);

    ASSERT_TRUE(packed.ok() && packed->has_value());
    EXPECT_EQ((*packed)->form, PackedTensor::Form::kBits);
    EXPECT_TRUE(at::equal((*packed)->kept, (**expected).kept));
    EXPECT_TRUE(at::equal(Unpacked(&device_, **packed), flat)) << count;
  }
}

TEST_F(PackerTest, IntegersAreNarrowedOnTheHostAloneWhichKnowsTheirRange) {
  const at::Tensor flat = torch::randint(0, 300, {200}, at::kLong);

  const auto narrow = host_.PackExactly(flat);
  const auto kept = device_.PackExactly(flat);

  ASSERT_TRUE(narrow.ok() && narrow->has_value());
  EXPECT_EQ((*narrow)->stored_bytes(), 400);
  EXPECT_TRUE(at::equal(Unpacked(&host_, **narrow), flat));
  ASSERT_TRUE(kept.ok());
  EXPECT_FALSE(kept->has_value());
}

TEST_F(PackerTest, WhatIsNotFiniteIsRefusedOnTheHostAndCountedOnADevice) {
  const at::Tensor good = torch::randn({4096});
  at::Tensor bad = good.clone();
  bad[3000] = NAN;
  const auto use = UseOf(GroupCodecText(4));
  PackedTensor of_host;

  const auto outcome = host_.PackWithCodec(bad, use, &of_host);
  const PackedTensor of_good = Packed(&device_, good, use);
  const PackedTensor of_bad = Packed(&device_, bad, use);

  EXPECT_EQ(*outcome, Outcome::kNotFinite);
  EXPECT_EQ(*device_.TakeNotFinite(), 1);
  EXPECT_EQ(*device_.TakeNotFinite(), 0);
  const at::Tensor restored = Unpacked(&device_, of_bad);
  // The group of the NaN, and no other.
  EXPECT_EQ(restored.isnan().sum().item<int64_t>(), 256);
  EXPECT_TRUE(restored.narrow(0, 2816, 256).isnan().all().item<bool>());
  EXPECT_FALSE(Unpacked(&device_, of_good).isnan().any().item<bool>());
}

TEST_F(PackerTest, WhatDoesNotGetSmallerIsNotPacked) {
  const at::Tensor flat = torch::randn({4096}).to(at::kBFloat16);
  for (TensorPacker* packer : std::vector<TensorPacker*>{&host_, &device_}) {
    PackedTensor packed;

    const auto outcome =
        packer->PackWithCodec(flat, UseOf("cast(bf16)"), &packed);

    EXPECT_EQ(*outcome, Outcome::kNotSmaller);
    EXPECT_EQ(packed.codec->text(), "cast(bf16)");
  }
}

TEST_F(PackerTest, CodecsWithoutAKernelAMemoryOrOfNoFixedSizeAreNamed) {
  const at::Tensor flat = torch::randn({4096});
  for (const auto& [text, problem] :
       std::vector<std::pair<std::string, std::string>>{
           {"error_bound(abs=0.1)", "has no CUDA kernel"},
           {"int(4,levels=affine)", "has no CUDA kernel"},
           {"prune(0.5)", "whose size the host would have to wait for"}}) {
    PackedTensor packed;

    const auto outcome = device_.PackWithCodec(flat, UseOf(text), &packed);

    EXPECT_EQ(outcome.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(outcome.status().message()),
                HasSubstr(absl::StrCat(problem,
                                       ": saved activations on a GPU "
                                       "are packed by int(4,block")))
        << text;
  }
}

TEST_F(PackerTest, WhatIsOffloadedLeavesTheDeviceAndComesBack) {
  const at::Tensor flat = torch::randn({5003}).relu();
  for (const bool keeps_zeros : {false, true}) {
    auto use = UseOf(GroupCodecText(4));
    use.keeps_zeros = keeps_zeros;
    const PackedTensor on_device = Packed(&device_, flat, use);
    use.is_offloaded = true;

    const PackedTensor packed = Packed(&device_, flat, use);
    const at::Tensor once = Unpacked(&device_, packed);
    device_.Prefetch(packed);
    device_.Prefetch(packed);
    const at::Tensor again = Unpacked(&device_, packed);

    EXPECT_EQ(packed.stored_bytes(), 0);
    EXPECT_EQ(packed.host_bytes(), on_device.stored_bytes());
    EXPECT_EQ(on_device.host_bytes(), 0);
    EXPECT_TRUE(at::equal(once, Unpacked(&device_, on_device)));
    EXPECT_TRUE(at::equal(again, once));
  }
}

TEST_F(PackerTest, WithoutACodecItIsOffloadedAsItIs) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor flat = torch::randn({5003}).to(type);
    const at::Tensor expected = flat.clone();
    // In bf16 this codec saves nothing.
    auto coded = UseOf("cast(bf16)");
    coded.is_offloaded = true;
    TensorPacker::CodecUse plain;
    plain.is_offloaded = true;
    const PackedTensor packed =
        Packed(&device_, flat, type == at::kBFloat16 ? coded : plain);
    flat.zero_();

    EXPECT_EQ(packed.form, PackedTensor::Form::kCopy);
    EXPECT_EQ(packed.stored_bytes(), 0);
    EXPECT_EQ(packed.host_bytes(), static_cast<int64_t>(expected.nbytes()));
    for (int i = 0; i < 2; ++i) {
      device_.Prefetch(packed);
      const at::Tensor back = Unpacked(&device_, packed);
      EXPECT_EQ(back.scalar_type(), type);
      EXPECT_TRUE(at::equal(back, expected));
    }
  }
}

TEST_F(PackerTest, WithoutACodecNothingElseIsPacked) {
  const at::Tensor flat = torch::randn({4096});
  for (TensorPacker* packer : std::vector<TensorPacker*>{&host_, &device_}) {
    PackedTensor packed;
    EXPECT_EQ(*packer->PackWithCodec(flat, {}, &packed), Outcome::kNotSmaller);
  }
}

TEST_F(PackerTest, ADamagedPayloadIsFoundAtTheEndOfTheStep) {
  // The last group has one value, whose second byte says nothing.
  const PackedTensor packed =
      Packed(&device_, torch::randn({257}), UseOf(GroupCodecText(4)));
  Unpacked(&device_, packed);
  EXPECT_TRUE(device_.TakeNotFinite().ok());
  PackedTensor damaged = packed;
  damaged.kept = packed.kept.clone();
  // Its scale is not 0 any more, so that it is no constant.
  damaged.kept[2] = 0x80;

  Unpacked(&device_, damaged);

  EXPECT_EQ(device_.TakeNotFinite().status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace deltapipe
