// The handlers of JobService, on a control plane without network or workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/thread.h"
#include "base/version.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/errors/error_details.h"
#include "coordinator/rpc/cancel_job.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/rpc/get_job.h"
#include "coordinator/rpc/get_ledger.h"
#include "coordinator/rpc/get_plan.h"
#include "coordinator/rpc/get_version.h"
#include "coordinator/rpc/list_jobs.h"
#include "coordinator/rpc/list_workers.h"
#include "coordinator/rpc/read_logs.h"
#include "coordinator/rpc/submit_job.h"
#include "coordinator/rpc/watch_job.h"
#include "coordinator/spec/job_spec.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::function<bool()> kNeverCancelled = [] { return false; };

class HandlersTest : public ::testing::Test {
 protected:
  HandlersTest() {
    ControlPlaneOptions options;
    options.store = std::make_unique<MemoryJobStore>();
    options.roster.version = kVersion;
    options.clock = &clock_;
    options.plan = [](const PlanRequest&) { return PlanAnswer(); };
    options.check_spec = [](const v1::JobSpec& spec) {
      std::vector<std::string> wrong;
      if (spec.train().steps() < 1) wrong.push_back("train.steps: too few");
      if (spec.train().batch() < 1) wrong.push_back("train.batch: too small");
      return wrong;
    };
    plane_ = *ControlPlane::Create(std::move(options));
  }
  v1::SubmitJobRequest Request() {
    v1::SubmitJobRequest request;
    request.mutable_spec()->set_name("text");
    request.mutable_spec()->mutable_train()->set_steps(5);
    request.mutable_spec()->mutable_train()->set_batch(5);
    request.mutable_spec()->mutable_parallel()->set_stages(1);
    request.mutable_spec()->mutable_parallel()->set_replicas(1);
    return request;
  }
  std::string Submit() { return SubmitJob(plane_.get(), Request())->id(); }
  /// Stores a job that no runner drives.
  std::string Store() {
    NewJob job;
    job.spec.set_name("text");
    return plane_->store()->CreateJob(job)->job.id();
  }
  void RecordEvent(const std::string& id, const std::string& text) {
    v1::JobEvent event;
    event.set_kind("worker");
    event.set_text(text);
    ASSERT_TRUE(
        plane_->events()->Record({id, std::nullopt, std::nullopt, event}).ok());
  }
  void Finish(const std::string& id) {
    v1::Job job = plane_->store()->GetJob(id)->job;
    job.set_state(v1::JOB_STATE_SUCCEEDED);
    job.set_reason("trained 5 steps");
    v1::JobEvent event;
    event.set_kind("state");
    event.set_state(v1::JOB_STATE_SUCCEEDED);
    event.set_text("end");
    ASSERT_TRUE(plane_->events()->Record({id, job, std::nullopt, event}).ok());
    plane_->logs()->Wake();
  }
  void Log(const std::string& id, const std::string& text) {
    v1::LogLine line;
    line.set_text(text);
    ASSERT_TRUE(plane_->logs()->Append(id, line).ok());
  }
  std::vector<std::string> Watch(const v1::WatchJobRequest& request) {
    std::vector<std::string> texts;
    const absl::Status status = WatchJob(
        plane_.get(), request,
        [&](const v1::JobEvent& event) {
          texts.push_back(event.text());
          return true;
        },
        kNeverCancelled);
    EXPECT_TRUE(status.ok()) << status;
    return texts;
  }

  FakeClock clock_;
  std::unique_ptr<ControlPlane> plane_;
};

TEST_F(HandlersTest, SubmitListsEveryViolationOneALine) {
  v1::SubmitJobRequest request = Request();
  request.mutable_spec()->mutable_train()->set_steps(0);
  request.mutable_spec()->mutable_train()->set_batch(0);

  const auto job = SubmitJob(plane_.get(), request);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(job.status().message()),
            "train.steps: too few\ntrain.batch: too small");
  EXPECT_THAT(FieldViolationsOf(job.status()),
              ElementsAre(FieldViolation{"train.steps", "too few"},
                          FieldViolation{"train.batch", "too small"}));
  EXPECT_EQ(ReasonOf(job.status())->reason, "INVALID_SPEC");
}

TEST_F(HandlersTest, SubmitFillsInWhatAClientLeavesOut) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_name("text");
  request.mutable_spec()->mutable_train()->set_batch(8);

  const auto job = SubmitJob(plane_.get(), request);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec().train().batch(), 8);
  EXPECT_EQ(job->spec().train().steps(), 1000);
  EXPECT_EQ(job->spec().failure().detection_budget(), "10s");
}

TEST_F(HandlersTest, LedgersCountSamplesWhereWorkIsCountedInViews) {
  NewJob job;
  job.spec.set_name("images");
  job.spec.mutable_data()->set_views("4");
  JobChange change;
  change.job_id = plane_->store()->CreateJob(job)->job.id();
  change.plan.emplace();
  change.plan->set_num_microbatches(2);
  change.plan->set_num_replicas(1);
  change.plan->set_microbatch_samples(8);
  change.progress.emplace();
  change.progress->set_train_samples(400);
  v1::CommittedRange* range = change.progress->add_ledger();
  range->set_end_step(10);
  range->set_samples_applied(152);
  range->set_samples_dropped(8);
  range->set_dropped_before(-1);
  ASSERT_TRUE(plane_->store()->Commit(change).ok());
  v1::GetLedgerRequest request;
  request.set_id(change.job_id);

  const auto ledger = GetLedger(plane_.get(), request);

  ASSERT_TRUE(ledger.ok()) << ledger.status();
  EXPECT_EQ(ledger->train_samples(), 100);
  EXPECT_EQ(ledger->microbatch_samples(), 2);
  EXPECT_EQ(ledger->ranges(0).samples_applied(), 38);
  EXPECT_EQ(ledger->ranges(0).samples_dropped(), 2);
  EXPECT_EQ(ledger->ranges(0).dropped_before(), -1);
}

TEST_F(HandlersTest, ValidateOnlyStoresNothing) {
  v1::SubmitJobRequest request = Request();
  request.set_validate_only(true);

  const auto job = SubmitJob(plane_.get(), request);

  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->id(), "");
  EXPECT_THAT(*plane_->store()->ListJobs(JobQuery()), IsEmpty());
}

TEST_F(HandlersTest, SubmitTakesTheRunFolder) {
  v1::SubmitJobRequest request = Request();
  request.set_run_folder("/somewhere/else");

  EXPECT_EQ(SubmitJob(plane_.get(), request)->run_folder(), "/somewhere/else");
}

/// Submissions that are to go on from what earlier jobs left.
class GoingOnTest : public HandlersTest {
 protected:
  v1::SubmitJobRequest ResumeIn(const std::string& run_folder) {
    v1::SubmitJobRequest request = Request();
    request.mutable_spec()->mutable_model()->set_width(32);
    request.mutable_spec()->mutable_parallel()->set_stages(2);
    request.set_run_folder(run_folder);
    request.set_resume(true);
    return request;
  }
  /// A job with that width at rest, whose stages had 3 layers and 1; its id.
  std::string StoreFormer(const std::string& run_folder, int64_t checkpoint,
                          int width = 32) {
    NewJob job;
    job.spec = ResumeIn("").spec();
    job.spec.mutable_model()->set_width(width);
    job.run_folder = run_folder;
    FillDefaults(&job.spec);
    JobChange change;
    change.job = plane_->store()->CreateJob(job)->job;
    change.job_id = change.job->id();
    change.job->set_state(v1::JOB_STATE_SUCCEEDED);
    change.job->set_checkpoint_step(checkpoint);
    change.plan.emplace();
    change.plan->add_stages()->set_end_layer(3);
    change.plan->add_stages()->set_first_layer(3);
    change.plan->mutable_stages(1)->set_end_layer(4);
    EXPECT_TRUE(plane_->store()->Commit(change).ok());
    return change.job_id;
  }
};

TEST_F(GoingOnTest, TheCutOfTheFormerJobIsKept) {
  StoreFormer("/runs/a", 50);

  const auto job = SubmitJob(plane_.get(), ResumeIn("/runs//x/../a/"));

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->resume());
  EXPECT_EQ(job->spec().parallel().partition(), "3,1");
}

TEST_F(GoingOnTest, AnotherShapeIsRefusedWithFieldAndBothValues) {
  StoreFormer("/runs/a", 50);
  v1::SubmitJobRequest request = ResumeIn("/runs/a");
  request.mutable_spec()->mutable_model()->set_width(64);
  request.mutable_spec()->mutable_train()->mutable_optimizer()->set_kind(
      "lamb");

  const auto job = SubmitJob(plane_.get(), request);
  request.set_validate_only(true);
  const auto preview = SubmitJob(plane_.get(), request);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(job.status())->reason, "INVALID_SPEC");
  const auto violations = FieldViolationsOf(job.status());
  ASSERT_EQ(violations.size(), 2u) << job.status();
  EXPECT_EQ(violations[0].field, "model.width");
  EXPECT_THAT(violations[0].description,
              HasSubstr("expected 32, as in checkpoint 50 of text-1, got 64"));
  EXPECT_EQ(violations[1].field, "train.optimizer.kind");
  EXPECT_EQ(preview.status(), job.status());
  EXPECT_EQ(plane_->store()->ListJobs(JobQuery())->size(), 1u);
}

TEST_F(GoingOnTest, TheFurthestJobOfAPlaceIsCompared) {
  StoreFormer("/runs/a", 80, /*width=*/64);
  StoreFormer("/runs/a", 50);
  StoreFormer("/runs/b", 90);
  StoreFormer("/runs/a", 0);  // never came to a checkpoint

  const auto job = SubmitJob(plane_.get(), ResumeIn("/runs/a"));

  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("expected 64, as in checkpoint 80 of text-1, got 32"));
}

TEST_F(GoingOnTest, AJobWithoutARunFolderWroteToOneOfItsName) {
  const std::string id = StoreFormer("", 50, /*width=*/64);

  const auto own = SubmitJob(plane_.get(), ResumeIn("/var/runs/" + id));
  const auto other = SubmitJob(plane_.get(), ResumeIn("/var/runs/other"));

  EXPECT_EQ(own.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(other.ok()) << other.status();
}

TEST_F(GoingOnTest, TheFolderOfCheckpointsCountsBeforeTheRunFolder) {
  v1::SubmitJobRequest request = ResumeIn("/runs/a");
  request.mutable_spec()->mutable_checkpoint()->set_folder(
      "/runs/b/checkpoints");
  StoreFormer("/runs/a", 80, /*width=*/64);
  StoreFormer("/runs/b", 50);

  const auto job = SubmitJob(plane_.get(), request);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec().parallel().partition(), "3,1");
}

TEST_F(GoingOnTest, WithoutAFolderThereIsNothingToGoOnFrom) {
  const auto job = SubmitJob(plane_.get(), ResumeIn(""));

  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  const auto violations = FieldViolationsOf(job.status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "run_folder");
}

TEST_F(HandlersTest, OversizeSpecIsRefused) {
  v1::SubmitJobRequest request = Request();
  request.mutable_spec()->set_name(std::string(2 << 20, 'x'));

  EXPECT_EQ(SubmitJob(plane_.get(), request).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HandlersTest, UnknownJobIsNamedWithTheNearest) {
  v1::GetJobRequest request;
  request.set_id("txt-1");
  const auto none = GetJob(plane_.get(), request);
  Submit();
  Submit();

  const auto near = GetJob(plane_.get(), request);

  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("has no jobs yet"));
  EXPECT_EQ(near.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(near.status().message()),
            "no job 'txt-1' (did you mean 'text-1'?)");
}

TEST_F(HandlersTest, WhatIsNotSimilarIsNotSuggested) {
  Submit();

  const auto job = FindJob(plane_.get(), "nobody");

  EXPECT_EQ(std::string(job.status().message()),
            "no job 'nobody': 'deltapipe ls' lists those that there are");
}

TEST_F(HandlersTest, LongUnknownIdIsNotRepeatedWhole) {
  Submit();

  const auto job = FindJob(plane_.get(), std::string(100000, 'x'));

  EXPECT_LT(job.status().message().size(), 200u);
}

TEST(NearestIdTest, FewestEditsWin) {
  EXPECT_EQ(NearestId("text-2", {"text-11", "text-3", "test-2x"}), "text-3");
  EXPECT_EQ(NearestId("tex", {"other", "text"}), "text");
  EXPECT_EQ(NearestId("text", {"mlp-1", "text-12"}), "text-12");
  EXPECT_EQ(NearestId("nobody", {"text-1"}), "");
  EXPECT_EQ(NearestId("x", {}), "");
}

TEST_F(HandlersTest, ListTurnsPagesWithoutShiftingThem) {
  for (int i = 0; i < 5; ++i) Store();
  v1::ListJobsRequest request;
  request.set_page_size(2);
  request.set_include_finished(true);
  std::vector<std::string> ids;
  int num_pages = 0;

  do {
    const auto page = *ListJobs(plane_.get(), request);
    for (const v1::Job& job : page.jobs()) ids.push_back(job.id());
    request.set_page_token(page.next_page_token());
    if (++num_pages == 1) Store();  // comes while one reads
  } while (!request.page_token().empty());

  EXPECT_THAT(ids,
              ElementsAre("text-5", "text-4", "text-3", "text-2", "text-1"));
  EXPECT_EQ(num_pages, 3);
}

TEST_F(HandlersTest, FullLastPageHasNoNext) {
  for (int i = 0; i < 4; ++i) Store();
  v1::ListJobsRequest request;
  request.set_page_size(4);

  EXPECT_EQ(ListJobs(plane_.get(), request)->next_page_token(), "");
}

TEST_F(HandlersTest, FinishedJobsAreListedOnRequest) {
  Store();
  Finish(Store());
  v1::ListJobsRequest request;

  EXPECT_EQ(ListJobs(plane_.get(), request)->jobs_size(), 1);
  request.set_include_finished(true);
  EXPECT_EQ(ListJobs(plane_.get(), request)->jobs_size(), 2);
}

TEST_F(HandlersTest, BadPageArgumentsAreRefused) {
  v1::ListJobsRequest negative;
  negative.set_page_size(-1);
  v1::ListJobsRequest forged;
  forged.set_page_token("before-x");
  v1::ListJobsRequest huge;
  huge.set_page_size(1 << 30);

  EXPECT_EQ(ListJobs(plane_.get(), negative).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ListJobs(plane_.get(), forged).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ListJobs(plane_.get(), huge).ok());
}

TEST_F(HandlersTest, CancelIsIdempotentUntilTheEndThenRefused) {
  v1::CancelJobRequest request;
  request.set_id(Submit());
  v1::WatchJobRequest watch;
  watch.set_id(request.id());

  EXPECT_TRUE(CancelJob(plane_.get(), request).ok());
  EXPECT_THAT(Watch(watch).back(), HasSubstr("cancelled"));
  const auto again = CancelJob(plane_.get(), request);

  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(again.status().message()),
              HasSubstr("job 'text-1' is CANCELLED already"));
}

TEST_F(HandlersTest, PlanOfAnUnplannedJobIsAStateError) {
  v1::GetPlanRequest request;
  request.set_id(Store());
  const auto none = GetPlan(plane_.get(), request);
  v1::Plan plan;
  plan.set_schedule("gpipe");
  ASSERT_TRUE(plane_->store()
                  ->Commit({request.id(), std::nullopt, plan, std::nullopt})
                  .ok());

  EXPECT_EQ(none.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("it is PENDING ("));
  EXPECT_EQ(GetPlan(plane_.get(), request)->schedule(), "gpipe");
}

TEST_F(HandlersTest, WatchOfAFinishedJobReplaysItAndEnds) {
  v1::WatchJobRequest request;
  request.set_id(Store());
  RecordEvent(request.id(), "a");
  RecordEvent(request.id(), "b");
  Finish(request.id());
  const auto events = *plane_->store()->ReadEvents(request.id(), 0, 10);

  EXPECT_THAT(Watch(request), ElementsAre("", "a", "b", "end"));
  request.set_after_sequence(events[1].sequence());
  EXPECT_THAT(Watch(request), ElementsAre("b", "end"));
  request.set_after_sequence(events.back().sequence());
  EXPECT_THAT(Watch(request), IsEmpty());
}

TEST_F(HandlersTest, WatchOfStoredEventsDoesNotWaitForNewOnes) {
  v1::WatchJobRequest request;
  request.set_id(Store());
  RecordEvent(request.id(), "a");
  request.set_stored_only(true);

  EXPECT_THAT(Watch(request), ElementsAre("", "a"));
}

TEST_F(HandlersTest, WatchHasNoGapBetweenOldAndNewEvents) {
  v1::WatchJobRequest request;
  request.set_id(Store());
  std::vector<std::string> expected = {""};
  for (int i = 0; i < 600; ++i) expected.push_back(absl::StrCat(i));
  expected.push_back("end");
  Thread writer("writer", [&] {
    for (int i = 0; i < 600; ++i) RecordEvent(request.id(), absl::StrCat(i));
    Finish(request.id());
  });

  EXPECT_EQ(Watch(request), expected);
  writer.Join();
}

TEST_F(HandlersTest, WatchEndsWhenItsReaderHasGone) {
  v1::WatchJobRequest request;
  request.set_id(Store());
  int num_sent = 0;

  const absl::Status status = WatchJob(
      plane_.get(), request,
      [&](const v1::JobEvent&) {
        ++num_sent;
        return true;
      },
      [&] { return num_sent > 0; });

  EXPECT_TRUE(status.ok());
}

TEST_F(HandlersTest, WatchOfNothingIsRefused) {
  v1::WatchJobRequest request;
  request.set_id("text-9");
  const auto send = [](const v1::JobEvent&) { return true; };

  EXPECT_EQ(WatchJob(plane_.get(), request, send, kNeverCancelled).code(),
            absl::StatusCode::kNotFound);
  request.set_after_sequence(-1);
  EXPECT_EQ(WatchJob(plane_.get(), request, send, kNeverCancelled).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HandlersTest, LogsAreFollowedToTheJobsEnd) {
  v1::ReadLogsRequest request;
  request.set_id(Store());
  request.set_follow(true);
  Log(request.id(), "1");
  std::vector<std::string> texts;

  const absl::Status status = ReadLogs(
      plane_.get(), request,
      [&](const v1::LogLine& line) {
        texts.push_back(line.text());
        // The job goes on while its log is read.
        if (line.text() == "1") Log(request.id(), "2");
        if (line.text() == "2") Finish(request.id());
        return true;
      },
      kNeverCancelled);

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(texts, ElementsAre("1", "2"));
}

TEST_F(HandlersTest, TailOfLogsEndsWithoutFollow) {
  v1::ReadLogsRequest request;
  request.set_id(Store());
  for (const char* text : {"1", "2", "3"}) Log(request.id(), text);
  request.set_tail(2);
  std::vector<std::string> texts;

  const absl::Status status = ReadLogs(
      plane_.get(), request,
      [&](const v1::LogLine& line) {
        texts.push_back(line.text());
        return true;
      },
      kNeverCancelled);

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(texts, ElementsAre("2", "3"));
}

TEST_F(HandlersTest, VersionAndWorkersAreTold) {
  v1::Hello hello;
  hello.set_version(kVersion);
  hello.set_host("host-a");
  hello.set_data_address(":1");
  ASSERT_TRUE(plane_->jobs()
                  ->Join(hello, "h", std::make_shared<FakeWorkerSession>())
                  .ok());

  EXPECT_EQ(GetVersion(v1::GetVersionRequest()).version(), kVersion);
  const auto list = ListWorkers(plane_.get(), v1::ListWorkersRequest());
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).host(), "host-a");
}

}  // namespace
}  // namespace deltapipe
