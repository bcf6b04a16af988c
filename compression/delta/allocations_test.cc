// What delta and ef allocate once a channel is warm: bookkeeping of a sample,
// nothing that grows with the tensor.
#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "compression/delta/boundary_codec.h"
#include "gtest/gtest.h"

// A sanitizer's allocator is its own, and frees blocks at once.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DP_ALLOCATOR_IS_TAKEN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define DP_ALLOCATOR_IS_TAKEN
#endif
#endif

namespace {

std::atomic<int64_t> allocated_bytes{0};
std::atomic<int64_t> largest_bytes{0};

void Count(size_t size) {
  const int64_t bytes = static_cast<int64_t>(size);
  allocated_bytes += bytes;
  int64_t largest = largest_bytes;
  while (largest < bytes &&
         !largest_bytes.compare_exchange_weak(largest, bytes)) {
  }
}

}  // namespace

#if !defined(DP_ALLOCATOR_IS_TAKEN)
// In place of the C library's: tensors' and the small ones of C++.
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  Count(size);
  return memalign(alignment, size);
}
__attribute__((noinline)) void* operator new(size_t size) {
  Count(size);
  void* const data = std::malloc(size);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
__attribute__((noinline)) void operator delete(void* data) noexcept {
  std::free(data);
}
__attribute__((noinline)) void operator delete(void* data, size_t) noexcept {
  std::free(data);
}
#endif

namespace deltapipe {
namespace {

// 4 Mi elements: 1 bit each is more than the 256 KiB from which on buffers are
// used again.
constexpr int64_t kElements = int64_t{4} << 20;
// A record's name and place, rows, the nodes of a store's tables: 368 bytes to
// encode a sample, as many or a little more to decode and to commit it.
constexpr int64_t kMostBookkeeping = 1024;

class AllocationsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(AllocationsTest, AWarmChannelAllocatesNoTensors) {
#if defined(DP_ALLOCATOR_IS_TAKEN)
  GTEST_SKIP() << "a sanitizer allocates";
#endif
  const int64_t before = allocated_bytes;
  { const Buffer proof(1000); }
  ASSERT_GE(allocated_bytes - before, 1000) << "nothing counts";
  BoundaryOptions options;
  options.codec = GetParam();
  options.elements_per_sample = kElements;
  const auto encoder = BoundaryEncoder::Create(options).value();
  const auto decoder = BoundaryDecoder::Create(options).value();
  const std::vector<BoundarySample> samples = {{1, 0}};
  std::vector<float> values(kElements);
  std::vector<float> received(kElements);
  std::vector<uint64_t> missing;
  Buffer body;
  for (uint32_t step = 1; step <= 6; ++step) {
    for (int64_t i = 0; i < kElements; ++i) {
      values[static_cast<size_t>(i)] =
          static_cast<float>(i % 251 - 125) + 0.01f * static_cast<float>(step);
    }
    const bool is_warm = step > 4;
    largest_bytes = 0;
    const int64_t at_begin = allocated_bytes;

    const absl::Status encoded =
        encoder->Encode(step, samples, values, false, &body);
    const int64_t encoder_bytes = allocated_bytes - at_begin;
    const absl::Status decoded = decoder->Decode(
        step, samples, body.span(), false, absl::MakeSpan(received), &missing);
    encoder->CommitStep(step);
    decoder->CommitStep(step);
    const int64_t all_bytes = allocated_bytes - at_begin;

    ASSERT_TRUE(encoded.ok()) << encoded;
    ASSERT_TRUE(decoded.ok()) << decoded;
    ASSERT_TRUE(missing.empty());
    if (!is_warm) continue;
    RecordProperty("encoder_bytes", static_cast<int>(encoder_bytes));
    RecordProperty("all_bytes", static_cast<int>(all_bytes));
    EXPECT_LE(encoder_bytes, kMostBookkeeping);
    EXPECT_LE(all_bytes, 2 * kMostBookkeeping);
    EXPECT_LE(largest_bytes, kMostBookkeeping);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Wrappers, AllocationsTest,
    ::testing::Values("delta(int(4),first=int(8))",
                      "delta(sign,first=int(8),store=fp32)",
                      "delta(int(4),store=int(8))", "ef(sign)", "ef(int(4))",
                      "ef(int(4),store=int(8))"));

}  // namespace
}  // namespace deltapipe
