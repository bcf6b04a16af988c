// A worker against a scripted coordinator over a real stream.
#include "worker/control/worker.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"
#include "tests/integration/training_job.h"
#include "worker/stage/testing/elementwise_stage.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

using Stream =
    grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>;

/// Takes the worker in; it would wait for its coordinator for `lease`.
void SayWelcome(Stream* stream, std::chrono::milliseconds lease = {}) {
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_worker_id("worker-1");
  message.mutable_welcome()->set_heartbeat_millis(50);
  message.mutable_welcome()->set_lease_millis(lease.count());
  stream->Write(message);
}

/// Cuts off a worker that wants to join, as a coordinator does that is killed,
/// and dismisses it the next time.
class MortalCoordinator : public v1::ControlService::Service {
 public:
  grpc::Status Session(grpc::ServerContext*, Stream* stream) override {
    v1::WorkerMessage message;
    stream->Read(&message);
    if (++num_sessions == 1) {
      return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};
    }
    v1::CoordinatorMessage answer;
    SayWelcome(stream);
    answer.mutable_goodbye()->set_reason("that is all");
    stream->Write(answer);
    while (stream->Read(&message)) {
    }
    return grpc::Status::OK;
  }

  std::atomic<int> num_sessions{0};
};

/// Gives a worker an assignment, and another once that is ready; never starts
/// one. Says goodbye when the second is ready.
class HastyCoordinator : public v1::ControlService::Service {
 public:
  explicit HastyCoordinator(v1::Assignment assignment)
      : assignment_(std::move(assignment)) {}

  grpc::Status Session(grpc::ServerContext*, Stream* stream) override {
    v1::WorkerMessage message;
    stream->Read(&message);
    v1::CoordinatorMessage answer;
    SayWelcome(stream);
    Assign(1, stream);
    while (stream->Read(&message)) {
      if (message.has_done()) {
        events.push_back(absl::StrCat("done ", message.done().generation()));
      }
      if (!message.has_ready()) continue;
      const uint64_t generation = message.ready().generation();
      events.push_back(absl::StrCat("ready ", generation));
      if (generation == 1) {
        Assign(2, stream);
        continue;
      }
      answer.mutable_goodbye()->set_reason("that is all");
      stream->Write(answer);
      break;
    }
    return grpc::Status::OK;
  }

  std::vector<std::string> events;  // to be read once the server is down

 private:
  void Assign(uint64_t generation, Stream* stream) {
    v1::CoordinatorMessage message;
    *message.mutable_assignment() = assignment_;
    message.mutable_assignment()->set_generation(generation);
    stream->Write(message);
  }

  const v1::Assignment assignment_;
};

/// Cuts a worker off for good once it has said that it leaves.
class VanishingCoordinator : public v1::ControlService::Service {
 public:
  grpc::Status Session(grpc::ServerContext*, Stream* stream) override {
    v1::WorkerMessage message;
    stream->Read(&message);
    if (++num_sessions == 1) {
      SayWelcome(stream, std::chrono::minutes(10));
      worker.load()->Leave("Terminated");
      while (!message.has_leaving() && stream->Read(&message)) {
      }
    }
    return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};
  }

  std::atomic<int> num_sessions{0};
  std::atomic<Worker*> worker{nullptr};
};

/// Runs a worker against `service` until both have ended; it is told of the
/// worker through `created`, if that is not null.
absl::StatusOr<WorkerEnd> ServeFor(v1::ControlService::Service* service,
                                   WorkerOptions options,
                                   std::atomic<Worker*>* created = nullptr) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError("no server");
  options.coordinator = absl::StrCat("127.0.0.1:", port);
  options.hello.set_version("1");
  const std::unique_ptr<Worker> worker = Worker::Create(options);
  if (created != nullptr) *created = worker.get();
  const absl::StatusOr<WorkerEnd> end = worker->Serve();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  server->Wait();
  return end;
}

TEST(WorkerTest, ANewAssignmentEndsOneThatWaitsForItsStart) {
  auto transport = CreateTcpTransport("127.0.0.1:0");
  ASSERT_TRUE(transport.ok()) << transport.status();
  Job job(1, 1, {});
  v1::Peer* peer = job.assignment().add_peers();
  peer->set_worker_id("worker-1");
  peer->set_data_address((*transport)->address());
  job.assignment().set_threads(1);
  HastyCoordinator service(job.assignment());
  WorkerOptions options;
  options.run_folder = ::testing::TempDir();
  options.transport = transport->get();
  options.set_threads = [](int) {};
  options.make_stage = [](const v1::Assignment& assignment)
      -> absl::StatusOr<std::unique_ptr<Stage>> {
    const v1::StagePlan& plan = assignment.plan().stages(0);
    return {std::make_unique<ElementwiseStage>(
        assignment.spec(), plan.first_layer(), plan.end_layer())};
  };
  const absl::StatusOr<WorkerEnd> end = ServeFor(&service, options);

  EXPECT_TRUE(end.ok()) << end.status();
  EXPECT_THAT(service.events, ElementsAre("ready 1", "done 1", "ready 2"));
}

TEST(WorkerTest, ThatIsCutOffWhileItJoinsTriesAgain) {
  auto transport = CreateTcpTransport("127.0.0.1:0");
  ASSERT_TRUE(transport.ok()) << transport.status();
  MortalCoordinator service;
  WorkerOptions options;
  options.transport = transport->get();
  const absl::StatusOr<WorkerEnd> end = ServeFor(&service, options);

  EXPECT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(service.num_sessions, 2);
}

TEST(WorkerTest, ThatLeavesWithNothingInHandsDoesNotWaitForItsCoordinator) {
  auto transport = CreateTcpTransport("127.0.0.1:0");
  ASSERT_TRUE(transport.ok()) << transport.status();
  WorkerOptions options;
  options.transport = transport->get();
  VanishingCoordinator coordinator;

  const auto end = ServeFor(&coordinator, options, &coordinator.worker);

  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(*end, WorkerEnd::kGoodbye);
}

}  // namespace
}  // namespace deltapipe
