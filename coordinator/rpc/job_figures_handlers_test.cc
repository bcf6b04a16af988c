// GetMetrics and TraceJob, on a control plane without network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/metrics/testing/demo_job.h"
#include "coordinator/rpc/get_metrics.h"
#include "coordinator/rpc/trace_job.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

const std::function<bool()> kNeverCancelled = [] { return false; };

/// A worker that is ready at once and never ends a step; sends traces if
/// `traces`.
class TracedSession : public WorkerSession {
 public:
  TracedSession(ControlPlane* plane, bool traces)
      : plane_(plane), traces_(traces) {}
  void Send(const v1::CoordinatorMessage& message) override {
    v1::WorkerMessage answer;
    if (message.has_welcome()) {
      id_ = message.welcome().worker_id();
    } else if (message.has_assignment()) {
      assignment_ = message.assignment();
      Fill(answer.mutable_ready());
      plane_->jobs()->Receive(id_, answer);
    } else if (message.has_request_trace() && traces_) {
      for (int step = 0; step < message.request_trace().steps(); ++step) {
        Fill(answer.mutable_trace());
        answer.mutable_trace()->set_step(step);
        answer.mutable_trace()->add_spans()->set_name("FORWARD");
        plane_->jobs()->Receive(id_, answer);
      }
    }
  }
  void Close(const std::string&) override {}
  void Abandon(const std::string&) override {}

 private:
  template <typename Report>
  void Fill(Report* report) {
    report->Clear();
    report->set_job_id(assignment_.job_id());
    report->set_generation(assignment_.generation());
  }
  ControlPlane* const plane_;
  const bool traces_;
  std::string id_;
  v1::Assignment assignment_;
};

v1::JobSpec TwoStages() {
  v1::JobSpec spec;
  spec.set_name("text");
  spec.mutable_model()->set_kind("synthetic");
  spec.mutable_train()->set_steps(9);
  spec.mutable_parallel()->set_stages(2);
  spec.mutable_parallel()->set_replicas(1);
  return spec;
}

class JobFiguresHandlersTest : public ::testing::Test {
 protected:
  JobFiguresHandlersTest() {
    clock_.Advance(std::chrono::seconds(1000));
    ControlPlaneOptions options;
    options.store = std::make_unique<MemoryJobStore>();
    options.roster.version = "1";
    options.clock = &clock_;
    options.plan = [](const PlanRequest&) {
      PlanAnswer answer;
      answer.plan.set_num_stages(2);
      answer.plan.set_num_replicas(1);
      answer.plan.add_stages();
      answer.plan.add_stages();
      return answer;
    };
    options.check_spec = [](const v1::JobSpec&) {
      return std::vector<std::string>();
    };
    plane_ = *ControlPlane::Create(std::move(options));
    NewJob job;
    job.spec.set_name("text");
    id_ = plane_->store()->CreateJob(job)->job.id();
  }
  void SetState(v1::JobState state) {
    v1::Job job = plane_->store()->GetJob(id_)->job;
    job.set_state(state);
    v1::JobEvent event;
    event.set_kind("state");
    event.set_text(absl::StrCat("state ", state));
    ASSERT_TRUE(plane_->events()->Record({id_, job, std::nullopt, event}).ok());
  }
  absl::StatusOr<v1::JobMetrics> Metrics(const std::string& id) {
    v1::GetMetricsRequest request;
    request.set_id(id);
    return GetMetrics(plane_.get(), request);
  }
  absl::StatusOr<v1::TraceJobResponse> Trace(
      const std::string& id, int steps,
      const std::function<bool()>& is_cancelled = kNeverCancelled) {
    v1::TraceJobRequest request;
    request.set_id(id);
    request.set_steps(steps);
    return TraceJob(plane_.get(), request, is_cancelled);
  }
  /// Submits a job of two workers and waits until it trains.
  std::string Train(bool traces) {
    for (int i = 0; i < 2; ++i) {
      v1::Hello hello;
      hello.set_version("1");
      hello.set_host("a");
      hello.set_data_address(":1");
      EXPECT_TRUE(
          plane_->jobs()
              ->Join(hello, "h",
                     std::make_shared<TracedSession>(plane_.get(), traces))
              .ok());
    }
    NewJob job;
    job.spec = TwoStages();
    const std::string id = plane_->jobs()->Submit(job)->id();
    const auto watch = plane_->events()->Subscribe(id, false);
    while (plane_->store()->GetJob(id)->job.state() != v1::JOB_STATE_RUNNING) {
      const auto event = watch->Next(Deadline::After(std::chrono::seconds(30)));
      if (!event.ok() || !event->has_value()) return "did not start";
    }
    return id;
  }

  FakeClock clock_;
  std::unique_ptr<ControlPlane> plane_;
  std::string id_;
};

TEST_F(JobFiguresHandlersTest, MetricsHaveTheStoresEvents) {
  DemoJob demo(id_, 2, 1, plane_->metrics());
  demo.Start();
  demo.Step(0.5);
  SetState(v1::JOB_STATE_RUNNING);

  const auto metrics = Metrics(id_);

  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->steps(), 1);
  ASSERT_EQ(metrics->events_size(), 2);  // the first is of its creation
  EXPECT_EQ(metrics->events(1).text(), "state 3");
  SetState(v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(Metrics(id_)->events_size(), 3);
}

TEST_F(JobFiguresHandlersTest, AnUnknownJobIsNotFound) {
  const auto metrics = Metrics("text-9");

  EXPECT_EQ(metrics.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(metrics.status().message()),
              HasSubstr("did you mean 'text-1'?"));
}

TEST_F(JobFiguresHandlersTest, AJobThatHasNotTrainedHasNoMetrics) {
  const auto metrics = Metrics(id_);

  EXPECT_EQ(metrics.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(metrics.status().message()),
            "there are no figures of job 'text-1': it is PENDING and has not "
            "trained since this coordinator started: try again once it runs");
}

TEST_F(JobFiguresHandlersTest, OfAJobThatEndedLongAgoThereIsTheResult) {
  SetState(v1::JOB_STATE_SUCCEEDED);

  const auto metrics = Metrics(id_);

  EXPECT_EQ(metrics.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(metrics.status().message()),
              HasSubstr("'deltapipe describe text-1' shows its result"));
}

TEST_F(JobFiguresHandlersTest, ATraceHasWhatEveryWorkerSends) {
  const std::string id = Train(/*traces=*/true);

  const auto trace = Trace(id, 2);

  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_THAT(trace->chrome_json(), HasSubstr("stage 0, replica 0"));
  EXPECT_THAT(trace->chrome_json(), HasSubstr("stage 1, replica 0"));
  EXPECT_THAT(trace->chrome_json(), HasSubstr("\"step\":1"));
}

TEST_F(JobFiguresHandlersTest, OnlyAJobThatTrainsCanBeTraced) {
  const auto trace = Trace(id_, 5);

  EXPECT_EQ(trace.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(trace.status().message()),
            "job 'text-1' is PENDING: only a job that trains can be traced");
}

TEST_F(JobFiguresHandlersTest, ATraceIsOfOneToAHundredSteps) {
  for (const int steps : {0, -1, 101}) {
    const auto trace = Trace(id_, steps);

    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(trace.status().message()),
              absl::StrCat("steps: expected 1 to 100, got ", steps));
  }
}

TEST_F(JobFiguresHandlersTest, WhoGoesAwayIsNotWaitedFor) {
  const std::string id = Train(/*traces=*/false);

  const auto trace = Trace(id, 2, [] { return true; });

  EXPECT_EQ(trace.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace deltapipe
