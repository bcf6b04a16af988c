#include "base/buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace deltapipe {
namespace {

using testing::ElementsAre;

TEST(BufferTest, IsAlignedForEverySize) {
  for (int64_t size = 1; size < 200; ++size) {
    const Buffer buffer(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0) << size;
    EXPECT_EQ(buffer.size(), size);
  }
}

TEST(BufferTest, EmptyBuffersHaveEmptySpans) {
  const Buffer none;
  const Buffer zero(0);

  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(zero.span().empty());
  EXPECT_TRUE(Buffer::CopyOf({}).empty());
}

TEST(BufferTest, CopyOfOwnsItsBytes) {
  std::vector<uint8_t> bytes = {1, 2, 3};
  const Buffer buffer = Buffer::CopyOf(bytes);

  bytes[0] = 9;

  EXPECT_THAT(buffer.span(), ElementsAre(1, 2, 3));
}

TEST(BufferTest, MovedFromBufferIsEmpty) {
  Buffer from = Buffer::CopyOf(std::vector<uint8_t>{1, 2, 3});
  const uint8_t* data = from.data();

  Buffer to(std::move(from));
  EXPECT_EQ(to.data(), data);
  EXPECT_TRUE(from.empty());

  Buffer assigned(100);
  assigned = std::move(to);
  EXPECT_THAT(assigned.span(), ElementsAre(1, 2, 3));
  EXPECT_TRUE(to.empty());
}

TEST(BufferTest, TruncateShortensOnly) {
  Buffer buffer = Buffer::CopyOf(std::vector<uint8_t>{1, 2, 3});

  buffer.Truncate(2);
  EXPECT_THAT(buffer.span(), ElementsAre(1, 2));

  buffer.Truncate(100);
  EXPECT_EQ(buffer.size(), 2);
}

TEST(BufferTest, ImpossibleSizesThrowInsteadOfGivingNoMemory) {
  EXPECT_THROW(Buffer(-1), std::bad_alloc);
  EXPECT_THROW(Buffer(INT64_MAX), std::bad_alloc);
}

}  // namespace
}  // namespace deltapipe
