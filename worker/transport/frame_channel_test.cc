#include "worker/transport/frame_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/thread.h"
#include "worker/transport/frame_wire.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

Deadline Soon() { return Deadline::After(seconds(20)); }

ByteSpan Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Text(const Frame& frame) {
  return std::string(reinterpret_cast<const char*>(frame.payload().data()),
                     frame.payload().size());
}

class FrameChannelTest : public ::testing::Test {
 protected:
  void Connect(const FrameChannelOptions& a, const FrameChannelOptions& b) {
    auto ends = CreateLoopbackChannelPair(int64_t{8} << 20, int64_t{1} << 30,
                                          "b (test)", "a (test)");
    a_ = FrameChannel::Create(std::move(ends.first), a).value();
    b_ = FrameChannel::Create(std::move(ends.second), b).value();
  }
  void Connect() { Connect({}, {}); }

  std::unique_ptr<FrameChannel> a_;
  std::unique_ptr<FrameChannel> b_;
};

TEST_F(FrameChannelTest, DeliversHeaderAndPayloadInOrder) {
  Connect();
  FrameHeader header;
  header.kind = FrameKind::kGradient;
  header.direction = 1;
  header.flags = kFrameEvaluation;
  header.plan_revision = 2;
  header.tuning_revision = 3;
  header.step = 118;
  header.microbatch = 5;
  header.boundary = 1;
  header.codec_hash = 0xABCD1234u;
  header.num_rows = 4;
  header.row_elements = 4096;

  ASSERT_TRUE(a_->Send(header, {Bytes("two "), Bytes("pieces")}, Soon()).ok());
  ASSERT_TRUE(a_->Send(header, {}, Soon()).ok());
  auto first = b_->Receive(Soon());
  auto second = b_->Receive(Soon());

  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->header.kind, FrameKind::kGradient);
  EXPECT_EQ(first->header.direction, 1);
  EXPECT_EQ(first->header.flags, kFrameEvaluation);
  EXPECT_EQ(first->header.generation, 1u);
  EXPECT_EQ(first->header.plan_revision, 2u);
  EXPECT_EQ(first->header.tuning_revision, 3u);
  EXPECT_EQ(first->header.step, 118u);
  EXPECT_EQ(first->header.microbatch, 5u);
  EXPECT_EQ(first->header.boundary, 1u);
  EXPECT_EQ(first->header.codec_hash, 0xABCD1234u);
  EXPECT_EQ(first->header.num_rows, 4u);
  EXPECT_EQ(first->header.row_elements, 4096u);
  EXPECT_EQ(Text(*first), "two pieces");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->payload().empty());
}

TEST_F(FrameChannelTest, FlushReturnsOnceThePeerHasEverything) {
  Connect();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(a_->Send({}, {Bytes("payload")}, Soon()).ok());
  }

  EXPECT_TRUE(a_->Flush(Soon()).ok());

  EXPECT_EQ(b_->counters().frames_received, 100);
  EXPECT_EQ(a_->counters().frames_resent, 0);
}

TEST_F(FrameChannelTest, RefusesFramesOfAnotherGeneration) {
  FrameChannelOptions older;
  older.generation = 6;
  FrameChannelOptions newer;
  newer.generation = 7;
  Connect(older, newer);

  ASSERT_TRUE(a_->Send({}, {Bytes("stale")}, Soon()).ok());
  auto received = b_->Receive(Deadline::After(std::chrono::milliseconds(50)));

  EXPECT_EQ(received.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(b_->counters().refused_generation, 1);
  EXPECT_EQ(b_->counters().frames_received, 0);
}

TEST_F(FrameChannelTest, RefusesFramesOfAnotherVersion) {
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "b", "a");
  b_ = FrameChannel::Create(std::move(ends.second), {}).value();
  WireHeader header;
  header.frame.generation = 1;
  header.sequence = 1;
  uint8_t bytes[kFrameHeaderBytes];
  EncodeFrameHeader(header, bytes);
  bytes[4] = kFrameVersion + 1;
  const uint64_t checksum = Checksum(absl::MakeConstSpan(bytes, 88));
  for (int i = 0; i < 8; ++i) {
    bytes[88 + i] = static_cast<uint8_t>(checksum >> (8 * i));
  }

  ASSERT_TRUE(ends.first->Send({ByteSpan(bytes, sizeof(bytes))}, Soon()).ok());
  auto received = b_->Receive(Deadline::After(std::chrono::milliseconds(50)));

  EXPECT_EQ(received.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(b_->counters().refused_version, 1);
  EXPECT_EQ(b_->counters().bad_checksums, 0);
  EXPECT_EQ(b_->counters().frames_received, 0);
}

TEST_F(FrameChannelTest, BlocksAtTheWindowUntilThePeerTakesFrames) {
  FrameChannelOptions options;
  options.window_bytes = 1000;
  Connect(options, options);
  const std::string payload(904, 'x');  // one frame fills the window

  ASSERT_TRUE(a_->Send({}, {Bytes(payload)}, Soon()).ok());
  const absl::Status blocked = a_->Send(
      {}, {Bytes(payload)}, Deadline::After(std::chrono::milliseconds(20)));
  ASSERT_TRUE(b_->Receive(Soon()).ok());
  const absl::Status sent = a_->Send({}, {Bytes(payload)}, Soon());

  EXPECT_EQ(blocked.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(blocked.message()), HasSubstr("window is full"));
  EXPECT_TRUE(sent.ok()) << sent;
}

TEST_F(FrameChannelTest, CancelWakesBothDirectionsWithItsReason) {
  Connect();

  a_->Cancel(absl::CancelledError("stage 1 left"));

  EXPECT_EQ(a_->Receive(Soon()).status(), absl::CancelledError("stage 1 left"));
  EXPECT_EQ(a_->Send({}, {}, Soon()), absl::CancelledError("stage 1 left"));
  EXPECT_EQ(b_->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(FrameChannelTest, CancelWakesASendThatWaitsForTheWindow) {
  FrameChannelOptions options;
  options.window_bytes = 1;
  Connect(options, options);
  ASSERT_TRUE(a_->Send({}, {Bytes("fills the window")}, Soon()).ok());
  absl::Status sent;

  {
    Thread sender("sender", [&] { sent = a_->Send({}, {}, Soon()); });
    // Whether the thread waits already or will in a moment, it must end.
    EXPECT_FALSE(
        a_->Receive(Deadline::After(std::chrono::milliseconds(10))).ok());
    a_->Cancel(absl::CancelledError("enough"));
  }

  EXPECT_EQ(sent, absl::CancelledError("enough"));
}

TEST_F(FrameChannelTest, RefusesOversizedAndInternalFramesAndStaysUsable) {
  FrameChannelOptions options;
  options.max_payload_bytes = 4;
  Connect(options, options);
  FrameHeader internal;
  internal.kind = FrameKind::kResendRequest;

  const absl::Status large = a_->Send({}, {Bytes("12345")}, Soon());
  const absl::Status control = a_->Send(internal, {}, Soon());
  ASSERT_TRUE(a_->Send({}, {Bytes("1234")}, Soon()).ok());

  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.message()), HasSubstr("expected at most 4"));
  EXPECT_EQ(control.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Text(b_->Receive(Soon()).value()), "1234");
}

TEST_F(FrameChannelTest, RefusesFramesAboveTheReceiversLimit) {
  FrameChannelOptions small;
  small.max_payload_bytes = 4;
  Connect({}, small);

  ASSERT_TRUE(a_->Send({}, {Bytes("12345")}, Soon()).ok());
  auto received = b_->Receive(Deadline::After(std::chrono::milliseconds(50)));

  EXPECT_EQ(received.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(b_->counters().refused_size, 1);
}

TEST_F(FrameChannelTest, AnEndWithoutChecksumsSpeaksToOneWith) {
  FrameChannelOptions without;
  without.verify_checksums = false;
  Connect(without, {});

  ASSERT_TRUE(a_->Send({}, {Bytes("there")}, Soon()).ok());
  ASSERT_TRUE(b_->Send({}, {Bytes("back")}, Soon()).ok());

  EXPECT_EQ(Text(b_->Receive(Soon()).value()), "there");
  EXPECT_EQ(Text(a_->Receive(Soon()).value()), "back");
}

TEST_F(FrameChannelTest, TwoEndsThatOnlySendDoNotBlockEachOther) {
  Connect();
  const std::string payload(1 << 20, 'x');
  absl::Status sent_b;

  {
    Thread sender("sender", [&] {
      for (int i = 0; i < 40 && sent_b.ok(); ++i) {
        sent_b = b_->Send({}, {Bytes(payload)}, Soon());
      }
    });
    for (int i = 0; i < 40; ++i) {
      ASSERT_TRUE(a_->Send({}, {Bytes(payload)}, Soon()).ok());
    }
  }

  EXPECT_TRUE(sent_b.ok()) << sent_b;
  EXPECT_TRUE(a_->Flush(Soon()).ok());
  EXPECT_TRUE(b_->Flush(Soon()).ok());
}

TEST_F(FrameChannelTest, DeliversWhatArrivedBeforeThePeerWent) {
  Connect();
  ASSERT_TRUE(a_->Send({}, {Bytes("last words")}, Soon()).ok());
  ASSERT_TRUE(a_->Flush(Soon()).ok());

  a_.reset();
  auto last = b_->Receive(Soon());
  auto after = b_->Receive(Soon());

  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(Text(*last), "last words");
  EXPECT_EQ(after.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace deltapipe
