#include "worker/transport/nccl/nccl_edge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "worker/transport/nccl/testing/fake_gpu.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kChunk = 1000;

Deadline Soon() { return Deadline::After(seconds(30)); }
Deadline Shortly() { return Deadline::After(milliseconds(20)); }

std::vector<uint8_t> Bytes(int64_t size) {
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(i * 7 + i / 251);
  }
  return bytes;
}

class NcclEdgeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    context_ = NcclContext::Create(gpu_.nccl(), gpu_.cuda(), 0).value();
    ASSERT_EQ(context_->nccl().get_unique_id(&id_), kNcclSuccess);
  }

  // However a test ends: nothing is misused, and nothing is left.
  void TearDown() override {
    sender_.reset();
    receiver_.reset();
    ASSERT_TRUE(context_->disposal()->Await(Soon()));
    const FakeGpuCounts counts = gpu_.counts();
    EXPECT_THAT(counts.misuses, IsEmpty());
    EXPECT_EQ(counts.num_alive, 0);
    EXPECT_EQ(counts.num_aborted + counts.num_destroyed,
              counts.num_communicators);
  }

  absl::StatusOr<std::unique_ptr<NcclEdge>> Create(
      NcclEnd end, Deadline deadline, const NcclWatch& watch = nullptr) {
    NcclEdgeOptions options;
    options.id = id_;
    options.end = end;
    options.chunk_bytes = kChunk;
    options.peer = "worker-7";
    return NcclEdge::Create(context_.get(), options, deadline, watch);
  }

  void CreateBoth() {
    absl::StatusOr<std::unique_ptr<NcclEdge>> receiver;
    {
      Thread other("receiver",
                   [&] { receiver = Create(NcclEnd::kReceiver, Soon()); });
      sender_ = Create(NcclEnd::kSender, Soon()).value();
    }
    receiver_ = std::move(receiver).value();
  }

  absl::Status Receive(std::vector<uint8_t>* bytes, Deadline deadline) {
    return receiver_->Receive(absl::MakeSpan(*bytes), deadline, nullptr);
  }

  FakeGpuCounts CountsAtTheEnd() {
    sender_.reset();
    receiver_.reset();
    EXPECT_TRUE(context_->disposal()->Await(Soon()));
    return gpu_.counts();
  }

  FakeGpu gpu_;
  std::unique_ptr<NcclContext> context_;
  NcclUniqueId id_ = {};
  std::unique_ptr<NcclEdge> sender_;
  std::unique_ptr<NcclEdge> receiver_;
};

TEST_F(NcclEdgeTest, MovesMessagesOfAnySizeInOrder) {
  CreateBoth();
  const std::vector<int64_t> sizes = {1,          kChunk - 1, kChunk,
                                      kChunk + 1, 2 * kChunk, 17 * kChunk + 3};
  absl::Status sent;
  std::vector<std::vector<uint8_t>> received;

  {
    Thread sender("sender", [&] {
      for (const int64_t size : sizes) {
        const std::vector<uint8_t> bytes = Bytes(size);
        const ByteSpan all(bytes);
        const size_t cut = all.size() / 3;
        sent =
            sender_->Send({all.subspan(0, cut), {}, all.subspan(cut)}, Soon());
        if (!sent.ok()) return;
      }
    });
    for (const int64_t size : sizes) {
      received.emplace_back(static_cast<size_t>(size));
      ASSERT_TRUE(Receive(&received.back(), Soon()).ok());
    }
  }

  ASSERT_TRUE(sent.ok()) << sent;
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(received[i], Bytes(sizes[i])) << i;
  }
}

TEST_F(NcclEdgeTest, ACleanEndDestroysBothCommunicators) {
  CreateBoth();
  std::vector<uint8_t> received(10);
  ASSERT_TRUE(sender_->Send({ByteSpan(Bytes(10))}, Soon()).ok());
  ASSERT_TRUE(Receive(&received, Soon()).ok());
  ASSERT_TRUE(sender_->Drain(Soon()).ok());

  const FakeGpuCounts counts = CountsAtTheEnd();

  EXPECT_EQ(counts.num_destroyed, 2);
  EXPECT_EQ(counts.num_aborted, 0);
}

TEST_F(NcclEdgeTest, ACleanEndThatThePeerDoesNotJoinAborts) {
  CreateBoth();
  std::vector<uint8_t> received(10);
  ASSERT_TRUE(sender_->Send({ByteSpan(Bytes(10))}, Soon()).ok());
  ASSERT_TRUE(Receive(&received, Soon()).ok());
  ASSERT_TRUE(sender_->Drain(Soon()).ok());

  sender_.reset();
  ASSERT_TRUE(context_->disposal()->Await(Soon()));

  EXPECT_EQ(gpu_.counts().num_finalized, 1);
  EXPECT_EQ(gpu_.counts().num_aborted, 1);
}

TEST_F(NcclEdgeTest, AnEndWithBytesOnTheirWayAborts) {
  CreateBoth();
  ASSERT_TRUE(sender_->Send({ByteSpan(Bytes(10))}, Soon()).ok());

  const FakeGpuCounts counts = CountsAtTheEnd();

  EXPECT_GE(counts.num_aborted, 1);
}

TEST_F(NcclEdgeTest, APeerThatNeverComesEndsAtTheDeadline) {
  const absl::Status status = Create(NcclEnd::kSender, Shortly()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("worker-7"), HasSubstr("2.28.9"),
            HasSubstr("CUDA device 0"), HasSubstr("does not take part")));
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 1);
}

TEST_F(NcclEdgeTest, AnInitThatHangsEndsAtTheDeadlineOfBoth) {
  gpu_.SetFaults({/*inits_hang=*/true});
  absl::Status receiver;
  {
    Thread other("receiver", [&] {
      receiver = Create(NcclEnd::kReceiver, Shortly()).status();
    });
    EXPECT_EQ(Create(NcclEnd::kSender, Shortly()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  }

  EXPECT_EQ(receiver.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 2);
}

TEST_F(NcclEdgeTest, WhatIsWatchedEndsAnInit) {
  std::atomic<int> num_looks{0};

  const absl::Status status =
      Create(NcclEnd::kReceiver, Soon(), [&] {
        return ++num_looks < 5 ? absl::OkStatus()
                               : absl::CancelledError("the job was stopped");
      }).status();

  EXPECT_EQ(status, absl::CancelledError("the job was stopped"));
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 1);
}

TEST_F(NcclEdgeTest, AnInitThatFailsSaysWhyAndWhatToDo) {
  absl::Status twin;
  {
    Thread other("twin",
                 [&] { twin = Create(NcclEnd::kSender, Soon()).status(); });
    // Two of the same rank, as the real one sees two of the same GPU.
    const absl::Status status = Create(NcclEnd::kSender, Soon()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("invalid usage"), HasSubstr("the fake said so"),
                      HasSubstr("a GPU of its own")));
  }

  EXPECT_EQ(twin.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 2);
}

// The fake with some functions of CUDA replaced, and what an edge makes of it.
absl::Status StatusWith(FakeGpu* gpu,
                        const std::function<void(CudaLibrary*)>& replace) {
  CudaLibrary cuda = gpu->cuda();
  replace(&cuda);
  const auto context = NcclContext::Create(gpu->nccl(), cuda, 0).value();
  NcclEdgeOptions options;
  options.peer = "worker-7";
  return NcclEdge::Create(context.get(), options, Soon(), nullptr).status();
}

TEST_F(NcclEdgeTest, WithoutMemoryItSaysHowMuchAndLeavesNothing) {
  const absl::Status status = StatusWith(&gpu_, [](CudaLibrary* cuda) {
    cuda->malloc = [](void**, size_t) { return static_cast<CudaResult>(2); };
  });

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("2097152 bytes"), HasSubstr("worker-7"),
            HasSubstr("a fake error"), HasSubstr("network.transport: tcp")));
  EXPECT_EQ(gpu_.counts().num_alive, 0);
}

TEST_F(NcclEdgeTest, ADeviceThatFailsIsUnavailable) {
  const absl::Status lost = StatusWith(&gpu_, [](CudaLibrary* cuda) {
    cuda->set_device = [](int) { return static_cast<CudaResult>(46); };
  });
  const absl::Status no_stream = StatusWith(&gpu_, [](CudaLibrary* cuda) {
    cuda->stream_create_with_flags = [](CudaStream*, unsigned) {
      return static_cast<CudaResult>(46);
    };
  });

  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(no_stream.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(no_stream.message()),
              HasSubstr("create a stream failed (NCCL 2.28.9 on CUDA device "
                        "0): CUDA says a fake error"));
  EXPECT_EQ(gpu_.counts().num_alive, 0);
}

TEST_F(NcclEdgeTest, AnErrorInTheMiddleBreaksBothEndsAndAborts) {
  CreateBoth();
  std::vector<uint8_t> received(10 * kChunk);
  absl::Status at_receiver;
  {
    Thread other("receiver", [&] { at_receiver = Receive(&received, Soon()); });
    FakeGpuFaults faults;
    faults.error = kNcclRemoteError;
    ASSERT_TRUE(sender_->Send({ByteSpan(Bytes(10))}, Soon()).ok());
    gpu_.SetFaults(faults);
    const absl::Status at_sender =
        sender_->Send({ByteSpan(Bytes(10 * kChunk))}, Soon());
    EXPECT_EQ(at_sender.code(), absl::StatusCode::kUnavailable) << at_sender;
    EXPECT_EQ(sender_->Send({ByteSpan(Bytes(1))}, Soon()), at_sender);
  }

  EXPECT_EQ(at_receiver.code(), absl::StatusCode::kUnavailable) << at_receiver;
  EXPECT_THAT(std::string(at_receiver.message()), HasSubstr("worker-7"));
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 2);
}

TEST_F(NcclEdgeTest, MessagesOfDifferentSizesFailBothEnds) {
  CreateBoth();
  std::vector<uint8_t> received(11);

  ASSERT_TRUE(sender_->Send({ByteSpan(Bytes(10))}, Soon()).ok());
  const absl::Status at_receiver = Receive(&received, Soon());
  const absl::Status at_sender = sender_->Drain(Soon());

  EXPECT_EQ(at_receiver.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(at_sender.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 2);
}

TEST_F(NcclEdgeTest, ASendThatIsNeverTakenEndsAtTheDeadline) {
  CreateBoth();

  const absl::Status status =
      sender_->Send({ByteSpan(Bytes(5 * kChunk))}, Shortly());

  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sender_->Send({ByteSpan(Bytes(1))}, Soon()), status);
  EXPECT_TRUE(context_->disposal()->Await(Soon()));
  EXPECT_EQ(gpu_.counts().num_aborted, 1);
}

TEST_F(NcclEdgeTest, AReceiveGoesOnAfterItsDeadline) {
  CreateBoth();
  std::vector<uint8_t> received(5 * kChunk);
  FakeGpuFaults faults;
  faults.transfers_hang = true;
  gpu_.SetFaults(faults);
  absl::Status sent;
  {
    Thread sender("sender", [&] {
      sent = sender_->Send({ByteSpan(Bytes(5 * kChunk))}, Soon());
    });
    EXPECT_EQ(Receive(&received, Shortly()).code(),
              absl::StatusCode::kDeadlineExceeded);

    gpu_.SetFaults({});
    EXPECT_TRUE(Receive(&received, Soon()).ok());
  }

  EXPECT_TRUE(sent.ok()) << sent;
  EXPECT_EQ(received, Bytes(5 * kChunk));
}

TEST_F(NcclEdgeTest, CancelWakesASendAndAReceive) {
  CreateBoth();
  FakeGpuFaults faults;
  faults.transfers_hang = true;
  gpu_.SetFaults(faults);
  std::vector<uint8_t> received(5 * kChunk);
  absl::Status at_sender, at_receiver;
  std::atomic<int> num_looks{0};
  {
    Thread sender("sender", [&] {
      at_sender = sender_->Send({ByteSpan(Bytes(5 * kChunk))}, Soon());
    });
    Thread receiver("receiver", [&] {
      at_receiver = receiver_->Receive(absl::MakeSpan(received), Soon(), [&] {
        // From another thread than the test's, in the midst of the wait.
        if (++num_looks == 3) sender_->Cancel(absl::CancelledError("enough"));
        if (num_looks == 5) receiver_->Cancel(absl::CancelledError("enough"));
        return absl::OkStatus();
      });
    });
  }

  EXPECT_EQ(at_sender, absl::CancelledError("enough"));
  EXPECT_EQ(at_receiver, absl::CancelledError("enough"));
  EXPECT_EQ(CountsAtTheEnd().num_aborted, 2);
}

TEST_F(NcclEdgeTest, CancelOfAnIdleEdgeAbortsAtOnce) {
  CreateBoth();

  sender_->Cancel(absl::CancelledError("enough"));
  ASSERT_TRUE(context_->disposal()->Await(Soon()));

  EXPECT_EQ(gpu_.counts().num_aborted, 1);
  EXPECT_EQ(sender_->Drain(Soon()), absl::CancelledError("enough"));
}

}  // namespace
}  // namespace deltapipe
