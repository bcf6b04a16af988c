// The whole coordinator over a real loopback server, with scripted workers.
#include "coordinator/service/control_plane_server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "base/version.h"
#include "coordinator/service/peer_host.h"
#include "coordinator/store/memory_job_store.h"
#include "proto/deltapipe/v1/admin.grpc.pb.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

absl::StatusOr<PlanAnswer> TrivialPlan(const PlanRequest& request) {
  PlanAnswer answer;
  answer.plan.set_num_stages(request.spec.parallel().stages());
  answer.plan.set_num_replicas(request.spec.parallel().replicas());
  answer.plan.set_predicted_step_seconds(0.05);
  answer.plan.set_schedule("1f1b");
  answer.notes.push_back("schedule: auto became 1f1b");
  return answer;
}

ControlPlaneOptions TestOptions() {
  ControlPlaneOptions options;
  options.store = std::make_unique<MemoryJobStore>();
  options.roster.version = kVersion;
  options.plan = TrivialPlan;
  options.check_spec = [](const v1::JobSpec& spec) {
    std::vector<std::string> wrong;
    if (spec.train().steps() < 1) wrong.push_back("train.steps: too few");
    if (spec.train().batch() < 1) wrong.push_back("train.batch: too small");
    return wrong;
  };
  return options;
}

std::unique_ptr<ControlPlaneServer> StartServer() {
  auto server =
      ControlPlaneServer::Start({"127.0.0.1", 0}, false, TestOptions());
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

v1::SubmitJobRequest TwoStageJob(int steps) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_name("text");
  request.mutable_spec()->mutable_model()->set_kind("synthetic");
  request.mutable_spec()->mutable_train()->set_steps(steps);
  request.mutable_spec()->mutable_train()->set_batch(8);
  request.mutable_spec()->mutable_parallel()->set_stages(2);
  request.mutable_spec()->mutable_parallel()->set_replicas(1);
  return request;
}

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::seconds(30));
}

/// A worker that does what it is told, or leaves at a given step.
class ScriptedWorker {
 public:
  ScriptedWorker(const std::string& address, std::string version,
                 int leave_after_step)
      : stub_(v1::ControlService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))),
        version_(std::move(version)),
        leave_after_step_(leave_after_step),
        thread_("worker", [this] { Run(); }) {}
  ~ScriptedWorker() { Join(); }
  void Join() { thread_.Join(); }
  // Valid after Join.
  const grpc::Status& status() const { return status_; }
  const std::string& goodbye() const { return goodbye_; }
  const v1::Assignment& assignment() const { return assignment_; }

 private:
  void Run() {
    grpc::ClientContext context;
    SetDeadline(&context);
    const auto stream = stub_->Session(&context);
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_version(version_);
    hello.mutable_hello()->set_host("host-a");
    hello.mutable_hello()->set_pid(812);
    hello.mutable_hello()->set_data_address(":4000");
    hello.mutable_hello()->set_cores(2);
    stream->Write(hello);
    bool has_left = false;
    v1::CoordinatorMessage message;
    while (stream->Read(&message)) {
      if (message.has_assignment()) {
        assignment_ = message.assignment();
        v1::WorkerMessage ready;
        ready.mutable_ready()->set_job_id(assignment_.job_id());
        ready.mutable_ready()->set_generation(assignment_.generation());
        ready.mutable_ready()->set_data_hash(99);
        stream->Write(ready);
      } else if (message.has_start()) {
        if (Train(stream.get())) continue;
        has_left = true;
        stream->WritesDone();  // what was written still arrives
      } else if (message.has_stop() && !has_left) {
        SendDone(stream.get(), true);
      } else if (message.has_goodbye()) {
        goodbye_ = message.goodbye().reason();
      }
    }
    status_ = stream->Finish();
  }

  using Stream =
      grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

  bool Train(Stream* stream) {
    for (int step = 1; step <= assignment_.spec().train().steps(); ++step) {
      v1::WorkerMessage message;
      v1::StepReport& report = *message.mutable_step();
      report.set_job_id(assignment_.job_id());
      report.set_generation(assignment_.generation());
      report.set_step(step - 1);
      report.set_step_seconds(0.01);
      report.set_has_loss(assignment_.rank() == 1);
      report.set_loss(1.0 / step);
      report.set_tokens(100);
      stream->Write(message);
      v1::WorkerMessage log;
      log.mutable_log()->set_text("step " + std::to_string(step));
      log.mutable_log()->set_job_id(assignment_.job_id());
      stream->Write(log);
      if (step == leave_after_step_) return false;
    }
    SendDone(stream, false);
    return true;
  }

  void SendDone(Stream* stream, bool is_early) {
    v1::WorkerMessage message;
    message.mutable_done()->set_job_id(assignment_.job_id());
    message.mutable_done()->set_generation(assignment_.generation());
    message.mutable_done()->set_stopped_early(is_early);
    if (assignment_.rank() == 0) {
      message.mutable_done()->set_model_path("runs/text-1/model.safetensors");
    }
    stream->Write(message);
  }

  const std::unique_ptr<v1::ControlService::Stub> stub_;
  const std::string version_;
  const int leave_after_step_;
  v1::Assignment assignment_;
  std::string goodbye_;
  grpc::Status status_;
  Thread thread_;
};

std::unique_ptr<v1::JobService::Stub> Client(const std::string& address) {
  return v1::JobService::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
}

/// Watches to the end.
std::vector<v1::JobEvent> Watch(v1::JobService::Stub* client,
                                const std::string& id, bool include_steps) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::WatchJobRequest request;
  request.set_id(id);
  request.set_include_steps(include_steps);
  const auto reader = client->WatchJob(&context, request);
  std::vector<v1::JobEvent> events;
  v1::JobEvent event;
  while (reader->Read(&event)) events.push_back(event);
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return events;
}

v1::Job Submit(v1::JobService::Stub* client,
               const v1::SubmitJobRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::Job job;
  const grpc::Status status = client->SubmitJob(&context, request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

TEST(ControlPlaneServerTest, JobRunsOverRealStreams) {
  const auto server = StartServer();
  const auto client = Client(server->address());
  const v1::Job job = Submit(client.get(), TwoStageJob(3));
  EXPECT_EQ(job.id(), "text-1");
  Thread watcher;
  std::vector<v1::JobEvent> events;
  watcher =
      Thread("watch", [&] { events = Watch(client.get(), job.id(), true); });

  ScriptedWorker first(server->address(), kVersion, -1);
  ScriptedWorker second(server->address(), kVersion, -1);
  watcher.Join();

  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back().state(), v1::JOB_STATE_SUCCEEDED)
      << events.back().text();
  EXPECT_EQ(events.back().result().steps(), 3);
  EXPECT_DOUBLE_EQ(events.back().result().train_loss(), 1.0 / 3);
  std::vector<int64_t> steps;
  int64_t last_sequence = 0;
  for (const v1::JobEvent& event : events) {
    if (event.kind() == "step") {
      EXPECT_EQ(event.sequence(), 0);
      steps.push_back(event.step().step());
    } else {
      EXPECT_GT(event.sequence(), last_sequence);
      last_sequence = event.sequence();
    }
  }
  EXPECT_THAT(steps, ElementsAre(0, 1, 2));

  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ReadLogsRequest request;
  request.set_id(job.id());
  request.set_follow(true);
  const auto reader = client->ReadLogs(&context, request);
  int num_lines = 0;
  v1::LogLine line;
  while (reader->Read(&line)) ++num_lines;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(num_lines, 6);

  server->Shutdown("the test is over");
  first.Join();
  second.Join();
  EXPECT_EQ(first.goodbye(), "the test is over");
  EXPECT_TRUE(first.status().ok()) << first.status().error_message();
  EXPECT_EQ(first.assignment().peers(0).data_address(), "127.0.0.1:4000");
}

TEST(ControlPlaneServerTest, BrokenStreamFailsTheJobAndNamesTheWorker) {
  const auto server = StartServer();
  const auto client = Client(server->address());
  v1::SubmitJobRequest request = TwoStageJob(1000);
  request.mutable_spec()->mutable_failure()->set_max_restarts(0);
  const v1::Job job = Submit(client.get(), request);

  ScriptedWorker first(server->address(), kVersion, 118);
  ScriptedWorker second(server->address(), kVersion, 118);
  const std::vector<v1::JobEvent> events = Watch(client.get(), job.id(), false);

  EXPECT_EQ(events.back().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(events.back().text(),
              AllOf(HasSubstr("(stage "), HasSubstr("replica 0, on host-a"),
                    HasSubstr("pid 812) was lost at step 119: its connection "
                              "closed")));
}

TEST(ControlPlaneServerTest, WorkerOfAnotherVersionIsRefused) {
  const auto server = StartServer();

  ScriptedWorker worker(server->address(), "9.9.9", -1);
  worker.Join();

  EXPECT_EQ(worker.status().error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(worker.status().error_message(),
              AllOf(HasSubstr("9.9.9"), HasSubstr(kVersion)));
}

TEST(ControlPlaneServerTest, ErrorsCrossTheWireWithTheirCodes) {
  const auto server = StartServer();
  const auto client = Client(server->address());
  grpc::ClientContext bad_spec;
  SetDeadline(&bad_spec);
  v1::Job job;
  v1::SubmitJobRequest submit;
  submit.mutable_spec()->mutable_train()->set_steps(0);
  submit.mutable_spec()->mutable_train()->set_batch(0);

  const grpc::Status invalid = client->SubmitJob(&bad_spec, submit, &job);
  grpc::ClientContext unknown;
  SetDeadline(&unknown);
  v1::GetJobRequest get;
  get.set_id("text-7");
  const grpc::Status missing = client->GetJob(&unknown, get, &job);

  EXPECT_EQ(invalid.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(invalid.error_message(),
            "train.steps: too few\ntrain.batch: too small");
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), HasSubstr("text-7"));
}

TEST(ControlPlaneServerTest, AnswersAreCountedByMethodAndCode) {
  const auto server = StartServer();
  const auto client = Client(server->address());
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext unknown;
    SetDeadline(&unknown);
    v1::GetJobRequest get;
    get.set_id("text-7");
    v1::Job job;
    client->GetJob(&unknown, get, &job);
  }
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListJobsResponse jobs;
  ASSERT_TRUE(client->ListJobs(&context, v1::ListJobsRequest(), &jobs).ok());

  EXPECT_THAT(server->plane()->rpcs()->counts(),
              ElementsAre(Pair(Pair("JobService.GetJob", "NOT_FOUND"), 2),
                          Pair(Pair("JobService.ListJobs", "OK"), 1)));
}

TEST(ControlPlaneServerTest, PortInUseIsSaidWithTheRemedy) {
  const auto server = StartServer();
  const auto listen = ParseListenAddress(server->address());
  ASSERT_TRUE(listen.ok());

  const auto second = ControlPlaneServer::Start(*listen, false, TestOptions());

  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr("in use"), HasSubstr("choose another port")));
}

TEST(ControlPlaneServerTest, OpenAddressNeedsInsecure) {
  const auto refused =
      ControlPlaneServer::Start({"0.0.0.0", 0}, false, TestOptions());
  const auto allowed =
      ControlPlaneServer::Start({"0.0.0.0", 0}, true, TestOptions());

  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--insecure"));
  EXPECT_TRUE(allowed.ok()) << allowed.status();
}

TEST(ControlPlaneServerTest, ShutdownEndsAnOpenWatchWithTheReason) {
  const auto server = StartServer();
  const auto client = Client(server->address());
  const v1::Job job = Submit(client.get(), TwoStageJob(3));
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::WatchJobRequest request;
  request.set_id(job.id());
  const auto reader = client->WatchJob(&context, request);
  v1::JobEvent event;
  ASSERT_TRUE(reader->Read(&event));  // the watch is open

  server->Shutdown("maintenance");
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("maintenance"));
}

TEST(ControlPlaneServerTest, PeerHostIsReadFromItsName) {
  EXPECT_EQ(PeerHost("ipv4:10.0.0.2:41233"), "10.0.0.2");
  EXPECT_EQ(PeerHost("ipv6:[::1]:41233"), "::1");
  EXPECT_EQ(PeerHost("ipv6:%5B2001:db8::1%5D:41233"), "2001:db8::1");
  EXPECT_EQ(PeerHost("unix:/tmp/socket"), "localhost");
}

}  // namespace
}  // namespace deltapipe
