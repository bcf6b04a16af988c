#include "compression/delta/delta_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/float_cast.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr RandomKey kKey{11, 2, 3, 4, 1};

std::vector<IntFormat> Formats() {
  std::vector<IntFormat> formats;
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t block : {16, 48, 64, 4096}) {
      formats.push_back({bits, block, false, true});
      formats.push_back({bits, block, false, false});
      formats.push_back({bits, block, true, false});
    }
    formats.push_back({bits, 64, false, true, IntClipModel::kLaplace});
  }
  return formats;
}

std::string Name(const IntFormat& format) {
  return absl::StrCat(format.bits, " bits, block ", format.block,
                      format.is_stochastic   ? ", stochastic"
                      : format.searches_clip ? ", search"
                                             : ", minmax");
}

// A sample's values of nearly one size, but for a run of `count` / 4 that is
// 2^octaves larger: two passes where octaves are many.
std::vector<float> EvenValues(std::mt19937* random, size_t count, int octaves) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const bool is_in_run = i >= count / 2 && i < count / 2 + count / 4;
    values[i] = std::ldexp(normal(*random), is_in_run ? octaves : 0);
  }
  return values;
}

// Runs of all sizes, and now and then a value that is not finite.
std::vector<float> Values(std::mt19937* random, size_t count) {
  std::normal_distribution<float> normal;
  const float sizes[] = {1, 1e-3f, 0, 1e-42f, 1e30f, 3e38f, 1, 1};
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = normal(*random) * sizes[i / 320 % 8];
    if ((*random)() % 1500 == 0) {
      values[i] = (*random)() % 2 == 0
                      ? std::numeric_limits<float>::quiet_NaN()
                      : -std::numeric_limits<float>::infinity();
    }
  }
  return values;
}

template <typename Store>
std::shared_ptr<Record> RecordOf(const std::vector<float>& values) {
  auto record =
      NewRecord(1, static_cast<int64_t>(values.size() * sizeof(Store)));
  StoreRecord(values.data(), reinterpret_cast<Store*>(record->values.data()),
              static_cast<int64_t>(values.size()));
  return record;
}

// What one row becomes.
struct Row {
  SquaredNorms norms, sent;
  std::vector<uint8_t> payload, next;
};

// One whole tensor after another.
template <typename Store>
Row Unfused(const IntFormat& format, const std::vector<float>& value,
            const Record& base) {
  const int64_t count = static_cast<int64_t>(value.size());
  Row row;
  row.payload.resize(IntPayloadBytes(format, count));
  row.next.resize(count * sizeof(Store));
  std::vector<float> difference(count), restored(count);
  row.norms = SubtractRecord(value.data(), base.elements<Store>(),
                             difference.data(), count);
  IntQuantize(format, difference, kKey, row.payload.data());
  IntDequantize(format, row.payload.data(), absl::MakeSpan(restored));
  Store* const next = reinterpret_cast<Store*>(row.next.data());
  AddToRecord(base.elements<Store>(), restored.data(), next, count);
  row.sent = SubtractRecord(value.data(), next, difference.data(), count);
  return row;
}

// `pays`: for rows of which that is asked.
template <typename Store>
Row Fused(const IntFormat& format, const std::vector<float>& value,
          const Record& base, DeltaTiles::Pays pays) {
  const int64_t count = static_cast<int64_t>(value.size());
  Row row;
  row.payload.assign(IntPayloadBytes(format, count), 0x55);
  const auto next = NewRecord(2, count * sizeof(Store));
  bool is_refused = true;
  bool is_finite = false;
  DeltaTiles tiles(
      format, sizeof(Store) == sizeof(float), count,
      [&](const SquaredNorms& norms) { return !is_refused && pays(norms); });
  // Rows that do not pay leave nothing behind.
  EXPECT_FALSE(
      tiles.Encode(value.data(), *RecordOf<Store>(value), RandomKey(),
                   {row.payload.data(), next.get(), &row.sent, &is_finite}));
  is_refused = false;
  EXPECT_TRUE(
      tiles.Encode(value.data(), base, kKey,
                   {row.payload.data(), next.get(), &row.sent, &is_finite}));
  EXPECT_TRUE(!is_finite ||
              std::all_of(value.begin(), value.end(),
                          [](float x) { return std::isfinite(x); }));
  row.next.assign(next->values.data(),
                  next->values.data() + next->values.size());
  return row;
}

bool PaysAlways(const SquaredNorms&) { return true; }

bool PaysIfSmaller(const SquaredNorms& norms) {
  return norms.difference < norms.value;
}

bool SameBits(double a, double b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0 ||
         (std::isnan(a) && std::isnan(b));
}

void ExpectEqual(const Row& row, const Row& expected) {
  ASSERT_EQ(row.payload, expected.payload);
  ASSERT_EQ(row.next, expected.next);
  ASSERT_TRUE(SameBits(row.sent.value, expected.sent.value));
  ASSERT_TRUE(SameBits(row.sent.difference, expected.sent.difference));
}

template <typename Store>
void CheckFormats(const std::vector<float>& value, const Record& base) {
  for (const IntFormat& format : Formats()) {
    SCOPED_TRACE(absl::StrCat(Name(format), ", ", value.size(), " elements"));
    const Row expected = Unfused<Store>(format, value, base);
    ForEachVectorTarget([&] {
      ExpectEqual(Fused<Store>(format, value, base, PaysAlways), expected);
    });
  }
}

template <typename Store>
void CheckAllFormats(uint32_t seed) {
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (const size_t count : {1, 63, 64, 1000, 1024, 4097, 9999}) {
    const std::vector<float> value = Values(&random, count);
    CheckFormats<Store>(value, *RecordOf<Store>(Values(&random, count)));
  }
  for (const int octaves : {0, 3, -3, 12, -12, 40, -40}) {
    SCOPED_TRACE(absl::StrCat(octaves, " octaves"));
    const std::vector<float> value = EvenValues(&random, 9999, octaves);
    std::vector<float> base = EvenValues(&random, 9999, octaves);
    for (float& x : base) x *= 0.125f;
    CheckFormats<Store>(value, *RecordOf<Store>(base));
  }
}

TEST(DeltaTilesTest, RowsInBfloat16AreThoseOfWholeTensors) {
  for (uint32_t seed = 1; seed <= 2; ++seed) CheckAllFormats<uint16_t>(seed);
}

TEST(DeltaTilesTest, RowsInFloat32AreThoseOfWholeTensors) {
  for (uint32_t seed = 3; seed <= 4; ++seed) CheckAllFormats<float>(seed);
}

TEST(DeltaTilesTest, NormsThatNobodyAsksForChangeNothing) {
  std::mt19937 random(5);
  const IntFormat format{4, 64, false, true};
  const std::vector<float> value = Values(&random, 3000);
  const auto base = RecordOf<uint16_t>(Values(&random, 3000));
  const Row expected = Unfused<uint16_t>(format, value, *base);
  std::vector<uint8_t> payload(expected.payload.size());
  const auto next = NewRecord(2, 6000);
  DeltaTiles tiles(format, false, 3000, PaysAlways);

  EXPECT_TRUE(tiles.Encode(value.data(), *base, kKey,
                           {payload.data(), next.get(), nullptr}));

  EXPECT_EQ(payload, expected.payload);
  EXPECT_EQ(std::memcmp(next->values.data(), expected.next.data(), 6000), 0);
}

// A row that pays as a whole only, from its middle on.
TEST(DeltaTilesTest, BeginningsThatDoNotPayChangeNothing) {
  std::mt19937 random(6);
  const IntFormat format{4, 64, true, false};
  const std::vector<float> value = EvenValues(&random, 9999, 0);
  std::vector<float> base = value;
  for (size_t i = 0; i < 2500; ++i) base[i] *= -1;
  const auto record = RecordOf<uint16_t>(base);
  const Row expected = Unfused<uint16_t>(format, value, *record);

  ForEachVectorTarget([&] {
    ExpectEqual(Fused<uint16_t>(format, value, *record,
                                [](const SquaredNorms& norms) {
                                  return norms.difference <= 1.5 * norms.value;
                                }),
                expected);
  });
}

// Limits that an estimate of the norms cannot tell from the norms.
template <typename Store>
void CheckDecisions(uint32_t seed, float size) {
  std::mt19937 random(seed);
  const IntFormat format{4, 64, false, true};
  const size_t count = 1 + random() % 9999;
  std::vector<float> value = EvenValues(&random, count, 0);
  std::vector<float> base = EvenValues(&random, count, 0);
  for (size_t i = 0; i < count; ++i) {
    value[i] *= size;
    base[i] *= size;
  }
  const auto record = RecordOf<Store>(base);
  const SquaredNorms norms = Unfused<Store>(format, value, *record).norms;
  std::vector<uint8_t> payload(IntPayloadBytes(format, count));
  const auto next = NewRecord(2, count * sizeof(Store));
  for (const double part : {0.5, 1 - 1e-5, 1 - 1e-12, 1.0, 1 + 1e-12, 2.0}) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", size ", size, ", part ", part));
    const double limit = part * norms.difference / norms.value;
    const auto pays = [limit](const SquaredNorms& norms) {
      return std::isfinite(norms.value) &&
             norms.difference <= limit * norms.value;
    };
    DeltaTiles tiles(format, sizeof(Store) == sizeof(float), count, pays);

    ASSERT_EQ(tiles.Encode(value.data(), *record, kKey,
                           {payload.data(), next.get(), nullptr}),
              pays(norms));
  }
}

TEST(DeltaTilesTest, WhetherARowPaysIsDecidedByItsExactNorms) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    for (const float size : {1.0f, 1e-15f, 1e-30f, 1e15f, 1e25f}) {
      CheckDecisions<uint16_t>(seed, size);
      CheckDecisions<float>(seed, size);
    }
  }
}

TEST(DeltaTilesTest, RowsOfWhichOnlyTheBeginningPaysAreRefused) {
  std::mt19937 random(7);
  const std::vector<float> value = EvenValues(&random, 9999, 0);
  std::vector<float> base = value;
  for (size_t i = 5000; i < 9999; ++i) base[i] *= -1;
  const IntFormat format{4, 64, false, true};
  std::vector<uint8_t> payload(IntPayloadBytes(format, 9999));
  const auto next = NewRecord(2, 2 * 9999);
  DeltaTiles tiles(format, false, 9999, PaysIfSmaller);

  EXPECT_FALSE(tiles.Encode(value.data(), *RecordOf<uint16_t>(base), kKey,
                            {payload.data(), next.get(), nullptr}));
}

}  // namespace
}  // namespace deltapipe
