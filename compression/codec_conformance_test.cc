// Runs the conformance kit over every row of codecs.def.
#include "compression/testing/codec_conformance.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "compression/codec_registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

std::vector<ConformanceCase> AllCases() {
  std::vector<ConformanceCase> cases = {
      {"none", 1},
      {"cast(bf16)", 1},
      {"cast(fp16)", 1},
      {"sign", 2048},
      {"sign(block=64)", 64},
      {"sign(block=0)", 0},
      {"int(4,block=16)", 16},
      {"int(3,block=48)", 48},
      {"int(8,block=4096)", 4096},
      {"int(8,block=32,round=stochastic)", 32},
      {"int(2,block=32,clip=minmax)", 32},
  };
  for (int bits = 1; bits <= 8; ++bits) {
    cases.push_back({absl::StrCat("int(", bits, ")"), 64});
    cases.push_back({absl::StrCat("int(", bits, ",clip=minmax)"), 64});
    cases.push_back({absl::StrCat("int(", bits, ",round=stochastic)"), 64});
  }
  return cases;
}

class CodecConformanceTest : public ::testing::TestWithParam<ConformanceCase> {
};

TEST_P(CodecConformanceTest, KeepsThePromisesOfTheInterface) {
  CheckConformance(GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    AllCodecs, CodecConformanceTest, ::testing::ValuesIn(AllCases()),
    [](const ::testing::TestParamInfo<ConformanceCase>& info) {
      std::string name = info.param.codec;
      for (char& c : name) {
        if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

TEST(CodecConformanceCasesTest, EveryCodecOfTheListHasCases) {
  for (const CodecInfo& info : AllCodecs()) {
    if (info.is_wrapper()) continue;
    const auto cases = AllCases();
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(),
                            [&](const ConformanceCase& test) {
                              return test.codec == info.name ||
                                     test.codec.rfind(
                                         absl::StrCat(info.name, "("), 0) == 0;
                            }))
        << info.name;
    EXPECT_TRUE(MakeCodec(ExampleCodecText(info)).ok());
  }
}

TEST(CodecLargeTensorTest, FourMebiElements) {
  for (const ConformanceCase& test :
       std::vector<ConformanceCase>{{"none", 1},
                                    {"cast(bf16)", 1},
                                    {"int(4)", 64},
                                    {"int(8,round=stochastic)", 64},
                                    {"sign", 2048},
                                    {"sign(block=0)", 0}}) {
    SCOPED_TRACE(test.codec);
    CheckLargeTensor(test);
  }
}

// ||x - y|| / ||x|| at +0.125 bit per element: Gaussian and Student t with 3
// degrees of freedom, 65,536 values. The seeds are fixed. At 2, 3 and 4 bits
// these are the project's targets, elsewhere what was measured plus 5 to 10 %.
TEST(CodecQualityTest, RelativeErrorOfIntIsWithinItsTargets) {
  struct Target {
    int bits;
    double normal, heavy_tailed;
  };
  for (const Target& target :
       {Target{1, 0.61, 0.85}, Target{2, 0.35, 0.53}, Target{3, 0.19, 0.33},
        Target{4, 0.10, 0.18}, Target{5, 0.052, 0.1}, Target{6, 0.027, 0.052},
        Target{7, 0.0135, 0.026}, Target{8, 0.007, 0.014}}) {
    auto codec = MakeCodec(absl::StrCat("int(", target.bits, ")"));
    ASSERT_TRUE(codec.ok());
    for (uint32_t seed = 1; seed <= 5; ++seed) {
      for (const TestData data : {TestData::kNormal, TestData::kHeavyTailed}) {
        const std::vector<float> x = MakeTestData(data, 1 << 16, seed);
        std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(x.size()));
        std::vector<float> y(x.size());
        ASSERT_TRUE(
            (*codec)->Encode(x, RandomKey{}, absl::MakeSpan(payload)).ok());
        ASSERT_TRUE((*codec)->Decode(payload, absl::MakeSpan(y)).ok());
        EXPECT_LE(RelativeRmsError(x, y), data == TestData::kNormal
                                              ? target.normal
                                              : target.heavy_tailed)
            << target.bits << " bits, " << TestDataName(data);
      }
    }
  }
}

// Where the blocks of a payload are alike, the scale is at most a third of an
// octave above what the block needs: tighter than ErrorBound, which holds for
// any mixture of blocks.
TEST(CodecQualityTest, UnitsOfLikeBlocksAreWithinAThirdOfAnOctave) {
  for (int bits = 1; bits <= 8; ++bits) {
    const double levels = bits <= 2 ? (1 << bits) - 1 : (1 << (bits - 1)) - 1;
    const double units_per_step = bits <= 2 ? 2 : 1;
    for (const bool is_stochastic : {false, true}) {
      auto codec = MakeCodec(
          absl::StrCat("int(", bits,
                       is_stochastic ? ",round=stochastic)" : ",clip=minmax)"));
      ASSERT_TRUE(codec.ok());
      const std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 14, 12);
      std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(x.size()));
      std::vector<float> y(x.size());

      ASSERT_TRUE(
          (*codec)->Encode(x, RandomKey{}, absl::MakeSpan(payload)).ok());
      ASSERT_TRUE((*codec)->Decode(payload, absl::MakeSpan(y)).ok());

      for (size_t begin = 0; begin < x.size(); begin += 64) {
        float block_max = 0;
        for (size_t i = begin; i < begin + 64; ++i) {
          block_max = std::max(block_max, std::fabs(x[i]));
        }
        const double step =
            units_per_step * std::cbrt(2.0) * block_max / levels;
        for (size_t i = begin; i < begin + 64; ++i) {
          ASSERT_LE(std::fabs(x[i] - y[i]),
                    (is_stochastic ? step : step / 2) * 1.0001)
              << (*codec)->text() << ", element " << i;
        }
      }
    }
  }
}

TEST(CodecQualityTest, OutlierChannelsStayWithinOnePointThreeTimesTheTargets) {
  for (const auto& [bits, target] :
       std::vector<std::pair<int, double>>{{2, 0.35}, {3, 0.19}, {4, 0.10}}) {
    auto codec = MakeCodec(absl::StrCat("int(", bits, ")"));
    ASSERT_TRUE(codec.ok());
    // 512 rows of 128 channels; about 1 % of the channels are 100 times larger.
    std::vector<float> x = MakeTestData(TestData::kNormal, 1 << 16, 11);
    for (size_t i = 0; i < x.size(); i += 128) x[i + 37] *= 100;
    std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(x.size()));
    std::vector<float> y(x.size());

    ASSERT_TRUE((*codec)->Encode(x, RandomKey{}, absl::MakeSpan(payload)).ok());
    ASSERT_TRUE((*codec)->Decode(payload, absl::MakeSpan(y)).ok());

    EXPECT_LE(RelativeRmsError(x, y), 1.3 * target) << bits << " bits";
  }
}

}  // namespace
}  // namespace deltapipe
