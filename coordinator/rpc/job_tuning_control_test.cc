// Requests to change the knobs of a job at rest, on a control plane without
// network or workers. How a job that trains takes them is in
// coordinator/background/job_actor_recovery_test.cc.
#include "coordinator/rpc/job_tuning_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/version.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/store/memory_job_store.h"
#include "coordinator/tuning/tuning_answers.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

class JobTuningControlTest : public ::testing::Test {
 protected:
  JobTuningControlTest() {
    ControlPlaneOptions options;
    options.store = std::make_unique<MemoryJobStore>();
    options.roster.version = kVersion;
    options.clock = &clock_;
    options.plan = [](const PlanRequest&) { return PlanAnswer(); };
    options.check_spec = [](const v1::JobSpec&) {
      return std::vector<std::string>();
    };
    plane_ = *ControlPlane::Create(std::move(options));
    NewJob job;  // that no runner drives
    job.spec.set_name("text");
    request_.mutable_tuning()->set_job_id(
        plane_->store()->CreateJob(job)->job.id());
    request_.mutable_tuning()->set_gradients("int(8)");
    request_.set_request_id("a");
  }
  /// As the job leaves it behind once it has made the change.
  void StoreAnswer() {
    JobChange change;
    change.job_id = request_.tuning().job_id();
    change.job = plane_->store()->GetJob(change.job_id)->job;
    change.job->set_state(v1::JOB_STATE_SUCCEEDED);
    v1::Tuning made = request_.tuning();
    made.set_revision(2);
    made.set_effective_step(41);
    TuningAnswers answers;
    answers.Remember(KeyOf(request_), made);
    change.tuning_answers = answers.Text();
    ASSERT_TRUE(plane_->store()->Commit(change).ok());
  }

  FakeClock clock_;
  std::unique_ptr<ControlPlane> plane_;
  v1::UpdateTuningRequest request_;
};

TEST_F(JobTuningControlTest, ARequestIsKnownAfterTheJobsEnd) {
  StoreAnswer();
  JobTuningControl control(plane_.get());

  const auto again = control.Update(request_, TuningCaller());

  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->revision(), 2u);
  EXPECT_EQ(again->effective_step(), 41);
}

TEST_F(JobTuningControlTest, ANewRequestToAJobAtRestIsRefused) {
  StoreAnswer();
  JobTuningControl control(plane_.get());
  request_.set_request_id("b");

  const auto refused = control.Update(request_, TuningCaller());

  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("knobs can be set while it trains"));
}

TEST_F(JobTuningControlTest, AnIdStandsForOneRequestAlsoAfterTheEnd) {
  StoreAnswer();
  JobTuningControl control(plane_.get());
  request_.mutable_tuning()->set_gradients("int(4)");

  EXPECT_EQ(control.Update(request_, TuningCaller()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
