#include "worker/transport/testing/transport_conformance.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// Long enough for a loaded machine; only a failing test waits for it.
Deadline Soon() { return Deadline::After(seconds(30)); }
Deadline Shortly() { return Deadline::After(milliseconds(20)); }

ByteSpan Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Text(const Buffer& message) {
  return std::string(reinterpret_cast<const char*>(message.data()),
                     static_cast<size_t>(message.size()));
}

absl::Status SendText(Channel* channel, const std::string& text) {
  return channel->Send({Bytes(text)}, Soon());
}

// Sizes from nothing to several socket reads, the same for any run.
std::string NumberedMessage(int i) {
  return absl::StrCat(i, ":") +
         std::string(static_cast<size_t>(i) * 7919 % 5000, 'x');
}

absl::Status SendNumbered(Channel* channel, int count) {
  for (int i = 0; i < count; ++i) {
    absl::Status sent = SendText(channel, NumberedMessage(i));
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

// The number of messages that came as they should.
int ReceiveNumbered(Channel* channel, int count) {
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<Buffer> message = channel->Receive(Soon());
    if (!message.ok() || Text(*message) != NumberedMessage(i)) return i;
  }
  return count;
}

// A thread that sends one message after the other until it fails or has sent
// all, and a way to see when it has stopped making progress.
class Sender {
 public:
  Sender(Channel* channel, int64_t message_bytes, int count)
      : message_(static_cast<size_t>(message_bytes), 's'),
        thread_("sender", [this, channel, count] { Run(channel, count); }) {}

  int AwaitStall() {
    MutexLock lock(&mutex_);
    int seen = -1;
    while ((seen != num_sent_ || num_sent_ == 0) && !is_done_) {
      seen = num_sent_;
      changed_.WaitUntil(lock, Deadline::After(milliseconds(40)),
                         [&] { return is_done_; });
    }
    return num_sent_;
  }

  absl::Status Join() {
    thread_.Join();
    return status_;
  }

 private:
  void Run(Channel* channel, int count) {
    for (int i = 0; i < count; ++i) {
      absl::Status sent = channel->Send({Bytes(message_)}, Soon());
      MutexLock lock(&mutex_);
      if (!sent.ok()) {
        status_ = sent;
        break;
      }
      ++num_sent_;
    }
    MutexLock lock(&mutex_);
    is_done_ = true;
    changed_.NotifyAll();
  }

  const std::string message_;
  Mutex mutex_;
  CondVar changed_;
  int num_sent_ DP_GUARDED_BY(mutex_) = 0;
  bool is_done_ DP_GUARDED_BY(mutex_) = false;
  absl::Status status_;
  Thread thread_;
};

constexpr int64_t kMiB = int64_t{1} << 20;

}  // namespace

std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>
TransportConformanceTest::Open(const std::string& name) {
  auto connected =
      transports_.a->Connect(transports_.b->address(), name, Soon());
  EXPECT_TRUE(connected.ok()) << connected.status();
  auto accepted = transports_.b->Accept(name, Soon());
  EXPECT_TRUE(accepted.ok()) << accepted.status();
  return {std::move(connected).value(), std::move(accepted).value()};
}

TEST_P(TransportConformanceTest, KeepsOrderInBothDirectionsAtOnce) {
  constexpr int kCount = 500;
  auto [near, far] = Open("order");
  absl::Status sent_near, sent_far;
  int received_near = 0;

  {
    Thread send_near("send-near", [&, channel = near.get()] {
      sent_near = SendNumbered(channel, kCount);
    });
    Thread send_far("send-far", [&, channel = far.get()] {
      sent_far = SendNumbered(channel, kCount);
    });
    Thread receive_near("receive-near", [&, channel = near.get()] {
      received_near = ReceiveNumbered(channel, kCount);
    });
    EXPECT_EQ(ReceiveNumbered(far.get(), kCount), kCount);
  }

  EXPECT_TRUE(sent_near.ok()) << sent_near;
  EXPECT_TRUE(sent_far.ok()) << sent_far;
  EXPECT_EQ(received_near, kCount);
}

TEST_P(TransportConformanceTest, CarriesEmptyMessagesAndJoinsPieces) {
  auto [near, far] = Open("empty");

  ASSERT_TRUE(near->Send({}, Soon()).ok());
  ASSERT_TRUE(near->Send({Bytes("one"), {}, Bytes("two")}, Soon()).ok());
  ASSERT_TRUE(near->Send({ByteSpan()}, Soon()).ok());

  EXPECT_EQ(Text(far->Receive(Soon()).value()), "");
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "onetwo");
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "");
}

TEST_P(TransportConformanceTest, CarriesMoreThan64MiB) {
  auto [near, far] = Open("large");
  const int64_t size = 65 * kMiB + 13;
  Buffer large(size);
  std::memset(large.data(), 0x5A, static_cast<size_t>(size));
  large.data()[0] = 1;
  large.data()[size - 1] = 2;
  absl::Status sent;

  absl::StatusOr<Buffer> received;
  {
    Thread sender("sender", [&, channel = near.get()] {
      sent = channel->Send({large.span()}, Soon());
    });
    received = far->Receive(Soon());
  }

  ASSERT_TRUE(sent.ok()) << sent;
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(received->span() == large.span());
}

TEST_P(TransportConformanceTest, RefusesAnOversizedMessageAndStaysUsable) {
  auto [near, far] = Open("oversized");
  const std::string mebibyte(kMiB, 'x');
  const std::vector<ByteSpan> pieces(
      near->capabilities().max_message_bytes / kMiB + 1, Bytes(mebibyte));

  const absl::Status refused = near->Send(pieces, Soon());
  ASSERT_TRUE(SendText(near.get(), "next").ok());

  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("expected at most"));
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "next");
}

TEST_P(TransportConformanceTest, ReceiveDeadlineLeavesTheChannelUsable) {
  auto [near, far] = Open("deadline");

  const absl::Status late = far->Receive(Shortly()).status();
  ASSERT_TRUE(SendText(near.get(), "at last").ok());

  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "at last");
}

TEST_P(TransportConformanceTest, SendBlocksWhileThePeerDoesNotRead) {
  constexpr int kCount = 80;
  auto [near, far] = Open("pressure");
  Sender sender(near.get(), kMiB, kCount);

  const int num_sent = sender.AwaitStall();
  int num_received = 0;
  while (num_received < kCount) {
    auto message = far->Receive(Soon());
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_EQ(message->size(), kMiB);
    ++num_received;
  }

  EXPECT_LT(num_sent, kCount);
  EXPECT_GE(num_sent, 1);
  EXPECT_TRUE(sender.Join().ok());
}

TEST_P(TransportConformanceTest, SendDeadlineBreaksTheChannel) {
  auto [near, far] = Open("late-send");
  const std::string mebibyte(kMiB, 'x');

  absl::Status sent;
  for (int i = 0; i < 200 && sent.ok(); ++i) {
    sent = near->Send({Bytes(mebibyte)}, Shortly());
  }

  EXPECT_EQ(sent.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(near->Send({}, Soon()), sent);
  EXPECT_EQ(near->Receive(Soon()).status(), sent);
}

TEST_P(TransportConformanceTest, CancelWakesABlockedSend) {
  auto [near, far] = Open("cancel-send");
  Sender sender(near.get(), kMiB, 1000);
  sender.AwaitStall();

  near->Cancel(absl::CancelledError("enough"));

  EXPECT_EQ(sender.Join(), absl::CancelledError("enough"));
}

TEST_P(TransportConformanceTest, CancelWakesABlockedReceive) {
  auto [near, far] = Open("cancel-receive");
  absl::Status received;
  {
    Thread receiver("receiver", [&, channel = far.get()] {
      received = channel->Receive(Soon()).status();
    });
    // Whether the thread blocks already or will in a moment, it must end.
    EXPECT_EQ(near->Receive(Shortly()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    far->Cancel(absl::CancelledError("enough"));
  }

  EXPECT_EQ(received, absl::CancelledError("enough"));
}

TEST_P(TransportConformanceTest, CancelStaysWithItsFirstReason) {
  auto [near, far] = Open("cancel-twice");

  near->Cancel(absl::CancelledError("first"));
  near->Cancel(absl::CancelledError("second"));

  EXPECT_EQ(near->Send({}, Soon()), absl::CancelledError("first"));
  EXPECT_EQ(near->Receive(Soon()).status(), absl::CancelledError("first"));
  EXPECT_EQ(far->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformanceTest, OneConnectIsCancelledAndOthersGoOn) {
  std::atomic<bool> is_cancelled{false};
  absl::Status connected;
  {
    Thread connector("connector", [&] {
      connected = transports_.a
                      ->Connect(transports_.address_of_nobody, "nobody", Soon(),
                                &is_cancelled)
                      .status();
    });
    is_cancelled = true;
  }

  EXPECT_EQ(connected.code(), absl::StatusCode::kCancelled) << connected;
  auto [near, far] = Open("later");
  ASSERT_TRUE(SendText(near.get(), "still here").ok());
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "still here");
}

TEST_P(TransportConformanceTest, TransportCancelWakesAcceptAndConnect) {
  auto [near, far] = Open("survivor");
  absl::Status accepted, connected;
  {
    Thread acceptor("acceptor", [&] {
      accepted = transports_.a->Accept("nobody", Soon()).status();
    });
    Thread connector("connector", [&] {
      connected = transports_.a
                      ->Connect(transports_.address_of_nobody, "nobody", Soon())
                      .status();
    });
    EXPECT_EQ(far->Receive(Shortly()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    transports_.a->Cancel(absl::CancelledError("shutting down"));
  }

  EXPECT_EQ(accepted, absl::CancelledError("shutting down"));
  EXPECT_EQ(connected, absl::CancelledError("shutting down"));
  EXPECT_EQ(transports_.a->Accept("later", Soon()).status(),
            absl::CancelledError("shutting down"));
  ASSERT_TRUE(SendText(near.get(), "still here").ok());
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "still here");
}

TEST_P(TransportConformanceTest, DeliversWhatAPeerSentBeforeItWent) {
  auto [near, far] = Open("gone");
  ASSERT_TRUE(SendText(near.get(), "first").ok());
  ASSERT_TRUE(SendText(near.get(), "last").ok());

  near.reset();

  EXPECT_EQ(Text(far->Receive(Soon()).value()), "first");
  EXPECT_EQ(Text(far->Receive(Soon()).value()), "last");
  EXPECT_EQ(far->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_P(TransportConformanceTest, SendFailsOnceThePeerIsGone) {
  auto [near, far] = Open("gone");

  far.reset();
  absl::Status sent;
  const Deadline deadline = Soon();
  while (sent.ok() && !deadline.has_passed()) {
    sent = SendText(near.get(), "anybody there?");
  }

  EXPECT_EQ(sent.code(), absl::StatusCode::kUnavailable) << sent;
  EXPECT_EQ(near->Send({}, Soon()), sent);
}

TEST_P(TransportConformanceTest, Opens64ChannelsBetweenTwoTransports) {
  std::vector<std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>>
      channels;
  for (int i = 0; i < 64; ++i) channels.push_back(Open(absl::StrCat("ch", i)));

  for (int i = 63; i >= 0; --i) {
    ASSERT_TRUE(SendText(channels[i].first.get(), absl::StrCat(i)).ok());
    ASSERT_TRUE(SendText(channels[i].second.get(), absl::StrCat(-i)).ok());
  }

  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(Text(channels[i].second->Receive(Soon()).value()),
              absl::StrCat(i));
    EXPECT_EQ(Text(channels[i].first->Receive(Soon()).value()),
              absl::StrCat(-i));
  }
}

TEST_P(TransportConformanceTest, MatchesConnectionsByName) {
  const std::string address = transports_.b->address();
  auto one = transports_.a->Connect(address, "one", Soon()).value();
  auto two = transports_.a->Connect(address, "two", Soon()).value();

  auto accepted_two = transports_.b->Accept("two", Soon()).value();
  auto accepted_one = transports_.b->Accept("one", Soon()).value();
  const absl::Status third = transports_.b->Accept("three", Shortly()).status();
  ASSERT_TRUE(SendText(one.get(), "to one").ok());
  ASSERT_TRUE(SendText(two.get(), "to two").ok());

  EXPECT_EQ(third.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Text(accepted_one->Receive(Soon()).value()), "to one");
  EXPECT_EQ(Text(accepted_two->Receive(Soon()).value()), "to two");
  EXPECT_THAT(one->peer(), HasSubstr("(one)"));
  EXPECT_THAT(one->peer(), HasSubstr(address));
  EXPECT_THAT(accepted_one->peer(), HasSubstr("(one)"));
}

TEST_P(TransportConformanceTest, AcceptMayComeFirst) {
  absl::StatusOr<std::unique_ptr<Channel>> accepted;
  std::unique_ptr<Channel> connected;
  {
    Thread acceptor("acceptor",
                    [&] { accepted = transports_.b->Accept("x", Soon()); });
    EXPECT_EQ(transports_.b->Accept("y", Shortly()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    connected =
        transports_.a->Connect(transports_.b->address(), "x", Soon()).value();
  }

  ASSERT_TRUE(accepted.ok()) << accepted.status();
  ASSERT_TRUE(SendText(accepted->get(), "hello").ok());
  EXPECT_EQ(Text(connected->Receive(Soon()).value()), "hello");
}

TEST_P(TransportConformanceTest, RefusesImpossibleNames) {
  const std::string address = transports_.b->address();
  const std::string longest(200, 'n');

  EXPECT_EQ(transports_.a->Connect(address, "", Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      transports_.a->Connect(address, longest + "n", Soon()).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(transports_.b->Accept("", Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(transports_.a->Connect(address, longest, Soon()).ok());
  EXPECT_TRUE(transports_.b->Accept(longest, Soon()).ok());
}

TEST_P(TransportConformanceTest, ConnectGivesUpAtItsDeadline) {
  auto channel =
      transports_.a->Connect(transports_.address_of_nobody, "x", Shortly());

  EXPECT_EQ(channel.status().code(), absl::StatusCode::kDeadlineExceeded)
      << channel.status();
  EXPECT_THAT(std::string(channel.status().message()),
              HasSubstr(transports_.address_of_nobody));
}

TEST_P(TransportConformanceTest, CountsMessagesAndBytesWithTheirFraming) {
  auto [near, far] = Open("counters");
  ASSERT_TRUE(SendText(near.get(), "12345").ok());
  ASSERT_TRUE(near->Send({}, Soon()).ok());
  ASSERT_TRUE(far->Receive(Soon()).ok());
  ASSERT_TRUE(far->Receive(Soon()).ok());

  // The far end's answer says that the near end is done with counting.
  ASSERT_TRUE(SendText(far.get(), "ok").ok());
  ASSERT_TRUE(near->Receive(Soon()).ok());

  EXPECT_EQ(near->counters().messages_sent, 2);
  EXPECT_EQ(near->counters().bytes_sent, 5 + 2 * kMessagePrefixBytes);
  EXPECT_EQ(far->counters().messages_received, 2);
  EXPECT_EQ(far->counters().bytes_received, 5 + 2 * kMessagePrefixBytes);
  EXPECT_EQ(near->counters().messages_received, 1);
  EXPECT_EQ(near->counters().bytes_received, 2 + kMessagePrefixBytes);
}

}  // namespace deltapipe
