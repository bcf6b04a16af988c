#include "coordinator/service/status_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/metrics/testing/demo_job.h"
#include "coordinator/metrics/testing/http_request.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class StatusServerTest : public ::testing::Test {
 protected:
  StatusServerTest() {
    ControlPlaneOptions options;
    options.store = std::make_unique<MemoryJobStore>();
    options.roster.version = "1";
    options.plan = [](const PlanRequest&) { return PlanAnswer(); };
    options.check_spec = [](const v1::JobSpec&) {
      return std::vector<std::string>();
    };
    plane_ = *ControlPlane::Create(std::move(options));
    NewJob job;
    job.spec.set_name("text");
    plane_->store()->CreateJob(job).value();
    server_ = *StartStatusServer(plane_.get(), *ParseStatusAddress("0"));
  }
  std::string Get(const std::string& path) const {
    return HttpBody(HttpGet(server_->address(), path));
  }

  std::unique_ptr<ControlPlane> plane_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(StatusServerTest, ServesTheFiguresOfJobs) {
  DemoJob job("text-1", 2, 1, plane_->metrics());
  job.Start();
  job.Step(0.5);

  EXPECT_THAT(Get("/metrics"),
              HasSubstr("deltapipe_steps_total{job_id=\"text-1\"} 1\n"));
  EXPECT_THAT(Get("/metrics"),
              HasSubstr("deltapipe_jobs{state=\"PENDING\"} 1\n"));
  EXPECT_THAT(Get("/api/jobs"), HasSubstr("\"id\":\"text-1\""));
  EXPECT_THAT(Get("/api/jobs/text-1"), HasSubstr("\"num_stages\":2"));
  EXPECT_THAT(Get("/"), HasSubstr("<title>deltapipe</title>"));
  EXPECT_EQ(Get("/healthz"), "ok\n");
}

TEST_F(StatusServerTest, FiguresOfTheCoordinatorAndLimitsOfTheTuning) {
  DemoJob job("text-1", 3, 1, plane_->metrics());
  job.Start();
  job.Step(0.5);
  v1::JobProgress progress;
  for (const char* const limit : {"100Mbit/s", "unlimited"}) {
    v1::BoundaryTuning* boundary = progress.mutable_tuning()->add_boundaries();
    boundary->set_boundary(progress.tuning().boundaries_size() - 1);
    boundary->set_rate_limit(limit);
  }
  JobChange change;
  change.job_id = "text-1";
  change.progress = progress;
  ASSERT_TRUE(plane_->store()->Commit(change).ok());
  plane_->rpcs()->Add("JobService.GetJob", "OK");
  const auto watch = plane_->events()->Subscribe("text-1", true);
  plane_->events()->Publish("text-1", v1::JobEvent());

  const std::string text = Get("/metrics");
  EXPECT_THAT(text,
              HasSubstr("deltapipe_link_rate_limit_bytes_per_second{job_id=\""
                        "text-1\",boundary=\"0\"} 12500000\n"));
  EXPECT_THAT(text, Not(HasSubstr("limit_bytes_per_second{job_id=\"text-1\","
                                  "boundary=\"1\"")));
  EXPECT_THAT(text, HasSubstr("deltapipe_rpcs_total{method=\"JobService.GetJob"
                              "\",code=\"OK\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_watch_lag_revisions 1\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_heartbeats_missed_total 0\n"));
  // The job, and the change above.
  EXPECT_THAT(text, HasSubstr("deltapipe_db_commit_seconds_count 2\n"));
}

TEST_F(StatusServerTest, AJobWithoutFiguresSaysWhy) {
  EXPECT_THAT(Get("/api/jobs/text-1"),
              HasSubstr("there are no figures of job 'text-1': it is PENDING"));
}

TEST_F(StatusServerTest, APortAloneIsOneOfLoopback) {
  EXPECT_EQ(ParseStatusAddress("9400")->ToString(), "127.0.0.1:9400");
  EXPECT_EQ(ParseStatusAddress("0.0.0.0:9400")->ToString(), "0.0.0.0:9400");
  EXPECT_EQ(ParseStatusAddress("99999").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StatusServerTest, OffLoopbackOnlyIfAskedFor) {
  const absl::Status refused =
      CheckMayServeStatus(*ParseStatusAddress("0.0.0.0:0"), false);

  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("will not serve metrics on 0.0.0.0:0: everyone"));
  EXPECT_TRUE(CheckMayServeStatus(*ParseStatusAddress("0.0.0.0:0"), true).ok());
}

}  // namespace
}  // namespace deltapipe
