// FrameChannel over channels that lose, repeat, reorder and corrupt messages.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "worker/transport/faulty/faulty_channel.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/loopback/loopback_channel.h"
#include "worker/transport/recording/recording_channel.h"
#include "worker/transport/shaped/shaped_channel.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Deadline Soon() { return Deadline::After(seconds(30)); }

// The payload of frame `i`, the same for any run.
std::vector<uint8_t> Payload(uint64_t seed, int i) {
  std::mt19937_64 random(seed * 1000003 + static_cast<uint64_t>(i));
  const size_t sizes[] = {0, 1, 30, 500, 3000};
  std::vector<uint8_t> payload(sizes[random() % 5]);
  for (uint8_t& byte : payload) byte = static_cast<uint8_t>(random());
  return payload;
}

absl::Status SendAll(FrameChannel* channel, uint64_t seed, int count) {
  for (int i = 0; i < count; ++i) {
    FrameHeader header;
    header.step = static_cast<uint32_t>(i);
    const std::vector<uint8_t> payload = Payload(seed, i);
    absl::Status sent = channel->Send(header, {payload}, Soon());
    if (!sent.ok()) return sent;
  }
  return channel->Flush(Soon());
}

// How many frames came whole, once and in order.
int ReceiveAll(FrameChannel* channel, uint64_t seed, int count) {
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<Frame> frame = channel->Receive(Soon());
    if (!frame.ok() || frame->header.step != static_cast<uint32_t>(i) ||
        frame->payload() != ByteSpan(Payload(seed, i))) {
      return i;
    }
  }
  return count;
}

struct FaultyPair {
  std::unique_ptr<FrameChannel> a;
  std::unique_ptr<FrameChannel> b;
  FaultyChannel* faults_a;
  FaultyChannel* faults_b;
};

FaultyPair Connect(const FaultOptions& faults,
                   const FrameChannelOptions& options) {
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "b", "a");
  FaultOptions other = faults;
  other.seed += 1000;
  auto faulty_a = FaultyChannel::Create(std::move(ends.first), faults);
  auto faulty_b = FaultyChannel::Create(std::move(ends.second), other);
  FaultyPair pair;
  pair.faults_a = faulty_a.get();
  pair.faults_b = faulty_b.get();
  pair.a = FrameChannel::Create(std::move(faulty_a), options).value();
  pair.b = FrameChannel::Create(std::move(faulty_b), options).value();
  return pair;
}

class FrameChannelFaultsTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(FrameChannelFaultsTest, EveryFrameArrivesOnceInOrderAndWhole) {
  constexpr int kCount = 2500;
  const uint64_t seed = GetParam();
  FaultOptions faults;
  faults.seed = seed;
  faults.loss = 0.05;
  faults.repeat = 0.05;
  faults.reorder = 0.05;
  faults.corrupt = 0.05;
  FrameChannelOptions options;
  options.window_bytes = 256 << 10;
  options.resend_after = milliseconds(50);
  FaultyPair pair = Connect(faults, options);
  absl::Status sent_a, sent_b;
  int received_a = 0;
  int received_b = 0;

  {
    Thread send_a("send-a",
                  [&] { sent_a = SendAll(pair.a.get(), seed, kCount); });
    Thread send_b("send-b",
                  [&] { sent_b = SendAll(pair.b.get(), seed, kCount); });
    Thread receive_a("receive-a", [&] {
      received_a = ReceiveAll(pair.a.get(), seed, kCount);
    });
    received_b = ReceiveAll(pair.b.get(), seed, kCount);
  }

  EXPECT_TRUE(sent_a.ok()) << sent_a;
  EXPECT_TRUE(sent_b.ok()) << sent_b;
  EXPECT_EQ(received_a, kCount);
  EXPECT_EQ(received_b, kCount);
  EXPECT_EQ(pair.a->Receive(Deadline::After(milliseconds(0))).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(pair.faults_a->fault_counters().lost, kCount / 50);
  EXPECT_GT(pair.faults_a->fault_counters().corrupted, kCount / 50);
  EXPECT_GT(pair.a->counters().frames_resent, kCount / 50);
  EXPECT_GT(pair.b->counters().bad_checksums, kCount / 50);
  EXPECT_GT(pair.b->counters().duplicates_dropped, kCount / 50);
  EXPECT_GT(pair.b->counters().gaps, kCount / 50);
  EXPECT_EQ(pair.b->counters().refused_version, 0);
  EXPECT_EQ(pair.b->counters().refused_generation, 0);
}

// The parameter is the seed, so that a failure's name prints it.
INSTANTIATE_TEST_SUITE_P(Seeds, FrameChannelFaultsTest,
                         ::testing::Values(1, 2, 3));

TEST(FrameChannelFaultsTest, SingleFramesGetThroughHeavyLoss) {
  FaultOptions faults;
  faults.seed = 7;
  faults.loss = 0.4;
  FrameChannelOptions options;
  options.resend_after = milliseconds(20);
  FaultyPair pair = Connect(faults, options);

  for (int i = 0; i < 20; ++i) {
    FrameHeader header;
    header.step = static_cast<uint32_t>(i);
    ASSERT_TRUE(pair.a->Send(header, {}, Soon()).ok());
    auto received = pair.b->Receive(Soon());
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ(received->header.step, static_cast<uint32_t>(i));
  }
}

TEST(FrameChannelFaultsTest, RepetitionsCarryTheSameBytes) {
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "b", "a");
  FaultOptions faults;
  faults.loss = 0.3;
  faults.seed = 11;
  RecordingOptions keep;
  keep.keep_bytes = true;
  auto recording = std::make_shared<Recording>(keep);
  auto a =
      FrameChannel::Create(
          RecordChannel(FaultyChannel::Create(std::move(ends.first), faults),
                        recording),
          {})
          .value();
  auto b = FrameChannel::Create(std::move(ends.second), {}).value();

  ASSERT_TRUE(SendAll(a.get(), 5, 200).ok());
  ASSERT_EQ(ReceiveAll(b.get(), 5, 200), 200);

  std::vector<std::string> first_sent(201);
  int num_repeated = 0;
  for (const std::string& message : recording->sent().messages) {
    WireHeader header;
    const ByteSpan bytes(reinterpret_cast<const uint8_t*>(message.data()),
                         message.size());
    ASSERT_EQ(ParseFrameHeader(bytes, &header), HeaderVerdict::kOk);
    if (IsControl(header.frame.kind)) continue;
    std::string& first = first_sent.at(header.sequence);
    if (first.empty()) {
      first = message;
    } else {
      ++num_repeated;
      EXPECT_EQ(message, first);
    }
  }
  EXPECT_GT(num_repeated, 20);
}

TEST(FrameChannelFaultsTest, AFrameOnItsWayIsNotSentAgain) {
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "b", "a");
  LinkOptions slow;
  slow.bits_per_second = 8e6;  // the frame takes 200 ms
  FrameChannelOptions impatient;
  impatient.resend_after = milliseconds(10);
  auto a = FrameChannel::Create(ShapeChannel(std::move(ends.first),
                                             LinkShaper::Create(slow).value()),
                                impatient)
               .value();
  auto b = FrameChannel::Create(std::move(ends.second), {}).value();

  ASSERT_TRUE(a->Send({}, {std::vector<uint8_t>(200000)}, Soon()).ok());
  ASSERT_TRUE(b->Receive(Soon()).ok());
  ASSERT_TRUE(a->Flush(Soon()).ok());

  EXPECT_EQ(a->counters().frames_resent, 0);
  EXPECT_EQ(b->counters().duplicates_dropped, 0);
}

TEST(FrameChannelFaultsTest, ACutChannelIsUnavailableAtBothEnds) {
  FaultOptions faults;
  faults.cut_after_messages = 3;
  FaultyPair pair = Connect(faults, {});

  absl::Status sent;
  for (int i = 0; i < 100 && sent.ok(); ++i)
    sent = pair.a->Send({}, {}, Soon());
  absl::Status received;
  while (received.ok()) received = pair.b->Receive(Soon()).status();

  EXPECT_EQ(sent.code(), absl::StatusCode::kUnavailable) << sent;
  EXPECT_EQ(received.code(), absl::StatusCode::kUnavailable) << received;
}

}  // namespace
}  // namespace deltapipe
