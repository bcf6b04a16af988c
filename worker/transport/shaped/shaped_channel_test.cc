#include "worker/transport/shaped/shaped_channel.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

Deadline Soon() { return Deadline::After(seconds(20)); }
Deadline Shortly() { return Deadline::After(milliseconds(10)); }

// On a fake clock: only moving it moves messages.
class ShapedChannelTest : public ::testing::Test {
 protected:
  // A byte a microsecond.
  std::shared_ptr<LinkShaper> CreateLink(Nanos latency) {
    LinkOptions options;
    options.bits_per_second = 8e6;
    options.latency = latency;
    options.queue_bytes = 4000;
    options.clock = &clock_;
    return LinkShaper::Create(options).value();
  }

  std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> Open(
      std::shared_ptr<LinkShaper> link) {
    auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 20, "far", "near");
    return {ShapeChannel(std::move(ends.first), std::move(link)),
            std::move(ends.second)};
  }

  // A message that takes `bytes` on the link, its framing included.
  absl::Status SendBytes(Channel* channel, int bytes, Deadline deadline) {
    const std::vector<uint8_t> message(bytes - 8);
    return channel->Send({message}, deadline);
  }

  bool HasArrived(Channel* channel) { return channel->Receive(Shortly()).ok(); }

  FakeClock clock_;
};

TEST_F(ShapedChannelTest, AMessageArrivesTheLatencyAfterItsLastByte) {
  auto [near, far] = Open(CreateLink(milliseconds(5)));

  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  clock_.Advance(microseconds(5999));
  const bool is_early = HasArrived(far.get());
  clock_.Advance(microseconds(1));

  EXPECT_FALSE(is_early);
  EXPECT_TRUE(far->Receive(Soon()).ok());
}

TEST_F(ShapedChannelTest, MessagesFollowEachOtherWithoutWaitingForTheLatency) {
  auto [near, far] = Open(CreateLink(milliseconds(50)));
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());

  clock_.Advance(milliseconds(51));
  EXPECT_TRUE(far->Receive(Soon()).ok());
  EXPECT_FALSE(HasArrived(far.get()));
  clock_.Advance(milliseconds(1));

  EXPECT_TRUE(far->Receive(Soon()).ok());
}

TEST_F(ShapedChannelTest, ChannelsShareTheirLink) {
  auto link = CreateLink(Nanos(0));
  auto [near_one, far_one] = Open(link);
  auto [near_two, far_two] = Open(link);
  ASSERT_TRUE(SendBytes(near_one.get(), 1000, Soon()).ok());
  ASSERT_TRUE(SendBytes(near_two.get(), 1000, Soon()).ok());

  clock_.Advance(microseconds(1999));
  const bool is_one_early = HasArrived(far_one.get());
  const bool is_two_early = HasArrived(far_two.get());
  clock_.Advance(microseconds(1));

  EXPECT_FALSE(is_one_early);
  EXPECT_FALSE(is_two_early);
  EXPECT_TRUE(far_one->Receive(Soon()).ok());
  EXPECT_TRUE(far_two->Receive(Soon()).ok());
}

TEST_F(ShapedChannelTest, SendReturnsWhileTheQueueHasRoomThenBlocks) {
  auto [near, far] = Open(CreateLink(Nanos(0)));
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());
  absl::Status fifth;

  {
    Thread sender("sender", [&, channel = near.get()] {
      fifth = SendBytes(channel, 1000, Soon());
    });
    EXPECT_FALSE(HasArrived(far.get()));
    clock_.Advance(milliseconds(1));
    EXPECT_TRUE(far->Receive(Soon()).ok());
  }
  const absl::Status sixth = SendBytes(near.get(), 1000, Shortly());

  EXPECT_TRUE(fifth.ok()) << fifth;
  EXPECT_EQ(sixth.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ShapedChannelTest, TwoMessagesOfAnySizeFitTheQueue) {
  auto [near, far] = Open(CreateLink(Nanos(0)));

  EXPECT_TRUE(SendBytes(near.get(), 100000, Soon()).ok());
  EXPECT_TRUE(SendBytes(near.get(), 100000, Soon()).ok());
  EXPECT_EQ(SendBytes(near.get(), 100000, Shortly()).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ShapedChannelTest, CancelDropsTheQueue) {
  auto [near, far] = Open(CreateLink(Nanos(0)));
  ASSERT_TRUE(SendBytes(near.get(), 1000, Soon()).ok());

  near->Cancel(absl::CancelledError("enough"));
  clock_.Advance(seconds(1));

  EXPECT_EQ(far->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ShapedChannelTest, AFreeLinkAddsNothing) {
  LinkOptions options;
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 20, "far", "near");
  Channel* const inner = ends.first.get();

  auto channel =
      ShapeChannel(std::move(ends.first), LinkShaper::Create(options).value());

  EXPECT_EQ(channel.get(), inner);
}

TEST_F(ShapedChannelTest, RefusesImpossibleLinks) {
  LinkOptions negative;
  negative.bits_per_second = -1;
  LinkOptions infinite;
  infinite.bits_per_second = std::numeric_limits<double>::infinity();
  LinkOptions backwards;
  backwards.latency = Nanos(-1);

  for (const LinkOptions& options : {negative, infinite, backwards}) {
    EXPECT_EQ(LinkShaper::Create(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace deltapipe
