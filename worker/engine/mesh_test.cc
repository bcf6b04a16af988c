// Who may be at the other end of a mesh's channels, where they are secured.
#include "worker/engine/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/thread.h"
#include "base/tls/testing_identities.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

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
    return Mesh::Connect(assignment, transport, nullptr, {}, is_cancelled_,
                         Soon())
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

}  // namespace
}  // namespace deltapipe
