// What the conformance kit asks of damaged payloads.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/round_trip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr RandomKey kKey{0x1234567890ABCDEF, 3, 14, 15, 1};

std::vector<uint8_t> Encode(const Codec& codec, absl::Span<const float> in) {
  return EncodeForTest(codec, in, {kKey});
}

// Every shorter size of a payload of a few kB, else some; and longer ones.
std::vector<size_t> WrongSizes(size_t size, std::mt19937* generator) {
  constexpr size_t kMostCuts = 5000;
  std::vector<size_t> sizes;
  for (size_t cut = 0; cut < std::min(size, kMostCuts); ++cut) {
    sizes.push_back(size <= kMostCuts ? cut : (*generator)() % size);
  }
  if (size > 0) sizes.push_back(size - 1);
  for (size_t more = 1; more <= 10; ++more) sizes.push_back(size + more);
  return sizes;
}

// Which bytes of a payload belong to more than one block.
struct SharedBytes {
  const char* words;  // that the codec's text has
  int num_bytes;      // -1: it is not said how many
  const char* why;
};

// The first that fits counts. What is not here has none; codecs whose size
// varies (error_bound, nonzero, prune) and those with one block (topk, lowrank)
// are not asked: there a bit may move all that follows.
constexpr SharedBytes kSharedBytes[] = {
    {"channel=slow", -1, "each scale of a channel is one of all rows"},
    {"head=16,row=50", -1, "heads begin within blocks of the codec inside"},
    {"scale=", 0, "floats need no octave"},
    {"int(", 1, "the octave that 8-bit scales count from"},
    {"fp(auto", 1, "the split"},
};

int NumSharedBytes(const ConformanceCase& test) {
  for (const SharedBytes& shared : kSharedBytes) {
    if (absl::StrContains(test.codec, shared.words)) return shared.num_bytes;
  }
  return 0;
}

// Whether elements of more than one block differ in their bits.
bool DifferInSeveralBlocks(const ConformanceCase& test,
                           absl::Span<const float> a,
                           absl::Span<const float> b) {
  std::optional<size_t> block;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) == 0) continue;
    if (block.has_value() && *block != BlockOf(test, i)) return true;
    block = BlockOf(test, i);
  }
  return false;
}

}  // namespace

void CheckDamage(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  std::mt19937 generator(8);
  for (const size_t count : {0, 1, 64, 1001, 4096}) {
    SCOPED_TRACE(absl::StrCat(count, " elements"));
    const std::vector<float> values = MakeTestData(TestData::kNormal, count, 8);
    const std::vector<uint8_t> payload = Encode(*codec, values);
    std::vector<float> out(count);

    // Short and long; each payload in memory of exactly its size.
    for (const size_t size : WrongSizes(payload.size(), &generator)) {
      const auto wrong = std::make_unique<uint8_t[]>(size);
      std::copy_n(payload.begin(), std::min(size, payload.size()), wrong.get());
      const absl::Status status = codec->Decode(
          absl::MakeConstSpan(wrong.get(), size), absl::MakeSpan(out));
      ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
          << size << " of " << payload.size() << " bytes";
      if (!codec->traits().has_fixed_size) continue;
      ASSERT_THAT(std::string(status.message()),
                  HasSubstr(absl::StrCat("payload of ", size,
                                         " bytes, expected ", payload.size())));
    }
    for (int i = 0; i < 200 && !payload.empty(); ++i) {
      std::vector<uint8_t> damaged(payload);
      const int num_flips = 1 << (i % 8);
      for (int flip = 0; flip < num_flips; ++flip) {
        damaged[generator() % damaged.size()] =
            static_cast<uint8_t>(generator());
      }
      // Either answer is right.
      codec->Decode(damaged, absl::MakeSpan(out)).IgnoreError();
    }
    if (!payload.empty()) {
      std::vector<uint8_t> small(codec->MaxPayloadBytes(count) - 1);
      EXPECT_EQ(
          codec->Encode(values, kKey, absl::MakeSpan(small)).status().code(),
          absl::StatusCode::kInvalidArgument);
    }
  }
}

void CheckFlippedBits(const ConformanceCase& test) {
  const auto codec = MakeForCase(test, test.codec);
  ASSERT_NE(codec, nullptr);
  const bool has_blocks = test.block_of != nullptr || test.block != 0;
  const int num_shared = NumSharedBytes(test);
  if (!codec->traits().has_fixed_size || !has_blocks || num_shared < 0) return;
  const size_t count = std::max<size_t>(2051, 3 * test.block + 5);
  const std::vector<float> values = MakeTestData(TestData::kNormal, count, 17);
  const std::vector<uint8_t> payload = Encode(*codec, values);
  const std::vector<float> sent = DecodeForTest(*codec, payload, count);
  std::vector<float> out(count);
  std::mt19937 generator(18);
  std::vector<size_t> shared;

  for (size_t byte = 0; byte < payload.size(); ++byte) {
    bool hits_several = false;
    // All bits of what comes first, where fields of the message are.
    const int num_bits = byte < 64 ? 8 : 1;
    for (int i = 0; i < num_bits && !hits_several; ++i) {
      const int bit = num_bits == 8 ? i : static_cast<int>(generator() % 8);
      std::vector<uint8_t> damaged(payload);
      damaged[byte] ^= static_cast<uint8_t>(1 << bit);
      hits_several = codec->Decode(damaged, absl::MakeSpan(out)).ok() &&
                     DifferInSeveralBlocks(test, sent, out);
    }
    if (hits_several) shared.push_back(byte);
  }

  EXPECT_LE(shared.size(), static_cast<size_t>(num_shared))
      << "bytes that change values of several blocks: "
      << absl::StrJoin(shared, ", ");
}

}  // namespace deltapipe
