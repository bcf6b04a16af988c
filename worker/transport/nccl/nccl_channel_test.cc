// What is NCCL's own in an NCCL channel; what every channel does is in
// nccl_conformance_test.
#include "worker/transport/nccl/nccl_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "worker/transport/loopback/loopback_channel.h"
#include "worker/transport/nccl/control_lane.h"
#include "worker/transport/nccl/testing/fake_gpu.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kMiB = int64_t{1} << 20;

Deadline Soon() { return Deadline::After(seconds(30)); }
Deadline Shortly() { return Deadline::After(milliseconds(20)); }

using StatusOrChannel = absl::StatusOr<std::unique_ptr<Channel>>;

class NcclChannelTest : public ::testing::Test {
 protected:
  void TearDown() override {
    lower_.reset();
    higher_.reset();
    for (auto& context : contexts_) {
      ASSERT_TRUE(context->disposal()->Await(Soon()));
    }
    EXPECT_THAT(gpu_.counts().misuses, IsEmpty());
    EXPECT_EQ(gpu_.counts().num_alive, 0);
  }

  NcclContext* MakeContext(int version = 22809) {
    contexts_.push_back(
        NcclContext::Create(gpu_.nccl(version), gpu_.cuda(), 0).value());
    return contexts_.back().get();
  }

  std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> Lanes() {
    return CreateLoopbackChannelPair(8 * kMiB, 64 * kMiB, "worker-2",
                                     "worker-1");
  }

  static std::pair<StatusOrChannel, StatusOrChannel> Wrap(
      std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> lanes,
      NcclContext* lower, NcclContext* higher, Deadline deadline,
      const NcclChannelOptions& at_higher = {}) {
    StatusOrChannel at_low, at_high;
    {
      Thread other("higher", [&] {
        at_high = WrapWithNccl(std::move(lanes.second), higher, false,
                               at_higher, deadline, nullptr);
      });
      at_low = WrapWithNccl(std::move(lanes.first), lower, true, {}, deadline,
                            nullptr);
    }
    return {std::move(at_low), std::move(at_high)};
  }

  void Open() {
    auto wrapped = Wrap(Lanes(), MakeContext(), MakeContext(), Soon());
    lower_ = std::move(wrapped.first).value();
    higher_ = std::move(wrapped.second).value();
  }

  FakeGpu gpu_;
  std::vector<std::unique_ptr<NcclContext>> contexts_;
  std::unique_ptr<Channel> lower_;
  std::unique_ptr<Channel> higher_;
};

TEST_F(NcclChannelTest, OnlyLargeMessagesGoOverNccl) {
  Open();
  const int64_t moved = gpu_.counts().bytes_moved;
  const std::vector<uint8_t> small(16 << 10, 1), large((16 << 10) + 1, 2);

  ASSERT_TRUE(lower_->Send({ByteSpan(small)}, Soon()).ok());
  ASSERT_TRUE(higher_->Receive(Soon()).ok());
  const int64_t moved_small = gpu_.counts().bytes_moved - moved;
  ASSERT_TRUE(lower_->Send({ByteSpan(large)}, Soon()).ok());
  ASSERT_TRUE(higher_->Receive(Soon()).ok());

  EXPECT_EQ(moved_small, 0);
  EXPECT_EQ(gpu_.counts().bytes_moved - moved, 16385);
  EXPECT_EQ(lower_->counters().bytes_sent, 16384 + 8 + 16385 + 8);
  EXPECT_EQ(higher_->counters().bytes_received, 16384 + 8 + 16385 + 8);
}

TEST_F(NcclChannelTest, SmallAndLargeMessagesKeepTheirOrder) {
  Open();
  absl::Status sent;

  {
    Thread sender("sender", [&] {
      for (int i = 0; i < 60 && sent.ok(); ++i) {
        const std::vector<uint8_t> bytes(i % 3 == 0 ? 40000 * i : i,
                                         static_cast<uint8_t>(i));
        sent = lower_->Send({ByteSpan(bytes)}, Soon());
      }
    });
    for (int i = 0; i < 60; ++i) {
      const auto message = higher_->Receive(Soon());
      ASSERT_TRUE(message.ok()) << message.status();
      ASSERT_EQ(message->size(), i % 3 == 0 ? 40000 * i : i);
      if (i == 0) continue;
      EXPECT_EQ(message->data()[message->size() - 1], i);
    }
  }

  EXPECT_TRUE(sent.ok()) << sent;
}

TEST_F(NcclChannelTest, SaysWhatItIs) {
  Open();

  EXPECT_EQ(lower_->capabilities().name, "nccl(loopback)");
  EXPECT_EQ(lower_->capabilities().max_message_bytes, 64 * kMiB);
  EXPECT_EQ(lower_->peer(), "worker-2");
}

TEST_F(NcclChannelTest, RefusesAnotherVersionOfNcclAndNamesBoth) {
  auto [lower, higher] =
      Wrap(Lanes(), MakeContext(22809), MakeContext(22907), Soon());

  EXPECT_EQ(lower.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(lower.status().message()),
              AllOf(HasSubstr("worker-2 has NCCL 2.29.7"),
                    HasSubstr("this worker 2.28.9"),
                    HasSubstr("network.transport: tcp")));
  EXPECT_EQ(higher.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(gpu_.counts().num_communicators, 0);
}

TEST_F(NcclChannelTest, RefusesAnotherChunkSize) {
  NcclChannelOptions other;
  other.chunk_bytes = 4096;

  auto [lower, higher] =
      Wrap(Lanes(), MakeContext(), MakeContext(), Soon(), other);

  EXPECT_EQ(lower.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(higher.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(NcclChannelTest, APeerThatDoesNotSpeakNcclIsToldApart) {
  auto lanes = Lanes();
  const std::vector<uint8_t> frame(96, 0);
  ASSERT_TRUE(lanes.second->Send({ByteSpan(frame)}, Soon()).ok());

  const auto lower = WrapWithNccl(std::move(lanes.first), MakeContext(), true,
                                  {}, Soon(), nullptr);

  EXPECT_EQ(lower.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(lower.status().message()),
              HasSubstr("network.transport: tcp?"));
}

TEST_F(NcclChannelTest, SettingUpEndsAtItsDeadline) {
  FakeGpuFaults faults;
  faults.inits_hang = true;
  gpu_.SetFaults(faults);

  auto [lower, higher] = Wrap(Lanes(), MakeContext(), MakeContext(), Shortly());

  // The first to give up closes the lane, which the other may see first.
  const bool is_late = absl::IsDeadlineExceeded(lower.status()) ||
                       absl::IsDeadlineExceeded(higher.status());
  EXPECT_TRUE(is_late) << lower.status() << higher.status();
  EXPECT_FALSE(lower.ok());
  EXPECT_FALSE(higher.ok());
}

TEST_F(NcclChannelTest, SettingUpIsCancelledWhileAwaitingThePeersWord) {
  auto lanes = Lanes();
  std::atomic<bool> is_cancelled{true};

  const auto lower = WrapWithNccl(std::move(lanes.first), MakeContext(), true,
                                  {}, Soon(), &is_cancelled);

  EXPECT_EQ(lower.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(NcclChannelTest, SettingUpIsCancelledWhileNcclJoins) {
  FakeGpuFaults faults;
  faults.inits_hang = true;
  gpu_.SetFaults(faults);
  auto lanes = Lanes();
  std::atomic<bool> is_cancelled{false};
  StatusOrChannel lower, higher;
  {
    Thread low("lower", [&, context = MakeContext()] {
      lower = WrapWithNccl(std::move(lanes.first), context, true, {}, Soon(),
                           &is_cancelled);
    });
    Thread high("higher", [&, context = MakeContext()] {
      higher = WrapWithNccl(std::move(lanes.second), context, false, {}, Soon(),
                            &is_cancelled);
    });
    const Deadline deadline = Soon();
    while (gpu_.counts().num_communicators < 2 && !deadline.has_passed()) {
    }
    is_cancelled = true;
  }

  EXPECT_FALSE(lower.ok());
  EXPECT_FALSE(higher.ok());
  const bool is_called_off =
      absl::IsCancelled(lower.status()) || absl::IsCancelled(higher.status());
  EXPECT_TRUE(is_called_off) << lower.status() << higher.status();
}

TEST_F(NcclChannelTest, APeerThatDiesBeforeItsBytesCameIsNoticedOnTheLane) {
  Open();
  FakeGpuFaults faults;
  faults.transfers_hang = true;
  gpu_.SetFaults(faults);
  const std::vector<uint8_t> large(kMiB, 2);
  ASSERT_TRUE(lower_->Send({ByteSpan(large)}, Soon()).ok());
  ASSERT_EQ(higher_->Receive(Shortly()).status().code(),
            absl::StatusCode::kDeadlineExceeded);

  lower_->Cancel(absl::CancelledError("gone"));
  const absl::Status received = higher_->Receive(Soon()).status();

  EXPECT_EQ(received.code(), absl::StatusCode::kUnavailable) << received;
  EXPECT_EQ(higher_->Send({}, Soon()), received);
}

TEST_F(NcclChannelTest, RefusesAnAnnouncementOfTooMuchBeforeItAllocates) {
  auto lanes = Lanes();
  Channel* const raw = lanes.first.get();
  auto wrapped = Wrap(std::move(lanes), MakeContext(), MakeContext(), Soon());
  lower_ = std::move(wrapped.first).value();
  higher_ = std::move(wrapped.second).value();
  const std::vector<uint8_t> announcement = {
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0x7F,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      static_cast<uint8_t>(ControlLane::Kind::kAnnounced)};

  ASSERT_TRUE(raw->Send({ByteSpan(announcement)}, Soon()).ok());
  const absl::Status received = higher_->Receive(Soon()).status();

  EXPECT_EQ(received.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(received.message()), HasSubstr("of at most"));
}

TEST_F(NcclChannelTest, EndsThatCloseTogetherDestroyTheirCommunicators) {
  Open();
  const std::vector<uint8_t> large(3 * kMiB, 2);
  {
    Thread sender("sender", [&] {
      ASSERT_TRUE(lower_->Send({ByteSpan(large)}, Soon()).ok());
    });
    ASSERT_TRUE(higher_->Receive(Soon()).ok());
  }

  lower_.reset();
  higher_.reset();
  for (auto& context : contexts_) context->disposal()->Await(Soon());

  EXPECT_EQ(gpu_.counts().num_destroyed, 4);
  EXPECT_EQ(gpu_.counts().num_aborted, 0);
}

TEST_F(NcclChannelTest, CancelAbortsBothDirections) {
  Open();

  lower_->Cancel(absl::CancelledError("enough"));
  higher_->Cancel(absl::CancelledError("enough"));
  for (auto& context : contexts_) context->disposal()->Await(Soon());

  EXPECT_EQ(gpu_.counts().num_aborted, 4);
  EXPECT_EQ(gpu_.counts().num_destroyed, 0);
}

}  // namespace
}  // namespace deltapipe
