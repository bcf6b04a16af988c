#include "coordinator/cli/job_client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/cli/reconnection.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Cuts each watch after two events, as a coordinator does whose reader is
/// slow, until there are no more; never answers a submission.
class ScriptedService : public v1::JobService::Service {
 public:
  explicit ScriptedService(int64_t num_events) : num_events_(num_events) {}

  grpc::Status WatchJob(grpc::ServerContext*,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    const int64_t first = request->after_sequence() + 1;
    for (int64_t i = first; i <= num_events_; ++i) {
      if (i == first + 2) return TooSlow();
      v1::JobEvent event;
      event.set_sequence(i);
      event.set_kind("worker");
      writer->Write(event);
    }
    return num_events_ == 0 ? TooSlow() : grpc::Status::OK;
  }

  grpc::Status SubmitJob(grpc::ServerContext* context,
                         const v1::SubmitJobRequest*, v1::Job*) override {
    MutexLock lock(&mutex_);
    has_submission_ = true;
    changed_.NotifyAll();
    // The client's cancellation reaches no handler that waits like this one.
    changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(60)),
                       [this] { return is_over_; });
    return context->IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK;
  }

  void AwaitSubmission() {
    MutexLock lock(&mutex_);
    changed_.Wait(lock, [this] { return has_submission_; });
  }
  void Finish() {
    MutexLock lock(&mutex_);
    is_over_ = true;
    changed_.NotifyAll();
  }

 private:
  static grpc::Status TooSlow() {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                        "the watch was cut");
  }

  const int64_t num_events_;
  Mutex mutex_;
  CondVar changed_;
  bool has_submission_ DP_GUARDED_BY(mutex_) = false;
  bool is_over_ DP_GUARDED_BY(mutex_) = false;
};

/// Cuts its first watch after a bookmark of 7 and nothing else; the second one
/// gets event 8 between two bookmarks.
class BookmarkingService : public v1::JobService::Service {
 public:
  grpc::Status WatchJob(grpc::ServerContext*,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    requests_.push_back(*request);
    Write("bookmark", 7, writer);
    if (requests_.size() == 1) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too slow");
    }
    Write("worker", 8, writer);
    Write("bookmark", 8, writer);
    return grpc::Status::OK;
  }
  void Finish() {}
  /// Once the watch has ended.
  const std::vector<v1::WatchJobRequest>& requests() const { return requests_; }

 private:
  static void Write(const std::string& kind, int64_t sequence,
                    grpc::ServerWriter<v1::JobEvent>* writer) {
    v1::JobEvent event;
    event.set_kind(kind);
    event.set_sequence(sequence);
    writer->Write(event);
  }
  std::vector<v1::WatchJobRequest> requests_;
};

/// Goes away after two events and a step; is away still at the next watch; then
/// has that step again, a later one, and one more event.
class LeavingService : public v1::JobService::Service {
 public:
  grpc::Status WatchJob(grpc::ServerContext*,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    requests_.push_back(*request);
    const grpc::Status away(grpc::StatusCode::UNAVAILABLE, "shutting down");
    if (requests_.size() == 2) return away;
    if (requests_.size() == 1) {
      Write("worker", 1, 0, writer);
      Write("worker", 2, 0, writer);
      Write("step", 0, 5, writer);
      return away;
    }
    Write("step", 0, 5, writer);
    Write("step", 0, 8, writer);
    Write("worker", 3, 0, writer);
    return grpc::Status::OK;
  }
  void Finish() {}
  /// Once the watch has ended.
  const std::vector<v1::WatchJobRequest>& requests() const { return requests_; }

 private:
  static void Write(const std::string& kind, int64_t sequence, int64_t step,
                    grpc::ServerWriter<v1::JobEvent>* writer) {
    v1::JobEvent event;
    event.set_kind(kind);
    event.set_sequence(sequence);
    if (kind == "step") event.mutable_step()->set_step(step);
    writer->Write(event);
  }
  std::vector<v1::WatchJobRequest> requests_;
};

template <typename Service>
struct ServerOf {
  template <typename... Arguments>
  explicit ServerOf(Arguments... arguments) : service(arguments...) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    address = "127.0.0.1:" + std::to_string(port);
  }
  ~ServerOf() {
    service.Finish();
    server->Shutdown();
  }
  Service service;
  std::unique_ptr<grpc::Server> server;
  std::string address;
};

using Server = ServerOf<ScriptedService>;

TEST(JobClientTest, AWatchThatIsCutGoesOnWhereItWas) {
  Server server(5);
  JobClient client(server.address);
  std::vector<int64_t> sequences;
  std::string warning;

  const absl::Status status =
      client.Watch(v1::WatchJobRequest(), [&](const v1::JobEvent& event) {
        sequences.push_back(event.sequence());
        if (event.kind() == "warning") warning = event.text();
        return true;
      });

  EXPECT_TRUE(status.ok()) << status;
  // A 0 is the warning that steps may be missing.
  EXPECT_THAT(sequences, ElementsAre(1, 2, 0, 3, 4, 0, 5));
  EXPECT_THAT(warning, HasSubstr("missing"));
}

TEST(JobClientTest, AWatchThatIsCutBeforeItsFirstEventFails) {
  Server server(0);
  JobClient client(server.address);

  const absl::Status status = client.Watch(
      v1::WatchJobRequest(), [](const v1::JobEvent&) { return true; });

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(JobClientTest, AWatchThatIsCutGoesOnFromItsBookmark) {
  ServerOf<BookmarkingService> server;
  JobClient client(server.address);
  std::vector<std::string> kinds;

  const absl::Status status =
      client.Watch(v1::WatchJobRequest(), [&](const v1::JobEvent& event) {
        kinds.push_back(event.kind());
        return true;
      });

  EXPECT_TRUE(status.ok()) << status;
  // Bookmarks are the client's own: "warning" is that steps may be missing.
  EXPECT_THAT(kinds, ElementsAre("warning", "worker"));
  ASSERT_EQ(server.service.requests().size(), 2u);
  EXPECT_TRUE(server.service.requests()[0].allow_bookmarks());
  EXPECT_EQ(server.service.requests()[0].after_sequence(), 0);
  EXPECT_EQ(server.service.requests()[1].after_sequence(), 7);
}

class ReturningCoordinatorTest : public ::testing::Test {
 protected:
  ReturningCoordinatorTest() : client_(server_.address) {
    ReconnectionOptions options;
    options.address = "host:7707";
    options.tell = [this](const std::string& line) { told_.push_back(line); };
    options.clock = &clock_;
    reconnection_ = std::make_unique<Reconnection>(std::move(options));
  }
  absl::Status Watch() {
    return client_.Watch(
        v1::WatchJobRequest(),
        [this](const v1::JobEvent& event) {
          seen_.push_back(
              event.kind() == "step"
                  ? event.kind() + std::to_string(event.step().step())
                  : event.kind() + std::to_string(event.sequence()));
          return true;
        },
        reconnection_.get());
  }

  ServerOf<LeavingService> server_;
  JobClient client_;
  FakeClock clock_;
  std::vector<std::string> told_;
  std::vector<std::string> seen_;
  std::unique_ptr<Reconnection> reconnection_;
};

TEST_F(ReturningCoordinatorTest, ItsWatchGoesOnWithNothingMissedNorToldTwice) {
  Thread time("time", [this] {
    for (const Nanos pause :
         {Reconnection::kFirstPause, 2 * Reconnection::kFirstPause}) {
      clock_.AwaitSleepers(1);
      clock_.Advance(pause);
    }
  });

  const absl::Status status = Watch();
  time.Join();

  EXPECT_TRUE(status.ok()) << status;
  // "warning0" is that steps 6 and 7 are missing.
  EXPECT_THAT(seen_, ElementsAre("worker1", "worker2", "step5", "warning0",
                                 "step8", "worker3"));
  ASSERT_EQ(server_.service.requests().size(), 3u);
  EXPECT_EQ(server_.service.requests()[1].after_sequence(), 2);
  EXPECT_EQ(server_.service.requests()[2].after_sequence(), 2);
  EXPECT_THAT(told_, ElementsAre(HasSubstr("is gone"), HasSubstr("is back")));
}

TEST_F(ReturningCoordinatorTest, StopEndsTheWaitForIt) {
  Thread stopper("stopper", [this] {
    clock_.AwaitSleepers(1);
    client_.Stop();
  });

  const absl::Status status = Watch();
  stopper.Join();

  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_THAT(told_, ElementsAre(HasSubstr("is gone")));
}

TEST(JobClientTest, StopEndsASubmissionThatIsNotAnswered) {
  Server server(1);
  JobClient client(server.address);
  Thread stopper("stopper", [&] {
    server.service.AwaitSubmission();
    client.Stop();
  });

  const auto job = client.Submit(v1::SubmitJobRequest());
  stopper.Join();

  EXPECT_EQ(job.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client.Submit(v1::SubmitJobRequest()).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace deltapipe
