// Jobs with their threads, the timekeeper and a fake clock.
#include "coordinator/background/control_plane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "coordinator/launch/fake_worker_supply.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Nanos kTick = std::chrono::milliseconds(250);

v1::JobSpec OneWorkerSpec() {
  v1::JobSpec spec;
  spec.set_name("text");
  spec.mutable_model()->set_kind("synthetic");
  spec.mutable_train()->set_steps(2);
  spec.mutable_parallel()->set_stages(1);
  spec.mutable_parallel()->set_replicas(1);
  return spec;
}

ControlPlaneOptions Options(Clock* clock, std::unique_ptr<JobStore> store) {
  ControlPlaneOptions options;
  options.store = std::move(store);
  options.roster.version = "1";
  options.clock = clock;
  options.tick = kTick;
  options.plan = [](const PlanRequest&) { return PlanAnswer(); };
  options.check_spec = [](const v1::JobSpec&) {
    return std::vector<std::string>();
  };
  return options;
}

/// Does at once what it is told, on the caller's thread of the coordinator's
/// side; reports over `plane`.
class ObedientSession : public WorkerSession {
 public:
  ObedientSession(ControlPlane* plane, bool trains)
      : plane_(plane), trains_(trains) {}
  void Send(const v1::CoordinatorMessage& message) override {
    v1::WorkerMessage answer;
    if (message.has_welcome()) {
      id_ = message.welcome().worker_id();
    } else if (message.has_assignment()) {
      assignment_ = message.assignment();
      Fill(answer.mutable_ready());
      plane_->jobs()->Receive(id_, answer);
    } else if (message.has_start() && trains_) {
      for (int step = 1; step <= assignment_.spec().train().steps(); ++step) {
        Fill(answer.mutable_step());
        answer.mutable_step()->set_step(step - 1);
        plane_->jobs()->Receive(id_, answer);
      }
      Fill(answer.mutable_done());
      plane_->jobs()->Receive(id_, answer);
    } else if (message.has_stop()) {
      Fill(answer.mutable_done());
      answer.mutable_done()->set_stopped_early(true);
      plane_->jobs()->Receive(id_, answer);
    }
  }
  void Abandon(const std::string&) override {}
  void Close(const std::string&) override {}

 private:
  template <typename Report>
  void Fill(Report* report) {
    report->set_job_id(assignment_.job_id());
    report->set_generation(assignment_.generation());
  }
  ControlPlane* const plane_;
  const bool trains_;
  std::string id_;
  v1::Assignment assignment_;
};

class ControlPlaneTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(std::make_unique<MemoryJobStore>()); }
  void Start(std::unique_ptr<JobStore> store, WorkerSupply* supply = nullptr) {
    ControlPlaneOptions options = Options(&clock_, std::move(store));
    options.supply = supply;
    auto plane = ControlPlane::Create(std::move(options));
    ASSERT_TRUE(plane.ok()) << plane.status();
    plane_ = *std::move(plane);
  }
  std::string Submit() {
    NewJob job;
    job.spec = OneWorkerSpec();
    const auto submitted = plane_->jobs()->Submit(job);
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    watch_ = plane_->events()->Subscribe(submitted->id(), false);
    return submitted->id();
  }
  std::shared_ptr<ObedientSession> Join(bool trains) {
    auto session = std::make_shared<ObedientSession>(plane_.get(), trains);
    v1::Hello hello;
    hello.set_version("1");
    hello.set_host("a");
    hello.set_data_address(":1");
    EXPECT_TRUE(plane_->jobs()->Join(hello, "h", session).ok());
    return session;
  }
  /// Waits for the job to be in `state`; returns the event's text.
  std::string AwaitState(v1::JobState state) {
    for (;;) {
      const auto event =
          watch_->Next(Deadline::After(std::chrono::seconds(30)));
      if (!event.ok() || !event->has_value()) return "nothing came";
      if ((*event)->kind() == "state" && (*event)->state() == state) {
        return (*event)->text();
      }
    }
  }
  /// Lets the timekeeper live through `time`, tick by tick.
  void Live(Nanos time) {
    for (Nanos lived{0}; lived < time; lived += kTick) {
      clock_.AwaitSleepers(1);
      clock_.Advance(kTick);
    }
    clock_.AwaitSleepers(1);
  }

  FakeWorkerSupply supply_;  // of tests that start with it
  FakeClock clock_;
  std::unique_ptr<ControlPlane> plane_;
  std::unique_ptr<EventLog::Subscription> watch_;

  void TearDown() override {
    watch_.reset();
    plane_.reset();
  }
};

TEST_F(ControlPlaneTest, JobRunsToItsEndAndTheWorkerTakesTheNext) {
  const std::string first = Submit();
  Join(true);
  EXPECT_EQ(AwaitState(v1::JOB_STATE_SUCCEEDED), "trained 2 steps");
  EXPECT_EQ(plane_->store()->GetJob(first)->job.step(), 2);

  Submit();
  Live(kTick);  // the job looks for free workers at every tick

  EXPECT_EQ(AwaitState(v1::JOB_STATE_SUCCEEDED), "trained 2 steps");
}

TEST_F(ControlPlaneTest, SilentWorkerFailsItsJobAfterTheBudget) {
  Submit();
  Join(false);
  EXPECT_THAT(AwaitState(v1::JOB_STATE_RUNNING), HasSubstr("trains on"));

  Live(std::chrono::milliseconds(10500));

  EXPECT_THAT(AwaitState(v1::JOB_STATE_FAILED),
              HasSubstr("was lost at step 1: no heartbeat for"));
}

TEST_F(ControlPlaneTest, HeartbeatsKeepAWorkerAndAreAnswered) {
  Submit();
  const auto session = Join(false);
  AwaitState(v1::JOB_STATE_RUNNING);
  v1::WorkerMessage heartbeat;
  heartbeat.mutable_heartbeat();

  for (int i = 0; i < 3; ++i) {
    Live(std::chrono::seconds(8));
    plane_->jobs()->Receive("worker-1", heartbeat);
  }

  EXPECT_EQ(plane_->roster()->List().workers_size(), 1);
}

TEST_F(ControlPlaneTest, OwnPauseKillsNobody) {
  Submit();
  Join(false);
  AwaitState(v1::JOB_STATE_RUNNING);

  clock_.AwaitSleepers(1);
  clock_.Advance(std::chrono::minutes(5));  // one tick that came late
  Live(kTick);

  EXPECT_EQ(plane_->roster()->List().workers_size(), 1);
}

TEST_F(ControlPlaneTest, CancelReachesARunningJob) {
  const std::string id = Submit();
  Join(false);
  AwaitState(v1::JOB_STATE_RUNNING);

  EXPECT_TRUE(plane_->jobs()->Cancel(id, "enough").ok());

  EXPECT_EQ(AwaitState(v1::JOB_STATE_CANCELLED), "cancelled: enough");
  EXPECT_EQ(plane_->jobs()->Cancel("text-9", "").code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ControlPlaneTest, KnownRequestIdStartsNothing) {
  NewJob job;
  job.spec = OneWorkerSpec();
  job.request_id = "r";

  const std::string first = plane_->jobs()->Submit(job)->id();

  EXPECT_EQ(plane_->jobs()->Submit(job)->id(), first);
  EXPECT_EQ(plane_->store()->ListJobs(JobQuery())->size(), 1u);
}

TEST_F(ControlPlaneTest, RestartFailsWhatRanAndKeepsWhatWaited) {
  auto store = std::make_unique<MemoryJobStore>();
  NewJob job;
  job.spec = OneWorkerSpec();
  v1::Job ran = store->CreateJob(job)->job;
  ran.set_state(v1::JOB_STATE_RUNNING);
  ASSERT_TRUE(store->Commit({ran.id(), ran, std::nullopt, std::nullopt}).ok());
  const std::string waited = store->CreateJob(job)->job.id();
  plane_.reset();

  Start(std::move(store));
  watch_ = plane_->events()->Subscribe(waited, false);
  Join(true);

  EXPECT_EQ(AwaitState(v1::JOB_STATE_SUCCEEDED), "trained 2 steps");
  const v1::Job failed = plane_->store()->GetJob(ran.id())->job;
  EXPECT_EQ(failed.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(failed.reason(), "the coordinator stopped while the job ran");
  const auto events = *plane_->store()->ReadEvents(ran.id(), 0, 10);
  EXPECT_EQ(events.back().state(), v1::JOB_STATE_FAILED);
}

TEST_F(ControlPlaneTest, ShutdownLeavesStoredJobsAsTheyAre) {
  const std::string id = Submit();
  Join(false);
  AwaitState(v1::JOB_STATE_RUNNING);

  plane_->Shutdown("maintenance");

  EXPECT_EQ(plane_->store()->GetJob(id)->job.state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(watch_->Next(Deadline::Infinite()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(plane_->roster()->List().workers_size(), 0);
}

TEST_F(ControlPlaneTest, JobWantsWorkersFromItsSubmissionToItsEnd) {
  Start(std::make_unique<MemoryJobStore>(), &supply_);

  const std::string id = Submit();
  const std::vector<SuppliedJob> during = supply_.wanted();
  Join(true);
  AwaitState(v1::JOB_STATE_SUCCEEDED);
  while (!supply_.wanted().empty()) Live(kTick);

  ASSERT_EQ(during.size(), 1u);
  EXPECT_EQ(during[0].id, id);
  EXPECT_EQ(during[0].num_workers, 1);
  EXPECT_TRUE(supply_.IsAtRest(id));
}

TEST_F(ControlPlaneTest, PausedJobWantsNoWorkersUntilItIsResumed) {
  Start(std::make_unique<MemoryJobStore>(), &supply_);
  const std::string id = Submit();

  ASSERT_TRUE(plane_->jobs()->Pause(id, "").ok());
  AwaitState(v1::JOB_STATE_PAUSED);
  while (!supply_.wanted().empty()) Live(kTick);
  ASSERT_TRUE(plane_->jobs()->Resume(id).ok());

  EXPECT_EQ(supply_.wanted().size(), 1u);
  EXPECT_FALSE(supply_.IsAtRest(id));
}

TEST_F(ControlPlaneTest, JobsLeftByAFormerCoordinatorWantTheirWorkers) {
  auto store = std::make_unique<MemoryJobStore>();
  NewJob job;
  job.spec = OneWorkerSpec();
  const std::string waits = store->CreateJob(job)->job.id();
  v1::Job ended = store->CreateJob(job)->job;
  ended.set_state(v1::JOB_STATE_FAILED);
  ASSERT_TRUE(
      store->Commit({ended.id(), ended, std::nullopt, std::nullopt}).ok());

  Start(std::move(store), &supply_);

  ASSERT_EQ(supply_.wanted().size(), 1u);
  EXPECT_EQ(supply_.wanted()[0].id, waits);
  EXPECT_TRUE(supply_.IsAtRest(ended.id()));
  EXPECT_FALSE(supply_.IsAtRest("nobody-9"));
}

TEST_F(ControlPlaneTest, ShutdownEndsTheSupplyAndLeavesTheWorkers) {
  Start(std::make_unique<MemoryJobStore>(), &supply_);
  Submit();

  plane_->Shutdown("maintenance");

  EXPECT_TRUE(supply_.has_ended());
  EXPECT_EQ(supply_.wanted().size(), 1u);
}

TEST_F(ControlPlaneTest, WhatTheSupplySaysReachesTheJob) {
  Start(std::make_unique<MemoryJobStore>(), &supply_);
  const std::string id = Submit();

  supply_.Tell(id, {SupplyNotice::Kind::kTrouble, "the quota is used up"});

  for (;;) {
    const auto event = watch_->Next(Deadline::After(std::chrono::seconds(30)));
    ASSERT_TRUE(event.ok() && event->has_value());
    if ((*event)->kind() != "warning") continue;
    EXPECT_EQ((*event)->text(), "the quota is used up");
    break;
  }
}

TEST(JobRunnerTest, CancelEndsAJobWhileItsProfilerIsAtWork) {
  FakeClock clock;
  Mutex mutex;
  CondVar changed;
  bool may_return = false;
  ControlPlaneOptions options =
      Options(&clock, std::make_unique<MemoryJobStore>());
  options.profiler =
      [&](const v1::JobSpec&) -> absl::StatusOr<v1::StageProfile> {
    MutexLock lock(&mutex);
    changed.Wait(lock, [&] { return may_return; });
    return absl::CancelledError("late");
  };
  auto plane = *ControlPlane::Create(std::move(options));
  NewJob job;
  job.spec = OneWorkerSpec();
  job.spec.mutable_model()->set_kind("gpt");
  const std::string id = plane->jobs()->Submit(job)->id();
  const auto watch = plane->events()->Subscribe(id, false);
  v1::Hello hello;
  hello.set_version("1");
  hello.set_data_address(":1");
  ASSERT_TRUE(plane->jobs()
                  ->Join(hello, "h", std::make_shared<FakeWorkerSession>())
                  .ok());

  EXPECT_TRUE(plane->jobs()->Cancel(id, "").ok());

  v1::JobState state = v1::JOB_STATE_PENDING;
  while (!IsFinished(state)) {
    const auto event = watch->Next(Deadline::After(std::chrono::seconds(30)));
    ASSERT_TRUE(event.ok() && event->has_value());
    state = (*event)->state();
  }
  EXPECT_EQ(state, v1::JOB_STATE_CANCELLED);
  MutexLock lock(&mutex);
  may_return = true;
  changed.NotifyAll();
}

}  // namespace
}  // namespace deltapipe
