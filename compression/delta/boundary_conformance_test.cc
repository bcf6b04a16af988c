// The conformance kit of the wrappers: what every channel must keep, whatever
// its codec, over the sizes and kinds of data of compression/testing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/codec_settings.h"

namespace deltapipe {
namespace {

using testing::IsEmpty;

/// A wrapper and the codecs in it: of deltas or of values with a residual, and
/// of whole values.
struct WrapperCase {
  const char* codec;
  const char* inner;
  const char* first;
  double store_error;          // relative, of a record
  const char* store = "none";  // whose error comes on top
};

constexpr double kBf16Error = 1.0 / 256;

const WrapperCase kCases[] = {
    {"delta(int(4),first=int(8))", "int(4)", "int(8)", kBf16Error},
    {"delta(int(2),first=cast(bf16))", "int(2)", "cast(bf16)", kBf16Error},
    {"delta(int(4,round=stochastic),first=none,store=fp32)",
     "int(4,round=stochastic)", "none", 0},
    {"delta(sign,first=int(8),store=fp32)", "sign", "int(8)", 0},
    {"delta(int(4),first=int(8),store=int(8))", "int(4)", "int(8)", 0,
     "int(8)"},
    {"delta(int(6),first=int(8),store=int(5,block=32))", "int(6)", "int(8)", 0,
     "int(5,block=32)"},
    {"delta(luq,first=int(8))", "luq", "int(8)", kBf16Error},
    {"delta(fp(4,3),first=fp(5,2),store=fp32)", "fp(4,3)", "fp(5,2)", 0},
    {"delta(fp(auto,6,round=stochastic),first=none)",
     "fp(auto,6,round=stochastic)", "none", kBf16Error},
    {"delta(prune(0.85),first=int(8))", "prune(0.85)", "int(8)", kBf16Error},
    {"delta(rowwise4(search=greedy),first=rowwise4)", "rowwise4(search=greedy)",
     "rowwise4", kBf16Error},
    {"delta(error_bound(rel=0.01),first=error_bound(rel=0.001))",
     "error_bound(rel=0.01)", "error_bound(rel=0.001)", kBf16Error},
    {"delta(lowrank(2),first=int(8))", "lowrank(2)", "int(8)", kBf16Error},
    {"ef(luq)", "luq", "luq", 0},
    {"ef(fp(4,3))", "fp(4,3)", "fp(4,3)", 0},
    {"ef(prune(0.85))", "prune(0.85)", "prune(0.85)", 0},
    {"ef(rowwise4)", "rowwise4", "rowwise4", 0},
    {"ef(error_bound(abs=0.01))", "error_bound(abs=0.01)",
     "error_bound(abs=0.01)", 0},
    {"ef(lowrank(2))", "lowrank(2)", "lowrank(2)", 0},
    {"ef(int(4))", "int(4)", "int(4)", 0},
    {"ef(sign)", "sign", "sign", 0},
    {"ef(int(4),store=int(8))", "int(4)", "int(4)", 0, "int(8)"},
    {"int(8)", "int(8)", "int(8)", 0},
    {"none", "none", "none", 0},
};

double LargestMagnitude(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) {
    largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

/// Both ends of a channel, and a second sender that must write the same bytes.
class Channel {
 public:
  Channel(const WrapperCase& test, size_t count) : test_(test), count_(count) {
    BoundaryOptions options;
    options.codec = test.codec;
    options.seed = 17;
    options.boundary_id = 3;
    options.elements_per_sample = static_cast<int64_t>(count);
    encoder_ = BoundaryEncoder::Create(options).value();
    twin_ = BoundaryEncoder::Create(options).value();
    decoder_ = BoundaryDecoder::Create(options).value();
    inner_ = MakeCodec(test.inner).value();
    first_ = MakeCodec(test.first).value();
    store_ = MakeCodec(test.store).value();
    previous_.resize(count);
    residual_.resize(count);
  }

  bool has_feedback() const { return test_.codec[0] == 'e'; }

  /// One visit of the sample; `storage` has one element before the values, so
  /// that nothing is aligned. The values received are in received().
  void Visit(uint32_t step, const std::vector<float>& storage) {
    const auto values = absl::MakeConstSpan(storage).subspan(1);
    const std::vector<BoundarySample> samples = {{42, 0}};
    const int64_t delta_rows = encoder_->counters().delta_rows;
    Buffer body;
    Buffer again;
    ASSERT_TRUE(encoder_->Encode(step, samples, values, false, &body).ok());
    ASSERT_TRUE(twin_->Encode(step, samples, values, false, &again).ok());
    ASSERT_EQ(body.span(), again.span()) << "the same input, other bytes";
    ASSERT_LE(
        body.size(),
        BodyTableBytes(1) + std::max(inner_->MaxPayloadBytes(values.size()),
                                     first_->MaxPayloadBytes(values.size())));
    is_delta_ = encoder_->counters().delta_rows > delta_rows;
    if (step == 2) TryDamagedBodies(step, samples, body);

    std::vector<uint8_t> shifted(1);
    shifted.insert(shifted.end(), body.span().begin(), body.span().end());
    std::vector<float> out(count_ + 1, 1e9f);
    std::vector<uint64_t> missing;
    const absl::Status decoded =
        decoder_->Decode(step, samples, absl::MakeConstSpan(shifted).subspan(1),
                         false, absl::MakeSpan(out).subspan(1), &missing);
    ASSERT_TRUE(decoded.ok()) << decoded;
    ASSERT_THAT(missing, IsEmpty());
    received_.assign(out.begin() + 1, out.end());
    encoder_->CommitStep(step);
    twin_->CommitStep(step);
    decoder_->CommitStep(step);
    ASSERT_EQ(encoder_->StateHash(), decoder_->StateHash());
    ASSERT_EQ(twin_->StateHash(), decoder_->StateHash());
  }

  /// The error of the last Visit, of finite values after finite ones.
  void ExpectWithinBound(const std::vector<float>& storage) {
    std::vector<double> coded(count_);
    for (size_t i = 0; i < count_; ++i) {
      coded[i] = storage[i + 1];
      if (is_delta_) coded[i] -= previous_[i];
      if (has_feedback()) coded[i] += residual_[i];
    }
    double bound = (is_delta_ ? *inner_ : *first_)
                       .TensorErrorBound(LargestMagnitude(coded),
                                         static_cast<int64_t>(count_));
    if (!store_->traits().is_lossless) {
      bound += store_->ErrorBound(
          LargestMagnitude({storage.begin() + 1, storage.end()}) + bound);
    }
    for (size_t i = 0; i < count_; ++i) {
      const double value = storage[i + 1];
      const double target = has_feedback() ? coded[i] : value;
      const double error = std::fabs(received_[i] - target);
      // What is stored and what is subtracted are rounded, by half of bf16's
      // least value at least; a NaN fails.
      const double rounding =
          (test_.store_error > 0 ? 0x1p-134 : 0) +
          test_.store_error * (std::fabs(value) + bound) +
          4e-7 * (std::fabs(value) + std::fabs(previous_[i]) + bound);
      ASSERT_TRUE(std::isfinite(received_[i]) && error <= bound + rounding)
          << "element " << i << ": " << value << " became " << received_[i]
          << (is_delta_ ? " by a delta" : " by a value") << ", bound " << bound;
      residual_[i] = coded[i] - received_[i];
    }
    Remember();
  }

  void Remember() { previous_.assign(received_.begin(), received_.end()); }
  const std::vector<float>& received() const { return received_; }
  bool is_delta() const { return is_delta_; }

 private:
  /// Every damaged body is refused with the state untouched.
  void TryDamagedBodies(uint32_t step,
                        const std::vector<BoundarySample>& samples,
                        const Buffer& body) {
    const uint64_t hash = decoder_->StateHash();
    std::vector<float> out(count_);
    std::vector<uint64_t> missing;
    const auto expect_refused = [&](const std::vector<uint8_t>& damaged) {
      ASSERT_EQ(decoder_
                    ->Decode(step, samples, damaged, false, absl::MakeSpan(out),
                             &missing)
                    .code(),
                absl::StatusCode::kInvalidArgument)
          << damaged.size() << " of " << body.size() << " bytes";
    };
    const std::vector<uint8_t> bytes(body.span().begin(), body.span().end());
    for (const size_t size :
         {size_t{0}, size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
      expect_refused({bytes.begin(), bytes.begin() + size});
    }
    for (int i = 0; i < 4; ++i) {
      std::vector<uint8_t> flipped = bytes;
      flipped[random_() % flipped.size()] ^=
          static_cast<uint8_t>(1 << random_() % 8);
      expect_refused(flipped);
    }
    EXPECT_EQ(decoder_->StateHash(), hash);
  }

  const WrapperCase test_;
  const size_t count_;
  std::unique_ptr<BoundaryEncoder> encoder_;
  std::unique_ptr<BoundaryEncoder> twin_;
  std::unique_ptr<BoundaryDecoder> decoder_;
  std::unique_ptr<Codec> inner_;
  std::unique_ptr<Codec> first_;
  std::unique_ptr<Codec> store_;
  std::mt19937 random_{8};
  bool is_delta_ = false;
  std::vector<float> received_;
  std::vector<double> previous_;
  std::vector<double> residual_;
};

/// A first visit, small drifts, and a tensor that has nothing to do with them.
void CheckVisits(const WrapperCase& test, TestData data, size_t count,
                 uint32_t num_visits = 4) {
  Channel channel(test, count);
  std::vector<float> storage = MakeTestData(data, count + 1, 5);
  if (channel.has_feedback()) {
    // A residual on top of the largest floats would be beyond them.
    for (float& value : storage) value *= 1e-4f;
  }
  for (uint32_t step = 1; step <= num_visits; ++step) {
    SCOPED_TRACE(absl::StrCat("visit ", step));
    if (step == 4) storage = MakeTestData(TestData::kNormal, count + 1, 6);
    channel.Visit(step, storage);
    if (testing::Test::HasFatalFailure()) return;
    channel.ExpectWithinBound(storage);
    if (testing::Test::HasFatalFailure()) return;
    for (float& value : storage) value *= 0.95f;
  }
}

class BoundaryConformanceTest : public testing::TestWithParam<WrapperCase> {};

TEST_P(BoundaryConformanceTest, VisitsOfAllSizesAndKindsOfData) {
  for (const TestData data : kAllTestData) {
    for (const size_t count : {1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 65, 127, 129,
                               1000, 2047, 2048, 2049, 4096, 4099}) {
      SCOPED_TRACE(absl::StrCat(TestDataName(data), ", ", count, " elements"));
      CheckVisits(GetParam(), data, count);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(BoundaryConformanceLargeTest, FourMebiElements) {
  for (const char* codec : {"delta(int(4),first=int(8))", "ef(sign)"}) {
    SCOPED_TRACE(codec);
    const auto test = std::find_if(std::begin(kCases), std::end(kCases),
                                   [&](const WrapperCase& row) {
                                     return std::string(row.codec) == codec;
                                   });
    ASSERT_NE(test, std::end(kCases));
    CheckVisits(*test, TestData::kNormal, size_t{4} << 20, 2);
  }
}

TEST_P(BoundaryConformanceTest, NoElementsAreRefused) {
  BoundaryOptions options;
  options.codec = GetParam().codec;
  options.elements_per_sample = 0;

  EXPECT_EQ(BoundaryEncoder::Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BoundaryDecoder::Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(BoundaryConformanceTest, ABadValueIsGoneAfterTwoVisits) {
  constexpr size_t kCount = 1001;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    SCOPED_TRACE(bad);
    Channel channel(GetParam(), kCount);
    const std::vector<float> good =
        MakeTestData(TestData::kNormal, kCount + 1, 9);
    std::vector<float> damaged = good;
    damaged[500] = bad;

    channel.Visit(1, good);
    channel.Visit(2, damaged);
    if (HasFatalFailure()) return;
    EXPECT_FALSE(channel.is_delta()) << "a bad value was sent as a delta";
    channel.Visit(3, good);
    channel.Remember();
    channel.Visit(4, good);
    if (HasFatalFailure()) return;

    for (const float value : channel.received()) {
      ASSERT_TRUE(std::isfinite(value));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Wrappers, BoundaryConformanceTest,
                         testing::ValuesIn(kCases),
                         [](const testing::TestParamInfo<WrapperCase>& info) {
                           return TestNameOfCodec(info.param.codec);
                         });

TEST(BoundaryConformanceCasesTest, EveryWrapperOfTheListHasCases) {
  for (const CodecInfo& info : AllCodecs()) {
    if (!info.is_wrapper()) continue;
    EXPECT_TRUE(std::any_of(std::begin(kCases), std::end(kCases),
                            [&](const WrapperCase& test) {
                              return std::string(test.codec)
                                         .rfind(absl::StrCat(info.name, "("),
                                                0) == 0;
                            }))
        << info.name;
  }
}

}  // namespace
}  // namespace deltapipe
