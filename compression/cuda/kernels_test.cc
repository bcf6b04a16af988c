// The kernels of CUDA, run on the host, against the codecs of the host.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/float_cast.h"
#include "compression/codec.h"
#include "compression/cuda/testing/carried_codec.h"
#include "compression/cuda/testing/host_launcher.h"
#include "compression/cuda/testing/kernel_settings.h"

namespace deltapipe {
namespace {

constexpr uint32_t kSeeds[] = {1, 20261122, 777};

std::unique_ptr<Codec> OnKernels(const std::string& text) {
  auto codec = MakeCarriedCodec(text, MakeHostLaunchedCodec, MakeHostMemory());
  EXPECT_TRUE(codec.ok()) << codec.status();
  return codec.ok() ? *std::move(codec) : nullptr;
}

/// Values over many magnitudes, with runs of zeros, equal and non-finite ones.
std::vector<float> MixedValues(size_t count, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> kind(0, 19);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    // One kind for 32 values, so that many blocks are finite.
    const int of_run =
        (*random)() % 32 == 0 || i % 32 == 0 ? kind(*random) : -1;
    static constexpr float kScales[] = {1,     1e-3f,  1e4f, 1e-42f,
                                        1e30f, 1e-30f, 0,    -0.0f};
    const float scale = kScales[i / 32 % 11 < 8 ? i / 32 % 11 : 0];
    values[i] = normal(*random) * scale;
    if (of_run == 0) values[i] = std::numeric_limits<float>::quiet_NaN();
    if (of_run == 1) values[i] = -std::numeric_limits<float>::infinity();
    if (of_run == 2) values[i] = std::numeric_limits<float>::max();
    if (of_run == 3) values[i] = -2.5f;
  }
  return values;
}

std::vector<uint8_t> Encode(const Codec& codec, absl::Span<const float> in,
                            const RandomKey& key) {
  std::vector<uint8_t> payload(codec.MaxPayloadBytes(in.size()), 0xEE);
  const auto size = codec.Encode(in, key, absl::MakeSpan(payload));
  EXPECT_TRUE(size.ok()) << size.status();
  payload.resize(size.value_or(0));
  return payload;
}

std::vector<uint32_t> DecodedBits(const Codec& codec,
                                  const std::vector<uint8_t>& payload,
                                  size_t count) {
  std::vector<float> values(count, 123);
  const absl::Status status = codec.Decode(payload, absl::MakeSpan(values));
  EXPECT_TRUE(status.ok()) << status;
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(FloatBits(value));
  return bits;
}

class KernelsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KernelsTest, PayloadsAndValuesEqualTheHosts) {
  const auto host = MakeCodec(GetParam());
  ASSERT_TRUE(host.ok()) << host.status();
  const auto kernels = OnKernels(GetParam());
  ASSERT_NE(kernels, nullptr);
  for (const uint32_t seed : kSeeds) {
    std::mt19937 random(seed);
    std::vector<size_t> sizes = {0, 1, 15, 16, 63, 64, 65, 129, 4096};
    for (int i = 0; i < 3; ++i) sizes.push_back(random() % 9000);
    for (const size_t size : sizes) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", size ", size));
      const std::vector<float> values = MixedValues(size, &random);
      const RandomKey key{seed, 3, static_cast<uint32_t>(size), 5, 1};

      const std::vector<uint8_t> expected = Encode(**host, values, key);
      const std::vector<uint8_t> payload = Encode(*kernels, values, key);

      ASSERT_EQ(payload, expected);
      ASSERT_EQ(DecodedBits(*kernels, expected, size),
                DecodedBits(**host, expected, size));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BitEqual, KernelsTest,
                         ::testing::ValuesIn(BitEqualKernels()));

TEST(KernelsTest, SignWithoutBlocksHasTheHostsSignsAndNearlyItsScale) {
  const auto host = MakeCodec("sign(block=0)");
  const auto kernels = OnKernels("sign(block=0)");
  std::mt19937 random(kSeeds[0]);
  std::vector<float> values(100'003);
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(random);

  const std::vector<uint8_t> expected = Encode(**host, values, RandomKey());
  const std::vector<uint8_t> payload = Encode(*kernels, values, RandomKey());

  float expected_scale, scale;
  std::memcpy(&expected_scale, expected.data(), sizeof(scale));
  std::memcpy(&scale, payload.data(), sizeof(scale));
  EXPECT_NEAR(scale, expected_scale, 1.2e-7f);
  EXPECT_TRUE(
      std::equal(payload.begin() + 4, payload.end(), expected.begin() + 4));
  EXPECT_EQ(DecodedBits(*kernels, expected, values.size()),
            DecodedBits(**host, expected, values.size()));
}

}  // namespace
}  // namespace deltapipe
