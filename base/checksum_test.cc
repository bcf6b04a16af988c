#include "base/checksum.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

namespace deltapipe {
namespace {

std::vector<uint8_t> Bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

TEST(ChecksumTest, KnownAnswerOfNothing) {
  // XXH3-64 of the empty input with seed 0, as xxHash documents it. The frame
  // format depends on it.
  EXPECT_EQ(Checksum({}), 0x2D06800538D394C2u);
}

TEST(ChecksumTest, EveryDamagedBitChangesIt) {
  std::vector<uint8_t> bytes = Bytes(300);
  std::set<uint64_t> sums = {Checksum(bytes)};

  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    sums.insert(Checksum(bytes));
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }

  EXPECT_EQ(sums.size(), 8 * bytes.size() + 1);
}

TEST(ChecksumTest, SeedChangesIt) {
  const std::vector<uint8_t> bytes = Bytes(64);

  EXPECT_NE(Checksum(bytes, 1), Checksum(bytes, 2));
}

class ChecksumStreamTest : public testing::TestWithParam<size_t> {};

TEST_P(ChecksumStreamTest, EqualsTheChecksumOfTheConcatenation) {
  const std::vector<uint8_t> bytes = Bytes(5000);
  const absl::Span<const uint8_t> all(bytes);

  ChecksumStream stream;
  for (size_t begin = 0; begin < bytes.size(); begin += GetParam()) {
    stream.Update(all.subspan(begin, GetParam()));
  }
  stream.Update({});

  EXPECT_EQ(stream.Digest(), Checksum(bytes));
  EXPECT_EQ(stream.Digest(), Checksum(bytes)) << "Digest changes nothing";
}

INSTANTIATE_TEST_SUITE_P(PieceSizes, ChecksumStreamTest,
                         testing::Values(1, 7, 256, 1000, 5000));

}  // namespace
}  // namespace deltapipe
