// Who may be at the other end of a mesh's channels, where they are secured; and
// a mesh whose bulk goes over another transport.
#include "worker/engine/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/thread.h"
#include "base/tls/testing_identities.h"
#include "worker/engine/nccl_upgrade.h"
#include "worker/transport/loopback/loopback_transport.h"
#include "worker/transport/nccl/testing/fake_gpu.h"
#include "worker/transport/recording/recording_channel.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

class MeshTest : public ::testing::Test {
 protected:
  std::unique_ptr<Transport> Secured(const std::string& worker) {
    TcpOptions options;
    options.tls = [context = authority_.MakeContext(worker)] {
      return context;
    };
    return CreateTcpTransport("127.0.0.1:0", options).value();
  }

  // Two stages, one replica: rank 0 is worker-1 and connects, rank 1 worker-2.
  static v1::Assignment TwoStages(int rank, const Transport& first,
                                  const Transport& second) {
    v1::Assignment assignment;
    assignment.set_job_id("job");
    assignment.set_generation(1);
    assignment.set_rank(rank);
    assignment.mutable_plan()->set_num_stages(2);
    assignment.mutable_plan()->set_num_replicas(1);
    for (int i = 0; i < 2; ++i) {
      v1::Peer* const peer = assignment.add_peers();
      peer->set_rank(i);
      peer->set_stage(i);
      peer->set_worker_id(i == 0 ? "worker-1" : "worker-2");
      peer->set_data_address((i == 0 ? first : second).address());
    }
    return assignment;
  }

  absl::Status Connect(const v1::Assignment& assignment, Transport* transport) {
    return Mesh::Connect(assignment, transport, {}, is_cancelled_, Soon())
        .status();
  }

  TestAuthority authority_{Clock::Real()};
  std::atomic<bool> is_cancelled_{false};
};

TEST_F(MeshTest, TheWorkersOfTheAssignmentFindEachOther) {
  auto first = Secured("worker-1");
  auto second = Secured("worker-2");
  absl::Status at_second;

  absl::Status at_first;
  {
    Thread other("second", [&] {
      at_second = Connect(TwoStages(1, *first, *second), second.get());
    });
    at_first = Connect(TwoStages(0, *first, *second), first.get());
  }

  EXPECT_TRUE(at_first.ok()) << at_first;
  EXPECT_TRUE(at_second.ok()) << at_second;
}

TEST_F(MeshTest, AnotherWorkerAtThePeersAddressIsNotTalkedTo) {
  auto first = Secured("worker-1");
  auto impostor = Secured("worker-9");

  const absl::Status status =
      Connect(TwoStages(0, *first, *impostor), first.get());

  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("that of worker-9, expected worker-2"));
}

TEST_F(MeshTest, AnotherWorkersConnectionUnderThePeersNameIsClosed) {
  auto first = Secured("worker-1");
  auto second = Secured("worker-2");
  auto intruder = Secured("worker-9");
  const auto false_boundary =
      intruder->Connect(second->address(), "job/g1/boundary/0-1", Soon());
  const auto false_stages =
      intruder->Connect(second->address(), "job/g1/stages/0-1", Soon());
  ASSERT_TRUE(false_boundary.ok()) << false_boundary.status();
  absl::Status at_first;

  absl::Status at_second;
  {
    Thread other("first", [&] {
      at_first = Connect(TwoStages(0, *first, *second), first.get());
    });
    at_second = Connect(TwoStages(1, *first, *second), second.get());
  }

  EXPECT_TRUE(at_first.ok()) << at_first;
  EXPECT_TRUE(at_second.ok()) << at_second;
  EXPECT_EQ((*false_boundary)->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

// Two stages of two replicas, whose ranks are threads, on loopback transports.
class UpgradedMeshTest : public ::testing::Test {
 protected:
  static constexpr int kRanks = 4;

  void SetUp() override {
    for (int rank = 0; rank < kRanks; ++rank) {
      transports_.push_back(network_.CreateTransport().value());
      v1::Peer* const peer = assignment_.add_peers();
      peer->set_rank(rank);
      peer->set_stage(rank / 2);
      peer->set_replica(rank % 2);
      peer->set_worker_id(absl::StrCat("worker-", rank));
      peer->set_data_address(transports_.back()->address());
    }
    assignment_.set_job_id("job");
    assignment_.set_generation(1);
    assignment_.mutable_plan()->set_num_stages(2);
    assignment_.mutable_plan()->set_num_replicas(2);
  }

  /// Connects all ranks at once.
  std::vector<absl::StatusOr<Mesh>> Connect(
      const std::function<MeshOptions(int rank)>& options, Deadline deadline) {
    std::vector<absl::StatusOr<Mesh>> meshes(kRanks);
    std::vector<Thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back("rank", [&, rank] {
        v1::Assignment assignment = assignment_;
        assignment.set_rank(rank);
        meshes[rank] = Mesh::Connect(assignment, transports_[rank].get(),
                                     options(rank), is_cancelled_, deadline);
      });
    }
    for (Thread& thread : threads) thread.Join();
    return meshes;
  }

  ChannelUpgrade Nccl() {
    contexts_.push_back(
        NcclContext::Create(gpu_.nccl(), gpu_.cuda(), 0).value());
    return NcclUpgrade(contexts_.back().get());
  }

  /// What every rank's next stage is sent, recorded below the frames.
  std::vector<RecordedDirection> SendToNextStage(bool uses_nccl) {
    std::vector<std::shared_ptr<Recording>> recordings;
    std::vector<ChannelUpgrade> upgrades;
    for (int rank = 0; rank < kRanks; ++rank) {
      recordings.push_back(std::make_shared<Recording>(RecordingOptions{true}));
      upgrades.push_back(uses_nccl ? Nccl() : ChannelUpgrade());
    }
    auto meshes = Connect(
        [&](int rank) {
          MeshOptions options;
          options.upgrade = upgrades[rank];
          options.decorate = [&, rank](std::unique_ptr<Channel> channel,
                                       int peer) {
            return peer == rank + 2
                       ? RecordChannel(std::move(channel), recordings[rank])
                       : std::move(channel);
          };
          return options;
        },
        Soon());
    std::vector<RecordedDirection> sent;
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_TRUE(meshes[rank].ok()) << meshes[rank].status();
      for (const int size : {10, 100'000, 3'000'000}) {
        const std::vector<uint8_t> bytes(size, static_cast<uint8_t>(size));
        FrameHeader header;
        EXPECT_TRUE(meshes[rank]
                        ->next_stage->Send(header, {ByteSpan(bytes)}, Soon())
                        .ok());
        const auto frame = meshes[rank + 2]->previous_stage->Receive(Soon());
        EXPECT_TRUE(frame.ok()) << frame.status();
        EXPECT_TRUE(frame->payload() == ByteSpan(bytes));
      }
      sent.push_back(recordings[rank]->sent());
    }
    return sent;
  }

  void AwaitDisposals() {
    for (const auto& context : contexts_) {
      EXPECT_TRUE(context->disposal()->Await(Soon()));
    }
  }

  LoopbackNetwork network_;
  std::vector<std::unique_ptr<Transport>> transports_;
  v1::Assignment assignment_;
  std::atomic<bool> is_cancelled_{false};
  FakeGpu gpu_;
  std::vector<std::unique_ptr<NcclContext>> contexts_;
};

TEST_F(UpgradedMeshTest, BulkGoesOverNcclAndScalarsDoNot) {
  std::vector<ChannelUpgrade> upgrades;
  for (int rank = 0; rank < kRanks; ++rank) upgrades.push_back(Nccl());

  auto meshes = Connect(
      [&](int rank) {
        MeshOptions options;
        options.upgrade = upgrades[rank];
        return options;
      },
      Soon());

  for (const auto& mesh : meshes) ASSERT_TRUE(mesh.ok()) << mesh.status();
  // Two boundaries and two pairs of replicas, each with two directions of two
  // communicators.
  EXPECT_EQ(gpu_.counts().num_communicators, 4 * 2 * 2);
  meshes.clear();
  AwaitDisposals();
  EXPECT_EQ(gpu_.counts().num_alive, 0);
  EXPECT_THAT(gpu_.counts().misuses, IsEmpty());
}

TEST_F(UpgradedMeshTest, NcclCarriesTheSamePayloadsAsTheTransportBelow) {
  const auto plain = SendToNextStage(/*uses_nccl=*/false);
  const int64_t moved_before = gpu_.counts().bytes_moved;

  const auto over_nccl = SendToNextStage(/*uses_nccl=*/true);

  ASSERT_EQ(plain.size(), over_nccl.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(plain[i].num_messages, over_nccl[i].num_messages);
    EXPECT_EQ(plain[i].num_bytes, over_nccl[i].num_bytes);
    EXPECT_EQ(plain[i].checksum, over_nccl[i].checksum);
  }
  EXPECT_EQ(moved_before, 0);
  EXPECT_GT(gpu_.counts().bytes_moved, 2 * 3'100'000);
}

TEST_F(UpgradedMeshTest, AnEmulatedLinkHoldsBackWhatNcclCarries) {
  LinkOptions link;
  link.bits_per_second = 80e6;
  std::vector<ChannelUpgrade> upgrades;
  for (int rank = 0; rank < kRanks; ++rank) upgrades.push_back(Nccl());
  const auto meshes = Connect(
      [&](int rank) {
        MeshOptions options;
        options.upgrade = upgrades[rank];
        options.decorate = ShapedLinks(link, {});
        return options;
      },
      Soon());
  ASSERT_TRUE(meshes[0].ok()) << meshes[0].status();
  ASSERT_TRUE(meshes[2].ok()) << meshes[2].status();
  const std::vector<uint8_t> bytes(400'000);

  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(meshes[0]->next_stage->Send({}, {ByteSpan(bytes)}, Soon()).ok());
  ASSERT_TRUE(meshes[2]->previous_stage->Receive(Soon()).ok());
  const auto took = std::chrono::steady_clock::now() - begun;

  // 400 kB take 40 ms at that rate.
  EXPECT_GE(took, std::chrono::milliseconds(39));
  EXPECT_GT(gpu_.counts().bytes_moved, 400'000);
}

TEST_F(UpgradedMeshTest, TiedChannelsLeadToEveryReplicaOfEveryOwner) {
  std::vector<ChannelUpgrade> upgrades;
  for (int rank = 0; rank < kRanks; ++rank) upgrades.push_back(Nccl());

  auto meshes = Connect(
      [&](int rank) {
        MeshOptions options;
        options.upgrade = upgrades[rank];
        options.tied_stages = {0, 1};
        return options;
      },
      Soon());

  for (const auto& mesh : meshes) ASSERT_TRUE(mesh.ok()) << mesh.status();
  // As without, and all pairs of ranks.
  EXPECT_EQ(gpu_.counts().num_communicators, (4 + 6) * 2 * 2);
  for (size_t from = 0; from < kRanks; ++from) {
    ASSERT_EQ(meshes[from]->tied.size(), 4u);
    EXPECT_EQ(meshes[from]->tied[from], nullptr);
    for (size_t to = 0; to < kRanks; ++to) {
      if (to == from) continue;
      const std::vector<uint8_t> bytes = {static_cast<uint8_t>(10 * from + to)};
      ASSERT_TRUE(
          meshes[from]->tied[to]->Send({}, {ByteSpan(bytes)}, Soon()).ok());
      const auto frame = meshes[to]->tied[from]->Receive(Soon());
      ASSERT_TRUE(frame.ok()) << frame.status();
      EXPECT_TRUE(frame->payload() == ByteSpan(bytes));
    }
  }
  int num_channels = 0;
  meshes[0]->ForEach([&](FrameChannel*) { ++num_channels; });
  // Boundary, stages, replicas, gradients, and three tied.
  EXPECT_EQ(num_channels, 4 + 3);
}

TEST_F(UpgradedMeshTest, AWorkerThatCannotJoinIsNamed) {
  std::vector<ChannelUpgrade> upgrades;
  for (int rank = 0; rank < kRanks; ++rank) upgrades.push_back(Nccl());
  contexts_.push_back(
      NcclContext::Create(gpu_.nccl(23007), gpu_.cuda(), 0).value());
  upgrades[3] = NcclUpgrade(contexts_.back().get());

  const auto meshes = Connect(
      [&](int rank) {
        MeshOptions options;
        options.upgrade = upgrades[rank];
        return options;
      },
      Soon());

  EXPECT_EQ(meshes[1].status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(meshes[1].status().message()),
              AllOf(HasSubstr("worker-3 (stage 1, replica 1)"),
                    HasSubstr("2.30.7"), HasSubstr("2.28.9")));
  EXPECT_EQ(meshes[3].status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace deltapipe
