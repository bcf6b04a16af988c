// What every codec must keep, whatever it does: the promises of codec.h,
// checked for one codec text at a time. compression/codec_conformance_test.cc
// runs it over every row of codecs.def; a new codec adds its parameter sets
// there.
//
//   CheckRoundTrips({"int(4)", 64});  // adds gtest failures
//
// All inputs come from fixed seeds. Used from tests only.
#ifndef DELTAPIPE_COMPRESSION_TESTING_CODEC_CONFORMANCE_H_
#define DELTAPIPE_COMPRESSION_TESTING_CODEC_CONFORMANCE_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compression/codec.h"

namespace deltapipe {

enum class TestData {
  kNormal,
  kHeavyTailed,  // Student's t with 3 degrees of freedom
  kConstant,
  kZero,
  kAlternating,  // +1, -1
  kSubnormal,
  kHuge,     // normal, times 1e30
  kLargest,  // +-FLT_MAX
  kMixed,    // blocks of all the finite kinds in one tensor
};

inline constexpr TestData kAllTestData[] = {
    TestData::kNormal, TestData::kHeavyTailed, TestData::kConstant,
    TestData::kZero,   TestData::kAlternating, TestData::kSubnormal,
    TestData::kHuge,   TestData::kLargest,     TestData::kMixed,
};

std::string TestDataName(TestData data);
std::vector<float> MakeTestData(TestData data, size_t count, uint32_t seed);

/// ||x - y|| / ||x||.
double RelativeRmsError(const std::vector<float>& x,
                        const std::vector<float>& y);

/// A codec and the number of values that share a scale: 1 where each value
/// stands alone, 0 where the whole payload is one block.
struct ConformanceCase {
  std::string codec;
  size_t block = 1;
  /// The block of an element, where blocks are not runs of `block` elements.
  size_t (*block_of)(size_t element) = nullptr;
  /// Where a NaN spoils fewer values than share a scale: how many; 0: as many.
  size_t spoiled_block = 0;
  /// What makes the codec; null: MakeCodec.
  absl::StatusOr<std::unique_ptr<Codec>> (*make)(absl::string_view text) =
      nullptr;
};
inline std::ostream& operator<<(std::ostream& out,
                                const ConformanceCase& test) {
  return out << test.codec;
}

/// What makes `text` in this case; null after a failure of the running test.
std::unique_ptr<Codec> MakeForCase(const ConformanceCase& test,
                                   const std::string& text);
/// The block of an element.
size_t BlockOf(const ConformanceCase& test, size_t element);

/// All kinds of data at sizes 0, 1, odd, up to 4,099, at unaligned addresses:
/// encodes within MaxPayloadBytes (exactly that, for a fixed size), nothing
/// written past it, decodes to finite values within ErrorBound; the same bytes
/// for the same key and for MakeCodec(text()); lossless where it says so.
void CheckRoundTrips(const ConformanceCase& test);

/// One tensor of 4 Mi normal values, as CheckRoundTrips.
void CheckLargeTensor(const ConformanceCase& test);

/// A block with a NaN or an infinity encodes and decodes; the other blocks
/// decode as if that one were zero.
void CheckNonFinite(const ConformanceCase& test);

/// Payloads of a wrong length, cut at every byte where they are a few kB, are
/// INVALID_ARGUMENT, with both sizes where the size is fixed; payloads with
/// random damage decode or fail, within bounds (the sanitizers watch); too
/// small an output is INVALID_ARGUMENT.
void CheckDamage(const ConformanceCase& test);

/// Of a payload of fixed size with blocks: a flipped bit, any one in the first
/// 64 bytes and one of each other byte, is an error or changes values of one
/// block alone. Which codecs have bytes that blocks share is listed beside it.
void CheckFlippedBits(const ConformanceCase& test);

/// The claim of traits().bits_per_element: of a fixed size to 1 % at 2^36
/// elements, else to 20 % for 2^16 normal values.
void CheckBitsPerElement(const ConformanceCase& test);

/// For traits().is_unbiased: the mean over keys is the input (z-test), and of
/// 10^6 elements the mean error is within 6.2 standard errors. For
/// traits().is_stochastic: what the errors of neighbours and of keys that
/// differ in one field have beyond their means is uncorrelated; of neighbours
/// among 10^6 elements |r| < 0.01. For is_random:
/// another key gives other bytes. For others: the key changes nothing.
void CheckRandomness(const ConformanceCase& test);

/// For traits().has_memory: EncodeNext with an empty memory or with that of
/// another codec writes what Encode writes; from the same memory it writes the
/// same bytes and leaves the same memory; payloads decode by themselves, to
/// finite values, and a NaN or infinity in one tensor gets neither into the
/// memory nor into the next. For others: EncodeNext is Encode.
void CheckMemory(const ConformanceCase& test);

/// Once a thread has encoded and decoded a size, Encode, EncodeNext and Decode
/// of that size allocate nothing, whatever the values and the key; but
/// `error_bound`, whose zstd may first have to see worse ones. Checked where
/// something counts (allocation_meter.h).
void CheckAllocations(const ConformanceCase& test);

/// All of the above but CheckLargeTensor.
void CheckConformance(const ConformanceCase& test);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_CODEC_CONFORMANCE_H_
