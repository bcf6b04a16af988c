#include "compression/delta/delta_tiles.h"

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

// A sample's values, runs of all sizes, and now and then one that is not
// finite.
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

template <typename Store>
Row Fused(const IntFormat& format, const std::vector<float>& value,
          const Record& base) {
  const int64_t count = static_cast<int64_t>(value.size());
  Row row;
  row.payload.assign(IntPayloadBytes(format, count), 0x55);
  DeltaTiles tiles(format, sizeof(Store) == sizeof(float), count);
  // Rows that a first pass refused leave nothing behind.
  tiles.Measure(value.data(), *RecordOf<Store>(value), RandomKey(),
                row.payload.data());
  const auto next = NewRecord(2, count * sizeof(Store));
  row.norms = tiles.Measure(value.data(), base, kKey, row.payload.data());
  tiles.Encode(value.data(), base, next.get(), &row.sent);
  row.next.assign(next->values.data(),
                  next->values.data() + next->values.size());
  return row;
}

bool SameBits(double a, double b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0 ||
         (std::isnan(a) && std::isnan(b));
}

template <typename Store>
void CheckAllFormats(uint32_t seed) {
  std::mt19937 random(seed);
  for (const size_t count : {1, 63, 64, 1000, 1024, 4097, 9999}) {
    const std::vector<float> value = Values(&random, count);
    const auto base = RecordOf<Store>(Values(&random, count));
    for (const IntFormat& format : Formats()) {
      SCOPED_TRACE(
          absl::StrCat(Name(format), ", ", count, " elements, seed ", seed));
      const Row expected = Unfused<Store>(format, value, *base);
      ForEachVectorTarget([&] {
        const Row row = Fused<Store>(format, value, *base);

        ASSERT_EQ(row.payload, expected.payload);
        ASSERT_EQ(row.next, expected.next);
        ASSERT_TRUE(SameBits(row.norms.value, expected.norms.value));
        ASSERT_TRUE(SameBits(row.norms.difference, expected.norms.difference));
        ASSERT_TRUE(SameBits(row.sent.value, expected.sent.value));
        ASSERT_TRUE(SameBits(row.sent.difference, expected.sent.difference));
      });
    }
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
  DeltaTiles tiles(format, false, 3000);

  tiles.Measure(value.data(), *base, kKey, payload.data());
  tiles.Encode(value.data(), *base, next.get(), nullptr);

  EXPECT_EQ(payload, expected.payload);
  EXPECT_EQ(std::memcmp(next->values.data(), expected.next.data(), 6000), 0);
}

}  // namespace
}  // namespace deltapipe
