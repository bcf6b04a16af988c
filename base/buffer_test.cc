#include "base/buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "base/thread.h"

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

TEST(BufferTest, ResetKeepsABlockThatIsLargeEnough) {
  Buffer buffer(1000);
  const uint8_t* const data = buffer.data();

  buffer.Truncate(3);
  buffer.Reset(900);
  EXPECT_EQ(buffer.data(), data);
  EXPECT_EQ(buffer.size(), 900);

  buffer.Reset(5000);
  std::memset(buffer.data(), 1, 5000);
  EXPECT_EQ(buffer.size(), 5000);
}

TEST(BufferTest, ResetTakesABlockWhereThereIsNone) {
  std::vector<uint8_t> bytes = {1, 2, 3};
  Buffer borrowed = Buffer::Borrow(absl::MakeSpan(bytes));
  Buffer moved(1000);
  const Buffer owner = std::move(moved);

  borrowed.Reset(2);
  std::memset(borrowed.data(), 9, 2);
  moved.Reset(10);
  std::memset(moved.data(), 9, 10);

  EXPECT_THAT(bytes, ElementsAre(1, 2, 3));
  EXPECT_NE(moved.data(), owner.data());
  EXPECT_THROW(moved.Reset(-1), std::bad_alloc);
  EXPECT_TRUE(moved.empty());
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(BufferTest, ALargeBlockIsUsedAgainForAboutTheSameSize) {
  const int64_t size = (3 << 20) - 2000;
  const uint8_t* data = nullptr;
  {
    const Buffer first(size);
    data = first.data();
  }

  const Buffer again(size + 1000);

  EXPECT_EQ(again.data(), data);
  EXPECT_EQ(again.size(), size + 1000);
}
#endif

TEST(BufferTest, BlocksThatAreInUseAreNotShared) {
  std::vector<Buffer> buffers;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 10; ++i) {
      buffers.emplace_back(1 << 20);
      std::memset(buffers.back().data(), i, 1 << 20);
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_EQ(buffers[i].data()[0], i);
      EXPECT_EQ(buffers[i].data()[(1 << 20) - 1], i);
    }
    buffers.clear();
  }
}

TEST(BufferTest, ThreadsMayPassBlocksOn) {
  std::vector<Thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back("passer", [t] {
      for (int i = 0; i < 200; ++i) {
        Buffer buffer((1 << 18) + (i % 3) * (1 << 16));
        std::memset(buffer.data(), t, static_cast<size_t>(buffer.size()));
        Buffer moved = std::move(buffer);
        EXPECT_EQ(moved.data()[moved.size() / 2], t);
      }
    });
  }
}

TEST(BufferTest, ImpossibleSizesThrowInsteadOfGivingNoMemory) {
  EXPECT_THROW(Buffer(-1), std::bad_alloc);
  EXPECT_THROW(Buffer(INT64_MAX), std::bad_alloc);
}

}  // namespace
}  // namespace deltapipe
