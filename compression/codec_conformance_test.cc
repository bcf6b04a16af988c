// Runs the conformance kit over every row of codecs.def.
#include "compression/testing/codec_conformance.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec_registry.h"
#include "compression/testing/codec_settings.h"
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
      {"sign(block=128,scale=mean)", 128},
      {"sign(block=0,scale=mean)", 0},
      {"int(4,block=16)", 16},
      {"int(3,block=48)", 48},
      {"int(8,block=4096)", 4096},
      {"int(8,block=32,round=stochastic)", 32},
      {"int(2,block=32,clip=minmax)", 32},
  };
  for (const int bits : {1, 2, 4, 8}) {
    cases.push_back({absl::StrCat("aqsgd(", bits, ")"), 0});
    cases.push_back({absl::StrCat("aqsgd(", bits, ",row=48)"), 0,
                     [](size_t i) { return i % 48; }});
  }
  for (const char* search : {"minmax", "greedy", "codebook"}) {
    cases.push_back({absl::StrCat("rowwise4(search=", search, ")"), 64});
    cases.push_back({absl::StrCat("rowwise4(search=", search, ",row=33)"), 33});
    cases.push_back(
        {absl::StrCat("rowwise4(search=", search, ",row=1600)"), 1600});
  }
  // A NaN spoils its row alone, but rows share codebooks.
  cases.push_back({"rowwise4(search=codebook2)", 0, nullptr, 64});
  cases.push_back({"rowwise4(search=codebook2,row=7)", 0, nullptr, 7});
  for (const char* values :
       {"0.01", "0.3", "0.05,values=none", "0.1,values=int(4)",
        "0.1,values=int(8,round=stochastic)"}) {
    cases.push_back({absl::StrCat("topk(", values, ")"), 0});
  }
  // A NaN spoils nothing else, but a relative bound depends on the tensor.
  for (const char* bound : {"rel=0.0001", "rel=0.001,level=1", "rel=0.1"}) {
    cases.push_back({absl::StrCat("error_bound(", bound, ")"), 0, nullptr, 1});
  }
  for (const char* bound : {"0.0001", "0.01", "0.5"}) {
    cases.push_back({absl::StrCat("error_bound(abs=", bound, ")"), 1});
  }
  for (const char* bits : {"", "8,1,", "8,4,", "16,8,"}) {
    cases.push_back(
        {absl::StrCat("dual_precision(", bits, "height=13,width=20)"), 260});
  }
  cases.push_back({"dual_precision(block=16,height=64,width=16)", 1024});
  cases.push_back({"dual_precision(high_bits=3,width=100)", 100});
  cases.push_back({"dual_precision", 0});
  const auto head_of = [](size_t i) { return i % 50 / 16; };
  for (const char* codec :
       {"none", "int(8,round=stochastic)", "int(4)", "cast(fp16)"}) {
    cases.push_back(
        {absl::StrCat("per_head(", codec, ",head=16,row=50)"), 0, head_of});
  }
  cases.push_back({"per_head(int(8),head=64)", 64});
  cases.push_back({"per_head(error_bound(rel=0.001))", 64});
  cases.push_back({"hadamard(none)", 32});
  cases.push_back({"hadamard(int(4))", 64});
  cases.push_back({"hadamard(int(4),tile=128)", 128});
  cases.push_back({"hadamard(cast(bf16),tile=8,threshold=0.5)", 8});
  cases.push_back({"hadamard(rowwise4,tile=64,threshold=0.5)", 64});
  cases.push_back({"hadamard(int(8,round=stochastic),tile=16)", 64});
  cases.push_back({"lowrank(4)", 0});
  cases.push_back({"lowrank(2,columns=16)", 0});
  cases.push_back({"lowrank(33,columns=100,iterations=3)", 0});
  cases.push_back({"entropy_tiles", 32});
  cases.push_back({"entropy_tiles(tile=8,row=128)", 8});
  cases.push_back({"entropy_tiles(share=0.5,tile=128)", 128});
  cases.push_back({"hadamard(entropy_tiles)", 32});
  for (int bits = 1; bits <= 8; ++bits) {
    cases.push_back({absl::StrCat("int(", bits, ")"), 64});
    cases.push_back({absl::StrCat("int(", bits, ",clip=minmax)"), 64});
    cases.push_back({absl::StrCat("int(", bits, ",round=stochastic)"), 64});
  }
  // int in its general form.
  const auto column_block = [](size_t i) { return i / 768 * 48 + i % 48; };
  for (int bits = 1; bits <= 8; ++bits) {
    const std::string name = absl::StrCat("int(", bits);
    for (const char* clip : {"laplace", "gauss"}) {
      cases.push_back({absl::StrCat(name, ",clip=", clip, ")"), 64});
      cases.push_back(
          {absl::StrCat(name, ",clip=", clip, ",levels=affine)"), 64});
    }
    // Each form with each rounding and clip at some numbers of bits.
    const char* const rests[] = {"", "clip=minmax,", "round=stochastic,"};
    const auto rest = [&](int form) { return rests[(bits + form) % 3]; };
    cases.push_back(
        {absl::StrCat(name, ",block=32,", rest(0), "levels=affine)"), 32});
    cases.push_back({absl::StrCat(name, ",", rest(1), "scale=bf16)"), 64});
    cases.push_back(
        {absl::StrCat(name, ",block=16,", rest(2), "axis=column,row=48)"), 16,
         column_block});
    cases.push_back({absl::StrCat(name, ",", rest(0), "channel=slow,row=50)"),
                     0, nullptr, 64});
  }
  for (const ConformanceCase& test : std::vector<ConformanceCase>{
           {"int(3,scale=fp32)", 64},
           {"int(4,clip=minmax,scale=fp32)", 64},
           {"int(2,clip=laplace,scale=fp32)", 64},
           {"int(1,round=stochastic,levels=affine,scale=fp32)", 64},
           {"int(4,clip=gauss,levels=affine,scale=bf16)", 64},
           {"int(5,block=16,levels=affine,scale=bf16,axis=column,row=48)", 16,
            column_block},
           {"int(2,block=16,round=stochastic,levels=affine,axis=column,row=48)",
            16, column_block},
           {"int(4,block=16,axis=column,channel=slow,row=48)", 16,
            column_block},
           {"int(4,axis=column,row=1)", 64},
           {"int(4,axis=column)", 64},
           {"int(4,block=4096,axis=column,row=5)", 0,
            [](size_t i) { return i / 20480 * 5 + i % 5; }},
           {"int(4,channel=slow)", 0, nullptr, 64},
           {"int(3,levels=affine,scale=fp32,channel=slow,row=16)", 0, nullptr,
            64}}) {
    cases.push_back(test);
  }
  // Minifloats: luq in all modes, fp in all splits.
  for (const ConformanceCase& test : std::vector<ConformanceCase>{
           {"luq", 128},
           {"luq(block=16)", 16},
           {"luq(block=4096)", 4096},
           {"luq(block=0)", 0},
           {"luq(samples=2)", 128},
           {"luq(block=64,samples=16)", 64},
           {"luq(range=hindsight)", 0},
           {"luq(range=hindsight,momentum=0.9,samples=2)", 0},
           {"fp(3,0,block=16)", 16},
           {"fp(4,3,block=1024)", 1024},
           {"fp(5,2,block=0)", 0},
           {"fp(auto,3)", 128},
           {"fp(auto,4,block=64)", 64},
           {"fp(auto,6,round=stochastic)", 128},
           {"fp(auto,8,block=0)", 0}}) {
    cases.push_back(test);
  }
  for (int exponent = 1; exponent <= 7; ++exponent) {
    for (int mantissa = 0; exponent + mantissa <= 7; ++mantissa) {
      const std::string split = absl::StrCat("fp(", exponent, ",", mantissa);
      cases.push_back({absl::StrCat(split, ")"), 128});
      if ((exponent + mantissa) % 2 == 1) {
        cases.push_back({absl::StrCat(split, ",round=stochastic)"), 128});
      }
    }
  }
  // Pruning: all models, several codecs of values; one threshold for all.
  for (const char* text :
       {"prune(0.85)", "prune(0.85,model=normal)", "prune(0.85,model=exact)",
        "prune(0.1,values=none)", "prune(0.999,model=exact,values=none)",
        "prune(0.5,model=exact,values=int(4,round=stochastic))",
        "prune(0.9,values=cast(bf16))"}) {
    cases.push_back({text, 0});
  }
  // EOQ: both quantizers and roundings.
  for (const char* name : {"eoq_shift8", "eoq_flag8"}) {
    cases.push_back({name, 0});
    cases.push_back({absl::StrCat(name, "(block=64)"), 64});
    cases.push_back({absl::StrCat(name, "(round=stochastic)"), 0});
    cases.push_back({absl::StrCat(name, "(round=stochastic,block=256)"), 256});
  }
  // What is not zero moves together: blocks are no blocks of the tensor.
  for (const char* codec :
       {"int(4)", "cast(bf16)", "sign", "error_bound(rel=0.01)",
        "per_head(int(8))", "mixed(3.5,row=100)",
        "int(2,block=256,round=stochastic,levels=affine,scale=bf16)"}) {
    cases.push_back({absl::StrCat("nonzero(", codec, ")"), 0});
  }
  cases.push_back({"nonzero(none)", 1});
  cases.push_back({"mixed", 256});
  cases.push_back({"mixed(1,row=48)", 48});
  cases.push_back({"mixed(8,block=16,row=100)", 0,
                   [](size_t i) { return i / 100 * 7 + i % 100 / 16; }});
  cases.push_back({"mixed(3.25,block=64,row=200)", 0,
                   [](size_t i) { return i / 200 * 4 + i % 200 / 64; }});
  cases.push_back({"mixed(6.5,block=4096,row=1000)", 1000});
  cases.push_back({"mixed(1.5,row=9)", 9});
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
      return TestNameOfCodec(info.param.codec);
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
                                    {"sign(block=0)", 0},
                                    {"rowwise4", 64},
                                    {"topk(0.01)", 0},
                                    {"error_bound", 0},
                                    {"lowrank(4)", 0},
                                    {"luq", 128},
                                    {"fp(auto,6)", 128}}) {
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
