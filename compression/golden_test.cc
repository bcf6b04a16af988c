// The bytes of every codec, as hashes: a change here is a change of the wire
// format and of stored states, and needs a new version of both.
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/float_cast.h"
#include "compression/codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// From integers alone, so that it is the same everywhere: magnitudes over 12
// octaves, a zero block and a NaN at the end.
std::vector<float> GoldenValues() {
  std::vector<float> values;
  for (uint32_t i = 0; i < 2500; ++i) {
    const PhiloxBlock words = Philox4x32({i, 0, 0, 0}, {42, 7});
    const uint32_t exponent = 121 + words[1] % 12;
    values.push_back(
        BitsToFloat((words[0] & 0x80000000u) | exponent << 23 | words[2] >> 9));
    if (i / 64 == 3) values.back() = 0;
  }
  values.back() = BitsToFloat(0x7FC00000u);
  return values;
}

// FNV-1a.
uint64_t Hash(absl::Span<const uint8_t> bytes) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001B3u;
  return hash;
}

struct Golden {
  const char* codec;
  uint64_t payload_hash;
  uint64_t values_hash;
};

std::ostream& operator<<(std::ostream& out, const Golden& golden) {
  return out << golden.codec;
}

class GoldenTest : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenTest, PayloadAndValuesAreTheRecordedOnes) {
  const auto codec = MakeCodec(GetParam().codec);
  ASSERT_TRUE(codec.ok()) << codec.status();
  const std::vector<float> values = GoldenValues();
  std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(values.size()));
  std::vector<float> decoded(values.size());

  ASSERT_TRUE(
      (*codec)
          ->Encode(values, RandomKey{17, 1, 2, 3, 1}, absl::MakeSpan(payload))
          .ok());
  ASSERT_TRUE((*codec)->Decode(payload, absl::MakeSpan(decoded)).ok());

  const uint64_t values_hash = Hash(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(decoded.data()), 4 * decoded.size()));
  EXPECT_EQ(absl::StrFormat("0x%016x, 0x%016x", Hash(payload), values_hash),
            absl::StrFormat("0x%016x, 0x%016x", GetParam().payload_hash,
                            GetParam().values_hash))
      << GetParam().codec;
}

INSTANTIATE_TEST_SUITE_P(
    AllCodecs, GoldenTest,
    ::testing::Values(
        Golden{"none", 0x8efe14137e49d87cu, 0x8efe14137e49d87cu},
        Golden{"cast(bf16)", 0x79d6f539066fa78au, 0x9aae70eff9884132u},
        Golden{"cast(fp16)", 0x050309b5717f97abu, 0x59c554a52f495839u},
        Golden{"sign", 0xce7def67c43a1493u, 0xa9d9a9aa22b6a445u},
        Golden{"sign(block=64)", 0xf6b22e459820332eu, 0x025c094279971445u},
        Golden{"sign(block=0)", 0x95e64f57b87fc6b7u, 0xf4708c4a996cd345u},
        Golden{"int(1)", 0x3ed036afe2661ae1u, 0xf31c17255b337f45u},
        Golden{"int(2)", 0x88eebf0e82998a8eu, 0x2a14392235b9d162u},
        Golden{"int(3)", 0x97a8cf5ac2c88d16u, 0xfd3a3851c0ce414eu},
        Golden{"int(4)", 0x7fee537f410fbc7au, 0xbbb729d141840c97u},
        Golden{"int(5)", 0x054c24dade540bb2u, 0x837da16a37a80182u},
        Golden{"int(6)", 0x9b8c2868e714be91u, 0xfa68b310e3690163u},
        Golden{"int(7)", 0x35b89eb9ed64ca55u, 0x6456b0ba98053002u},
        Golden{"int(8)", 0xddae8835c512c20cu, 0x7482b1e22c2780ccu},
        Golden{"int(4,block=32)", 0x901a0074876340ddu, 0x7a35a42051ce0900u},
        Golden{"int(2,clip=minmax)", 0xc448a680e13c678eu, 0x633f29046b5f3841u},
        Golden{"int(4,clip=minmax)", 0xc474fbe536d579fbu, 0x426f4699033ca7cau},
        Golden{"int(1,round=stochastic)", 0xaed565edc5d2737cu,
               0xe415aa894e462245u},
        Golden{"int(2,round=stochastic)", 0x30cd5cb8f9629612u,
               0xbf7cd65d41f4a832u},
        Golden{"int(4,round=stochastic)", 0x21d3688e7e161a86u,
               0x2e33e5603196380du},
        Golden{"int(8,round=stochastic)", 0x14d06e72b84d2c98u,
               0x56c9dc8866ac9f3du}));

}  // namespace
}  // namespace deltapipe
