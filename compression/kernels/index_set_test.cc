#include "compression/kernels/index_set.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

std::vector<uint8_t> Write(const IndexSetLayout& layout,
                           const std::vector<int64_t>& indices) {
  std::vector<uint8_t> bytes(layout.bytes(), 0xEE);
  IndexSetWriter writer(layout, bytes.data());
  for (const int64_t index : indices) writer.Add(index);
  return bytes;
}

// What is read before an error.
std::vector<int64_t> Read(const IndexSetLayout& layout,
                          const std::vector<uint8_t>& bytes, bool* is_valid) {
  IndexSetReader reader(layout, bytes.data());
  std::vector<int64_t> indices;
  *is_valid = false;
  for (int64_t i = 0; i < layout.k; ++i) {
    indices.push_back(reader.Next());
    if (indices.back() < 0) return indices;
  }
  *is_valid = reader.IsAtEnd();
  return indices;
}

std::vector<int64_t> RandomSet(int64_t n, int64_t k, std::mt19937* generator) {
  std::vector<int64_t> all(n);
  for (int64_t i = 0; i < n; ++i) all[i] = i;
  std::shuffle(all.begin(), all.end(), *generator);
  all.resize(k);
  std::sort(all.begin(), all.end());
  return all;
}

TEST(IndexSetTest, AnySetComesBack) {
  std::mt19937 generator(1);
  for (const int64_t n : {1, 2, 7, 8, 9, 64, 100, 1000, 4099}) {
    for (const int64_t k :
         {int64_t{0}, int64_t{1}, n / 50, n / 7, n / 3, n / 2, n - 1, n}) {
      const IndexSetLayout layout(n, k);
      const std::vector<int64_t> indices = RandomSet(n, k, &generator);

      bool is_valid;
      const auto read = Read(layout, Write(layout, indices), &is_valid);

      EXPECT_TRUE(is_valid) << k << " of " << n;
      ASSERT_EQ(read, indices) << k << " of " << n;
    }
  }
}

TEST(IndexSetTest, TheFirstAndLastElementsOfALargeTensorFit) {
  const int64_t n = (int64_t{1} << 40) + 3;
  const IndexSetLayout layout(n, 3);
  bool is_valid;

  EXPECT_THAT(
      Read(layout, Write(layout, {0, int64_t{1} << 39, n - 1}), &is_valid),
      ElementsAre(0, int64_t{1} << 39, n - 1));
  EXPECT_TRUE(is_valid);
}

TEST(IndexSetTest, SizesAreNearTheEntropyAndNeverAboveABitmap) {
  EXPECT_EQ(IndexSetLayout(1000, 0).bytes(), 0);
  EXPECT_EQ(IndexSetLayout(1000, 1000).bytes(), 0);
  EXPECT_EQ(IndexSetLayout(1000, 500).bytes(), 125);
  for (const double ratio : {0.001, 0.01, 0.03, 0.1}) {
    const int64_t n = 1 << 20;
    const auto k = static_cast<int64_t>(ratio * n);
    const double entropy =
        n * -(ratio * std::log2(ratio) + (1 - ratio) * std::log2(1 - ratio));

    EXPECT_LE(8 * IndexSetLayout(n, k).bytes(), entropy + 0.6 * k) << ratio;
  }
}

TEST(IndexSetTest, DamagedBytesGiveIndicesInOrderOrAnError) {
  std::mt19937 generator(2);
  int num_errors = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    const int64_t n = 50 + generator() % 500;
    const IndexSetLayout layout(n, 1 + generator() % (n - 1));
    std::vector<uint8_t> bytes =
        Write(layout, RandomSet(n, layout.k, &generator));
    bytes[generator() % bytes.size()] = static_cast<uint8_t>(generator());

    bool is_valid;
    const std::vector<int64_t> indices = Read(layout, bytes, &is_valid);

    num_errors += !is_valid;
    if (!is_valid) continue;
    ASSERT_TRUE(std::is_sorted(indices.begin(), indices.end()));
    ASSERT_LT(indices.back(), n);
    ASSERT_EQ(Write(layout, indices), bytes) << "two codes for one set";
  }
  EXPECT_GT(num_errors, 500);
}

}  // namespace
}  // namespace deltapipe
