#include "coordinator/metrics/status_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kNasty[] = "</script><img src=x onerror=\"alert(1)\">\n\xff'";

class StatusPagesTest : public ::testing::Test {
 protected:
  StatusPagesTest() {
    clock_.Advance(std::chrono::seconds(5));
    source_.clock = &clock_;
    source_.prometheus_text = [] { return "deltapipe_x 1\n"; };
    source_.list_jobs = [this] { return jobs_; };
    source_.get_metrics = [this](const std::string& id) {
      asked_for_ = id;
      return metrics_;
    };
  }
  HttpAnswer Get(const std::string& path) const {
    return AnswerStatusPath(source_, path);
  }

  FakeClock clock_;
  StatusSource source_;
  absl::StatusOr<v1::ListJobsResponse> jobs_{v1::ListJobsResponse()};
  absl::StatusOr<v1::JobMetrics> metrics_{v1::JobMetrics()};
  std::string asked_for_;
};

TEST_F(StatusPagesTest, ServesThePageAndItsParts) {
  EXPECT_EQ(Get("/").content_type, "text/html; charset=utf-8");
  EXPECT_THAT(Get("/").body, HasSubstr("<!DOCTYPE html>"));
  EXPECT_THAT(Get("/page.js").body, HasSubstr("\"use strict\";"));
  EXPECT_THAT(Get("/page.css").body, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_EQ(Get("/healthz").body, "ok\n");
  EXPECT_EQ(Get("/metrics").body, "deltapipe_x 1\n");
  EXPECT_EQ(Get("/metrics").content_type,
            "text/plain; version=0.0.4; charset=utf-8");
}

TEST_F(StatusPagesTest, ThePageNeedsNothingFromElsewhereAndNoInlineCode) {
  const std::string page = Get("/").body;

  EXPECT_THAT(page, Not(HasSubstr("://")));
  EXPECT_THAT(page, Not(HasSubstr("style=")));
  EXPECT_THAT(page, Not(HasSubstr("onclick")));
  EXPECT_THAT(Get("/page.js").body, Not(HasSubstr("innerHTML")));
  EXPECT_THAT(Get("/page.js").body, Not(HasSubstr("eval(")));
  EXPECT_THAT(Get("/page.css").body, Not(HasSubstr("url(")));
}

TEST_F(StatusPagesTest, ListsJobs) {
  v1::Job* job = jobs_->add_jobs();
  job->set_id("text-1");
  job->mutable_spec()->set_name("text");
  job->mutable_spec()->mutable_train()->set_steps(10);
  job->set_state(v1::JOB_STATE_RUNNING);
  job->set_step(4);

  const HttpAnswer answer = Get("/api/jobs");

  EXPECT_EQ(answer.content_type, "application/json");
  EXPECT_EQ(answer.body,
            "{\"schema\":\"deltapipe.web.Jobs\",\"jobs\":[{\"id\":\"text-1\","
            "\"name\":\"text\",\"state\":\"RUNNING\",\"reason\":\"\","
            "\"step\":4,\"total_steps\":10,\"create_time_millis\":0}]}\n");
}

TEST_F(StatusPagesTest, WhatUsersWriteStaysText) {
  v1::Job* job = jobs_->add_jobs();
  job->set_id(kNasty);
  job->set_reason(kNasty);
  metrics_->set_id(kNasty);
  metrics_->add_events()->set_text(kNasty);
  const std::string expected =
      "</script><img src=x onerror=\"alert(1)\">\n\xEF\xBF\xBD'";

  const json jobs = json::parse(Get("/api/jobs").body);
  const json metrics = json::parse(Get("/api/jobs/x").body);

  EXPECT_EQ(jobs["jobs"][0]["id"], expected);
  EXPECT_EQ(jobs["jobs"][0]["reason"], expected);
  EXPECT_EQ(metrics["id"], expected);
  EXPECT_EQ(metrics["events"][0]["text"], expected);
}

TEST_F(StatusPagesTest, GivesAJobsFiguresWithTheTime) {
  metrics_->set_id("text-1");
  metrics_->set_state(v1::JOB_STATE_RUNNING);
  metrics_->set_goodput_ratio(0.5);
  metrics_->mutable_step()->set_loss(std::nan(""));

  const json metrics = json::parse(Get("/api/jobs/text-1").body);

  EXPECT_EQ(asked_for_, "text-1");
  EXPECT_EQ(metrics["schema"], "deltapipe.v1.JobMetrics");
  EXPECT_EQ(metrics["state"], "RUNNING");
  EXPECT_EQ(metrics["goodput_ratio"], 0.5);
  EXPECT_TRUE(metrics["step"]["loss"].is_null());
  EXPECT_EQ(metrics["now_millis"], 5000);
}

TEST_F(StatusPagesTest, SaysWhatIsNotThere) {
  metrics_ = absl::NotFoundError("no job 'a'");
  EXPECT_EQ(Get("/api/jobs/a").code, 404);
  EXPECT_EQ(Get("/api/jobs/a").body, "no job 'a'\n");

  for (const char* path : {"/nothing", "/api", "/api/jobs/", "/page", "//"}) {
    EXPECT_EQ(Get(path).code, 404) << path;
  }
  EXPECT_EQ(Get("/api/jobs/" + std::string(1000, 'a')).code, 404);
}

TEST_F(StatusPagesTest, AStoreThatFailsIsAnErrorOfTheServer) {
  jobs_ = absl::UnavailableError("the disk is gone");

  EXPECT_EQ(Get("/api/jobs").code, 500);
  EXPECT_EQ(Get("/api/jobs").body, "the disk is gone\n");
}

}  // namespace
}  // namespace deltapipe
