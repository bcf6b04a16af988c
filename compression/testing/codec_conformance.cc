#include "compression/testing/codec_conformance.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/testing/allocation_meter.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr RandomKey kKey{0x1234567890ABCDEF, 3, 14, 15, 1};
constexpr uint8_t kGuard = 0xC3;

// The payload; checks its size and that nothing is written past the maximum.
std::vector<uint8_t> Encode(const Codec& codec, absl::Span<const float> in,
                            const RandomKey& key = kKey) {
  const int64_t max = codec.MaxPayloadBytes(in.size());
  std::vector<uint8_t> buffer(max + 32, kGuard);
  const auto size = codec.Encode(in, key, absl::MakeSpan(buffer.data(), max));
  if (!size.ok()) {
    ADD_FAILURE() << size.status();
    return {};
  }
  EXPECT_LE(*size, max);
  if (codec.traits().has_fixed_size) {
    EXPECT_EQ(*size, max);
  }
  EXPECT_TRUE(std::all_of(buffer.begin() + max, buffer.end(), [](uint8_t byte) {
    return byte == kGuard;
  })) << "bytes written past MaxPayloadBytes";
  buffer.resize(*size);
  return buffer;
}

std::vector<uint8_t> EncodeNext(const Codec& codec, absl::Span<const float> in,
                                std::vector<float>* memory) {
  return EncodeForTest(codec, in, {kKey, memory});
}

std::vector<float> RoundTripOf(const Codec& codec, absl::Span<const float> in,
                               const RandomKey& key = kKey) {
  return DecodeForTest(codec, Encode(codec, in, key), in.size());
}

void ExpectWithinBound(const Codec& codec, const ConformanceCase& test,
                       absl::Span<const float> in,
                       absl::Span<const float> out) {
  std::vector<double> block_max;
  for (size_t i = 0; i < in.size(); ++i) {
    const size_t block = BlockOf(test, i);
    if (block >= block_max.size()) block_max.resize(block + 1, 0);
    block_max[block] =
        std::max(block_max[block], std::fabs(static_cast<double>(in[i])));
  }
  const bool is_one_block = test.block_of == nullptr && test.block == 0;
  for (size_t i = 0; i < in.size(); ++i) {
    const double max = block_max[BlockOf(test, i)];
    const double bound = is_one_block ? codec.TensorErrorBound(max, in.size())
                                      : codec.ErrorBound(max);
    const double error = std::fabs(static_cast<double>(in[i]) - out[i]);
    // Written so that a NaN fails.
    ASSERT_TRUE(std::isfinite(out[i]) && error <= bound)
        << "element " << i << ": " << in[i] << " became " << out[i]
        << ", bound " << bound << " for a block maximum of " << max;
  }
}

void CheckOneRoundTrip(const Codec& codec, const ConformanceCase& test,
                       const std::vector<float>& storage) {
  const auto in = absl::MakeConstSpan(storage).subspan(1);
  const std::vector<uint8_t> payload = Encode(codec, in);
  const std::vector<float> out = DecodeForTest(codec, payload, in.size());
  ExpectWithinBound(codec, test, in, out);
  EXPECT_EQ(Encode(codec, in), payload) << "the same key, other bytes";
  const auto again = MakeForCase(test, codec.text());
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->text(), codec.text());
  EXPECT_EQ(Encode(*again, in), payload) << "MakeCodec(text()) differs";
  if (codec.traits().is_lossless) {
    EXPECT_TRUE(std::equal(in.begin(), in.end(), out.begin()));
  }
  // The payload at an odd address.
  std::vector<uint8_t> shifted(1, 0);
  shifted.insert(shifted.end(), payload.begin(), payload.end());
  EXPECT_EQ(
      DecodeForTest(codec, absl::MakeConstSpan(shifted).subspan(1), in.size()),
      out);
}

// Sums of independent errors of mean 0, each within +-1: P(|sum| > z sqrt(n))
// is at most 2 exp(-z^2 / 2) (Azuma). 7.0 gives 4.6e-11, 7.6 gives 5.8e-13.
constexpr double kOneStatistic = 7.0;
constexpr double kThousandStatistics = 7.6;

constexpr size_t kNumElements = 1024;
constexpr size_t kNumKeys = 2000;

// Errors in units of the step, kNumKeys x kNumElements. All blocks hold the
// same largest value, so that one step serves all.
struct ErrorTable {
  std::vector<float> in;
  std::vector<float> errors;
  double at(size_t key, size_t element) const {
    return errors[key * kNumElements + element];
  }
};

std::vector<float> ValuesOfOneScale() {
  std::vector<float> values = MakeTestData(TestData::kNormal, kNumElements, 9);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = i % 16 == 0 ? 4.0f : std::clamp(values[i], -3.9f, 3.9f);
  }
  return values;
}

ErrorTable MeasureErrors(const Codec& codec, RandomKey key) {
  ErrorTable table;
  table.in = ValuesOfOneScale();
  table.errors.reserve(kNumKeys * kNumElements);
  std::vector<float> low(kNumElements, FLT_MAX), high(kNumElements, -FLT_MAX);
  for (size_t k = 0; k < kNumKeys; ++k) {
    key.seed = 1000 + k;
    const std::vector<float> out = RoundTripOf(codec, table.in, key);
    for (size_t i = 0; i < kNumElements; ++i) {
      table.errors.push_back(out[i] - table.in[i]);
      low[i] = std::min(low[i], out[i]);
      high[i] = std::max(high[i], out[i]);
    }
  }
  float step = 0;
  for (size_t i = 0; i < kNumElements; ++i) {
    step = std::max(step, high[i] - low[i]);
  }
  if (step > 0) {
    for (float& error : table.errors) error /= step;
  }
  return table;
}

void CheckUnbiased(const ErrorTable& table) {
  constexpr double kNumErrors = kNumKeys * kNumElements;
  double sum = 0, weighted = 0, worst = 0;
  for (size_t i = 0; i < kNumElements; ++i) {
    double element_sum = 0;
    for (size_t k = 0; k < kNumKeys; ++k) element_sum += table.at(k, i);
    sum += element_sum;
    weighted +=
        element_sum * table.in[i] / 4;  // a scale that is off shows here
    worst = std::max(worst, std::fabs(element_sum));
  }
  EXPECT_LT(std::fabs(sum), kOneStatistic * std::sqrt(kNumErrors));
  EXPECT_LT(std::fabs(weighted), kOneStatistic * std::sqrt(kNumErrors));
  EXPECT_LT(worst, kThousandStatistics * std::sqrt(double{kNumKeys}));
}

// Leaves of each element's errors what is not their mean over the keys.
void SubtractMeans(ErrorTable* table) {
  for (size_t i = 0; i < kNumElements; ++i) {
    double sum = 0;
    for (size_t k = 0; k < kNumKeys; ++k) sum += table->at(k, i);
    for (size_t k = 0; k < kNumKeys; ++k) {
      table->errors[k * kNumElements + i] -= static_cast<float>(sum / kNumKeys);
    }
  }
}

void CheckUncorrelated(const ErrorTable& table) {
  for (const size_t lag : {1, 2, 3, 4, 8, 16, 32, 64}) {
    double sum = 0;
    for (size_t k = 0; k < kNumKeys; ++k) {
      for (size_t i = 0; i + lag < kNumElements; ++i) {
        sum += table.at(k, i) * table.at(k, i + lag);
      }
    }
    const double count = kNumKeys * (kNumElements - lag);
    EXPECT_LT(std::fabs(sum), kOneStatistic * std::sqrt(count))
        << "errors of elements " << lag << " apart are correlated";
  }
}

// One tensor of 10^6 normal values and its errors under one key. The mean error
// is within 6.2 standard errors: by chance it is not 1 time in 10^9. Of errors
// up to 64 elements apart |r| < 0.01, which is ten of its standard deviations;
// what a codec loses by clipping is in all draws alike and taken away first.
void CheckErrorsOfOneTensor(const Codec& codec) {
  constexpr size_t kCount = 1000000;
  static const std::vector<float>* const values =
      new std::vector<float>(MakeTestData(TestData::kNormal, kCount, 16));
  RandomKey other_key = kKey;
  ++other_key.step;
  const std::vector<float> out = RoundTripOf(codec, *values);
  const std::vector<float> other = RoundTripOf(codec, *values, other_key);
  std::vector<double> noise(kCount);
  double sum = 0, squares = 0, noise_squares = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const double error = static_cast<double>(out[i]) - (*values)[i];
    sum += error;
    squares += error * error;
    noise[i] = static_cast<double>(out[i]) - other[i];
    noise_squares += noise[i] * noise[i];
  }
  if (codec.traits().is_unbiased) {
    EXPECT_LT(std::fabs(sum), 6.2 * std::sqrt(squares))
        << "a mean error of " << sum / kCount;
  }
  for (const size_t lag : {1, 2, 3, 4, 8, 16, 32, 64}) {
    double products = 0;
    for (size_t i = 0; i + lag < kCount; ++i) {
      products += noise[i] * noise[i + lag];
    }
    EXPECT_LT(std::fabs(products / noise_squares), 0.01)
        << "r of elements " << lag << " apart";
  }
}

// Errors under a key and under one that differs in a single field.
void CheckKeyFields(const Codec& codec, const ErrorTable& table) {
  RandomKey others[4] = {kKey, kKey, kKey, kKey};
  others[0].tensor_id += 1;
  others[1].step += 1;
  others[2].slot += 1;
  others[3].direction += 1;
  for (const RandomKey& other : others) {
    ErrorTable second = MeasureErrors(codec, other);
    if (!codec.traits().is_unbiased) SubtractMeans(&second);
    double sum = 0;
    for (size_t i = 0; i < table.errors.size(); ++i) {
      sum += static_cast<double>(table.errors[i]) * second.errors[i];
    }
    EXPECT_LT(std::fabs(sum),
              kOneStatistic * std::sqrt(double{kNumKeys * kNumElements}))
        << "errors of two keys are correlated: tensor " << other.tensor_id
        << ", step " << other.step << ", slot " << other.slot << ", direction "
        << other.direction;
  }
}

}  // namespace

std::unique_ptr<Codec> MakeForCase(const ConformanceCase& test,
                                   const std::string& text) {
  auto codec = test.make == nullptr ? MakeCodec(text) : test.make(text);
  if (!codec.ok()) {
    ADD_FAILURE() << codec.status();
    return nullptr;
  }
  return *std::move(codec);
}

size_t BlockOf(const ConformanceCase& test, size_t element) {
  if (test.block_of != nullptr) return test.block_of(element);
  return test.block == 0 ? 0 : element / test.block;
}

std::string TestDataName(TestData data) {
  switch (data) {
    case TestData::kNormal:
      return "normal";
    case TestData::kHeavyTailed:
      return "heavy-tailed";
    case TestData::kConstant:
      return "constant";
    case TestData::kZero:
      return "zero";
    case TestData::kAlternating:
      return "alternating";
    case TestData::kSubnormal:
      return "subnormal";
    case TestData::kHuge:
      return "huge";
    case TestData::kLargest:
      return "largest";
    case TestData::kMixed:
      return "mixed";
  }
  return "";
}

std::vector<float> MakeTestData(TestData data, size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::student_t_distribution<float> heavy_tailed(3);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const TestData kind =
        data == TestData::kMixed ? kAllTestData[i / 200 % 8] : data;
    switch (kind) {
      case TestData::kNormal:
      case TestData::kMixed:
        values[i] = normal(generator);
        break;
      case TestData::kHeavyTailed:
        values[i] = heavy_tailed(generator);
        break;
      case TestData::kConstant:
        values[i] = 0.7f;
        break;
      case TestData::kZero:
        values[i] = 0;
        break;
      case TestData::kAlternating:
        values[i] = i % 2 == 0 ? 1.0f : -1.0f;
        break;
      case TestData::kSubnormal:
        values[i] = normal(generator) * 1e-40f;
        break;
      case TestData::kHuge:
        values[i] = normal(generator) * 1e30f;
        break;
      case TestData::kLargest:
        values[i] = i % 3 == 0 ? -FLT_MAX : FLT_MAX;
        break;
    }
  }
  return values;
}

double RelativeRmsError(const std::vector<float>& x,
                        const std::vector<float>& y) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error +=
        (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    norm += static_cast<double>(x[i]) * x[i];
  }
  return std::sqrt(error / norm);
}

void CheckRoundTrips(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  for (const TestData data : kAllTestData) {
    for (const size_t count :
         {0,  1,  2,  3,   5,   7,   8,   9,    15,   16,   17,   31,   33,
          63, 64, 65, 127, 129, 255, 257, 1000, 2047, 2048, 2049, 4096, 4099}) {
      SCOPED_TRACE(absl::StrCat(TestDataName(data), ", ", count, " elements"));
      CheckOneRoundTrip(*codec, test, MakeTestData(data, count + 1, 5));
    }
  }
}

void CheckLargeTensor(const ConformanceCase& test) {
  static const std::vector<float>* const values = new std::vector<float>(
      MakeTestData(TestData::kNormal, (size_t{4} << 20) + 1, 6));
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  CheckOneRoundTrip(*codec, test, *values);
}

void CheckNonFinite(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  constexpr size_t kCount = 5000;
  constexpr size_t kPosition = 2500;
  ConformanceCase spoiled = test;
  if (test.spoiled_block != 0) spoiled.block = test.spoiled_block;
  const auto is_spoiled = [&](size_t i) {
    return BlockOf(spoiled, i) == BlockOf(spoiled, kPosition);
  };
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          -std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    SCOPED_TRACE(bad);
    std::vector<float> values = MakeTestData(TestData::kNormal, kCount, 7);
    std::vector<float> zeroed = values;
    values[kPosition] = bad;
    for (size_t i = 0; i < kCount; ++i) {
      if (is_spoiled(i)) zeroed[i] = 0;
    }

    const std::vector<float> out = RoundTripOf(*codec, values);
    const std::vector<float> expected = RoundTripOf(*codec, zeroed);

    EXPECT_FALSE(std::isfinite(out[kPosition])) << "a bad value is hidden";
    for (size_t i = 0; i < kCount; ++i) {
      if (is_spoiled(i)) continue;
      ASSERT_EQ(out[i], expected[i]) << "element " << i;
    }
  }
}

void CheckBitsPerElement(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  const double claim = codec->traits().bits_per_element;
  if (codec->traits().has_fixed_size) {
    constexpr int64_t kLarge = int64_t{1} << 36;

    const double bits = 8.0 * codec->MaxPayloadBytes(kLarge) / kLarge;

    EXPECT_NEAR(bits, claim, 0.01 * bits + 1e-3);
    return;
  }
  const std::vector<float> values =
      MakeTestData(TestData::kNormal, 1 << 16, 10);

  const double bits = 8.0 * Encode(*codec, values).size() / values.size();

  EXPECT_NEAR(bits, claim, 0.2 * bits);
}

void CheckRandomness(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  const Codec::Traits traits = codec->traits();
  if (!traits.is_stochastic) {
    EXPECT_TRUE(!traits.is_unbiased || traits.is_lossless);
    const std::vector<float> values = ValuesOfOneScale();
    EXPECT_EQ(
        Encode(*codec, values, kKey) != Encode(*codec, values, RandomKey{}),
        traits.is_random);
    return;
  }
  ErrorTable table = MeasureErrors(*codec, kKey);
  EXPECT_TRUE(std::any_of(table.errors.begin(), table.errors.end(),
                          [](float error) { return error != 0; }))
      << "the key changes nothing";
  if (traits.is_unbiased) {
    CheckUnbiased(table);
  } else {
    SubtractMeans(&table);
  }
  CheckUncorrelated(table);
  CheckKeyFields(*codec, table);
  CheckErrorsOfOneTensor(*codec);
}

void CheckMemory(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  constexpr size_t kCount = 1111;
  const bool has_memory = codec->traits().has_memory;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> first = MakeTestData(TestData::kNormal, kCount, 13);
  std::vector<std::vector<float>> foreign_memories = {
      {}, {1}, {3, 1, 4, 1, 5}, std::vector<float>(100, nan)};
  foreign_memories.push_back({12345.0f, nan, -1.0f, 0.0f, 1e30f});
  while (foreign_memories.back().size() > 1) {
    foreign_memories.push_back(foreign_memories.back());
    foreign_memories.back().pop_back();
  }
  for (const std::vector<float>& foreign : foreign_memories) {
    SCOPED_TRACE(absl::StrCat("a foreign memory of ", foreign.size()));
    std::vector<float> memory = foreign;
    ASSERT_EQ(EncodeNext(*codec, first, &memory), Encode(*codec, first));
    if (!has_memory) {
      ASSERT_EQ(memory.size(), foreign.size());
    }
  }
  // That of a longer tensor is a foreign one, too, or is of use.
  std::vector<float> longer_memory;
  EncodeNext(*codec, MakeTestData(TestData::kNormal, 3 * kCount, 13),
             &longer_memory);
  DecodeForTest(*codec, EncodeNext(*codec, first, &longer_memory), kCount);

  std::vector<float> memory;
  for (uint32_t call = 0; call < 10; ++call) {
    SCOPED_TRACE(absl::StrCat("call ", call));
    std::vector<float> values = MakeTestData(
        call == 7 ? TestData::kZero : TestData::kNormal, kCount, 14 + call);
    for (float& value : values) value *= std::ldexp(1.0f, call % 4);
    const bool is_spoiled = call == 3 || call == 5;
    if (call == 3) values[500] = std::numeric_limits<float>::infinity();
    if (call == 5) values[kCount / 2] = nan;
    std::vector<float> same_memory = memory;
    const std::vector<uint8_t> payload = EncodeNext(*codec, values, &memory);

    EXPECT_EQ(EncodeNext(*codec, values, &same_memory), payload);
    EXPECT_EQ(same_memory, memory);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(),
                            [](float value) { return std::isfinite(value); }));
    const std::vector<float> out =
        DecodeForTest(*MakeForCase(test, test.codec), payload, values.size());
    if (is_spoiled) continue;
    EXPECT_TRUE(std::all_of(out.begin(), out.end(),
                            [](float value) { return std::isfinite(value); }));
  }
}

void CheckAllocations(const ConformanceCase& test) {
  // A codec of another device is tried with copies there and back.
  if (!AllocationMeter::is_counting() || test.make != nullptr) return;
  const auto codec = MakeForTest(test.codec);
  ASSERT_NE(codec, nullptr);
  // zstd's tables are as large as the worst chunk so far needed: what packs
  // worst comes first.
  const TestData first = absl::StrContains(test.codec, "error_bound")
                             ? TestData::kMixed
                             : TestData::kNormal;
  for (const size_t count : {1, 5000}) {
    SCOPED_TRACE(absl::StrCat(count, " elements"));
    const AllocationMeter proof;
    std::vector<uint8_t> payload(codec->MaxPayloadBytes(count));
    std::vector<float> out(count);
    ASSERT_GT(proof.bytes(), 0) << "the meter does not count";
    std::vector<float> memory;
    RandomKey key = kKey;
    for (const TestData data :
         {first, first, TestData::kNormal, TestData::kZero,
          TestData::kHeavyTailed, TestData::kMixed}) {
      const bool is_warm = key.step >= kKey.step + 2;
      SCOPED_TRACE(TestDataName(data));
      const std::vector<float> in = MakeTestData(data, count, 15 + key.step);
      const AllocationMeter encode;
      const auto size = codec->Encode(in, key, absl::MakeSpan(payload));
      const int64_t encode_bytes = encode.bytes();
      ASSERT_TRUE(size.ok()) << size.status();
      const AllocationMeter decode;
      const absl::Status status = codec->Decode(
          absl::MakeConstSpan(payload).first(*size), absl::MakeSpan(out));
      const int64_t decode_bytes = decode.bytes();
      ASSERT_TRUE(status.ok()) << status;
      const AllocationMeter next;
      const auto next_size =
          codec->EncodeNext(in, key, &memory, absl::MakeSpan(payload));
      const int64_t next_bytes = next.bytes();
      ASSERT_TRUE(next_size.ok()) << next_size.status();
      ++key.step;
      if (!is_warm) continue;
      EXPECT_EQ(encode_bytes, 0) << "allocated by Encode";
      EXPECT_EQ(decode_bytes, 0) << "allocated by Decode";
      EXPECT_EQ(next_bytes, 0) << "allocated by EncodeNext";
    }
  }
}

void CheckConformance(const ConformanceCase& test) {
  SCOPED_TRACE(test.codec);
  CheckRoundTrips(test);
  CheckNonFinite(test);
  CheckDamage(test);
  CheckFlippedBits(test);
  CheckBitsPerElement(test);
  CheckRandomness(test);
  CheckMemory(test);
  CheckAllocations(test);
}

}  // namespace deltapipe
