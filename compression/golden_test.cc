// The bytes of every codec, as hashes: a change here is a change of the wire
// format and of stored states, and needs a new version of both.
#include <cstdint>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "base/buffer.h"
#include "base/float_cast.h"
#include "base/philox.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/delta/boundary_codec.h"
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
  /// 0 where the bytes are zstd's: only what they decode to is ours.
  uint64_t payload_hash;
  uint64_t values_hash;
  /// Without the NaN, which would be all that is left of it.
  bool is_finite = false;
};

std::ostream& operator<<(std::ostream& out, const Golden& golden) {
  return out << golden.codec;
}

const Golden kGoldens[] = {
    Golden{"none", 0x8efe14137e49d87cu, 0x8efe14137e49d87cu},
    Golden{"nonzero(int(4))", 0x9098de7addc82decu, 0xd2a788bad3ebd517u},
    Golden{"nonzero(none)", 0xeb77524865755990u, 0x8efe14137e49d87cu},
    Golden{"mixed", 0x3848193087527af9u, 0x9d85f99384ce95f8u},
    Golden{"mixed(3.25,block=64,row=200)", 0xcd84bbe826f1b6aau,
           0xb7243f8694045ecbu},
    Golden{"cast(bf16)", 0x79d6f539066fa78au, 0x9aae70eff9884132u},
    Golden{"cast(fp16)", 0x050309b5717f97abu, 0x59c554a52f495839u},
    Golden{"sign", 0xce7def67c43a1493u, 0xa9d9a9aa22b6a445u},
    Golden{"sign(block=64)", 0xf6b22e459820332eu, 0x025c094279971445u},
    Golden{"sign(block=0)", 0x95e64f57b87fc6b7u, 0xf4708c4a996cd345u},
    Golden{"aqsgd(4,row=64)", 0x2dc94b6b26809fe7u, 0x12b99ca3d43dacf9u},
    Golden{"aqsgd(3,row=50)", 0x5ac6491fd8032a09u, 0xae0366c014c2014bu},
    Golden{"rowwise4", 0x4a0604ef796ce734u, 0x6b38297da1a703c3u},
    Golden{"rowwise4(search=greedy,row=33)", 0xc1324f04c0b46a52u,
           0xb0bed198f04ddcd5u},
    Golden{"rowwise4(search=codebook,row=200)", 0x37907e8ff05d1276u,
           0x27877c53ede0e142u},
    Golden{"rowwise4(search=codebook2,row=8)", 0x486b99d7a0cbc783u,
           0xe763acd91deda204u},
    Golden{"topk(0.05)", 0x0c377b40e81736d2u, 0x9b93227bfe8c21f9u},
    Golden{"topk(0.4,values=int(4))", 0xde4119d6b732c8a9u, 0x5eaed3b72097d28fu},
    Golden{"error_bound", 0x0000000000000000u, 0x7c84ccc1ef123e3cu},
    Golden{"error_bound(abs=0.05)", 0x0000000000000000u, 0x0e0b9baedacf5b85u},
    Golden{"dual_precision(width=100)", 0x085cdc84bf1f3ef9u,
           0xcaf75935d024d8c2u},
    Golden{"dual_precision(8,4,height=13,width=20)", 0xf5b8c5a30af69183u,
           0x83f7553adfce9bf2u},
    Golden{"per_head(int(8,round=stochastic),head=16,row=50)",
           0x4a789e9cf93d85f0u, 0x8978dba08b1a0ea0u},
    Golden{"hadamard(int(4))", 0x30823bb0fbabbd6bu, 0xbb6dc1e4c91a2aecu},
    Golden{"hadamard(rowwise4(row=32),threshold=0.5)", 0xcc3c3f269a4de11fu,
           0x78939f5f32b22ba9u},
    Golden{"lowrank(3)", 0x023d2660348af3d9u, 0x7f043a7eb281fbedu, true},
    Golden{"lowrank(2,columns=50,iterations=4)", 0x5bff0b9aedf0c024u,
           0xf351f9d2d883c6ddu, true},
    Golden{"entropy_tiles", 0x146e0cb37de23faau, 0x657ef5b119bd20e2u},
    Golden{"hadamard(entropy_tiles(row=500))", 0xb1464fc60ea801bcu,
           0x63b95b8ed8ea054fu},
    Golden{"sign(block=64,scale=mean)", 0x81ca7b58d005f319u,
           0xac35cfe8124d38c5u},
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
    Golden{"int(1,round=stochastic)", 0xaed565edc5d2737cu, 0xe415aa894e462245u},
    Golden{"int(2,round=stochastic)", 0x30cd5cb8f9629612u, 0xbf7cd65d41f4a832u},
    Golden{"int(4,round=stochastic)", 0x21d3688e7e161a86u, 0x2e33e5603196380du},
    Golden{"int(8,round=stochastic)", 0x14d06e72b84d2c98u, 0x56c9dc8866ac9f3du},
    Golden{"int(4,clip=laplace)", 0xcd1dbf57cc393f60u, 0x5f2b629a1309166eu},
    Golden{"int(2,clip=gauss)", 0x4d2f7517bdd7a2d9u, 0xda620f82a8fb1437u},
    Golden{"int(4,levels=affine)", 0x002278e65c9d6d0eu, 0x6d10ca7454c09c4cu},
    Golden{"int(1,round=stochastic,levels=affine,scale=bf16)",
           0x59005590c5e3686bu, 0x57f809940e385e1bu},
    Golden{"int(6,clip=gauss,levels=affine,scale=fp32)", 0x57a4faf077583086u,
           0xa34de1a5ecb9b75cu},
    Golden{"int(2,scale=bf16)", 0x53371f851c5419dau, 0x999426782793f2a4u},
    Golden{"int(3,round=stochastic,scale=fp32)", 0x29afb2fc9e5bbf55u,
           0x2f7bc54b6e2feb74u},
    Golden{"int(4,block=16,axis=column,row=50)", 0x5b2d7263272773cfu,
           0xf3b3d17bd6e8d3acu},
    Golden{"int(5,round=stochastic,levels=affine,axis=column,row=7)",
           0x03c6116c22786813u, 0x470fbdf339f6798eu},
    Golden{"int(4,channel=slow,row=50)", 0x9f017058ee48b0b8u,
           0xc39908766f8220d9u},
    Golden{"int(3,block=32,levels=affine,axis=column,channel=slow,row=8)",
           0xf0e1bd22487a9228u, 0xed79f1f9f75c2f43u},
    Golden{"luq", 0x355d8a40f1aa2c91u, 0xd47561179303cff4u},
    Golden{"luq(block=256)", 0x125cc3bd750e09d4u, 0xff465c520fc35255u},
    Golden{"luq(samples=2)", 0x4a4b610ff4b65250u, 0x1b5cb526901ad6d7u},
    Golden{"fp(3,0)", 0x96cd9a73f579082bu, 0x3f3e9d752361949du},
    Golden{"fp(2,1,block=64)", 0xa1f2b3d458fb2fc5u, 0x55b5a86748aece05u},
    Golden{"fp(5,2)", 0xd329436fd49e3cd9u, 0xc97e7c3910a33a2cu},
    Golden{"fp(4,1,round=stochastic)", 0x8fb083b15508697bu,
           0xf489d85aec82ba67u},
    Golden{"fp(auto,6)", 0x92ef16adbc1e97e5u, 0x255fc3fed26aa11du},
    Golden{"fp(auto,8)", 0x83f02036c86006b4u, 0x3c331d88ea648268u},
    Golden{"prune(0.85)", 0x587a7721ce53ba3cu, 0x1021fd7444a7f7f0u},
    Golden{"prune(0.5,model=normal,values=int(8))", 0x3493981c4aadbd3du,
           0x2706f75afdc17cd8u},
    Golden{"prune(0.3)", 0x16ce5fd8f7a09365u, 0xb8cebe25565f5220u},
    Golden{"eoq_shift8(block=64)", 0xfe4f99a23e099e6fu, 0xb9c365e7fb25b2bau},
    Golden{"eoq_shift8(round=stochastic,block=256)", 0xf41e0c090e7c64e6u,
           0x5565195f6b8040b1u},
    Golden{"eoq_flag8(block=64)", 0x7c922d02744310aeu, 0xf4353170a49f3670u},
    Golden{"eoq_flag8(round=stochastic,block=256)", 0x5cc3f2ca6ff21f58u,
           0x10e7d9026b28e916u},
};

class GoldenTest : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenTest, PayloadAndValuesAreTheRecordedOnes) {
  const auto codec = MakeCodec(GetParam().codec);
  ASSERT_TRUE(codec.ok()) << codec.status();
  std::vector<float> values = GoldenValues();
  if (GetParam().is_finite) values.back() = 0;
  std::vector<uint8_t> payload((*codec)->MaxPayloadBytes(values.size()));
  std::vector<float> decoded(values.size());

  const auto size = (*codec)->Encode(values, RandomKey{17, 1, 2, 3, 1},
                                     absl::MakeSpan(payload));
  ASSERT_TRUE(size.ok()) << size.status();
  payload.resize(*size);
  ASSERT_TRUE((*codec)->Decode(payload, absl::MakeSpan(decoded)).ok());

  const uint64_t values_hash = Hash(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(decoded.data()), 4 * decoded.size()));
  const uint64_t payload_hash =
      GetParam().payload_hash == 0 ? 0 : Hash(payload);
  EXPECT_EQ(absl::StrFormat("0x%016x, 0x%016x", payload_hash, values_hash),
            absl::StrFormat("0x%016x, 0x%016x", GetParam().payload_hash,
                            GetParam().values_hash))
      << GetParam().codec;
}

INSTANTIATE_TEST_SUITE_P(AllCodecs, GoldenTest, ::testing::ValuesIn(kGoldens));

struct BoundaryGolden {
  const char* codec;
  /// Of the bodies of three steps, one after another.
  uint64_t bodies_hash;
  /// Of what the receiver got in them.
  uint64_t values_hash;
  /// Of what the sender keeps after them: records, or residuals.
  uint64_t record_hash;
};

std::ostream& operator<<(std::ostream& out, const BoundaryGolden& golden) {
  return out << golden.codec;
}

const BoundaryGolden kBoundaryGoldens[] = {
    {"delta(int(4))", 0x5cab9b17fd8b5e3du, 0x749439adf6f6b062u,
     0x8b478d11120b6e96u},
    {"delta(int(4),store=fp32)", 0x97d0f696a82cb0c6u, 0x3596980d53df940cu,
     0x4c2f2d5e5034b4deu},
    {"delta(int(2,block=32),first=int(4),store=int(8))", 0x3bcba36695e11fd3u,
     0x1fb0a4a6e1767640u, 0x6f54d338f65948bcu},
    {"delta(luq,first=cast(bf16))", 0xc6c4e9ddcb27b19eu, 0x6192bf757e853193u,
     0x6389a853f338c18fu},
    {"ef(sign)", 0x9c0e6823d90fb45eu, 0x5e388f251781d71du, 0xe64e9762c37e2011u},
    {"ef(int(4),store=int(8))", 0xbbc317c8b60d4c33u, 0x9f7f9d1368672f0du,
     0x793a678c88caecfeu},
    {"ef(topk(0.05))", 0x57674e7e605950d8u, 0xb52bc3e0442637c3u,
     0x3d7104d9523acf12u},
};

class BoundaryGoldenTest : public ::testing::TestWithParam<BoundaryGolden> {};

// Another value in each step, a 64th or so apart.
std::vector<float> BoundaryValues(uint32_t step) {
  std::vector<float> values = GoldenValues();
  values.back() = 0;
  for (float& value : values) {
    if (value != 0) value = BitsToFloat(FloatBits(value) ^ (step << 16));
  }
  return values;
}

void Append(absl::Span<const uint8_t> bytes, std::vector<uint8_t>* all) {
  all->insert(all->end(), bytes.begin(), bytes.end());
}

TEST_P(BoundaryGoldenTest, BodiesValuesAndRecordsAreTheRecordedOnes) {
  BoundaryOptions options;
  options.codec = GetParam().codec;
  options.seed = 17;
  options.boundary_id = 3;
  options.elements_per_sample = static_cast<int64_t>(GoldenValues().size());
  const auto encoder = BoundaryEncoder::Create(options).value();
  const auto decoder = BoundaryDecoder::Create(options).value();
  const std::vector<BoundarySample> samples = {{11, 5}};
  std::vector<uint8_t> bodies;
  std::vector<uint8_t> received;

  for (uint32_t step = 1; step <= 3; ++step) {
    const std::vector<float> values = BoundaryValues(step);
    Buffer body;
    std::vector<float> decoded(values.size());
    std::vector<uint64_t> missing;
    ASSERT_TRUE(encoder->Encode(step, samples, values, false, &body).ok());
    ASSERT_TRUE(decoder
                    ->Decode(step, samples, body.span(), false,
                             absl::MakeSpan(decoded), &missing)
                    .ok());
    ASSERT_TRUE(missing.empty());
    Append(body.span(), &bodies);
    Append({reinterpret_cast<const uint8_t*>(decoded.data()),
            sizeof(float) * decoded.size()},
           &received);
    encoder->CommitStep(step);
    decoder->CommitStep(step);
  }

  // What is recorded of a delta is one.
  const bool is_delta = absl::StartsWith(GetParam().codec, "delta");
  EXPECT_EQ(encoder->counters().delta_rows, is_delta ? 2 : 0);
  const RecordPtr record = encoder->state()->Read(11);
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(absl::StrFormat("0x%016x, 0x%016x, 0x%016x", Hash(bodies),
                            Hash(received), Hash(record->values.span())),
            absl::StrFormat("0x%016x, 0x%016x, 0x%016x", GetParam().bodies_hash,
                            GetParam().values_hash, GetParam().record_hash))
      << GetParam().codec;
}

INSTANTIATE_TEST_SUITE_P(AllWrappers, BoundaryGoldenTest,
                         ::testing::ValuesIn(kBoundaryGoldens));

TEST(GoldenListTest, HasEveryRowOfCodecsDef) {
  std::set<std::string> names;
  for (const Golden& golden : kGoldens) {
    names.insert(ParseCodecSpec(golden.codec)->name);
  }
  for (const BoundaryGolden& golden : kBoundaryGoldens) {
    names.insert(ParseCodecSpec(golden.codec)->name);
  }

  for (const CodecInfo& info : AllCodecs()) {
    EXPECT_EQ(names.count(std::string(info.name)), 1u)
        << info.name << " has no golden bytes";
  }
}

}  // namespace
}  // namespace deltapipe
