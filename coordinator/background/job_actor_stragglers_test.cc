// How a job looks for stragglers, with scripted workers on a fake clock.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/background/job_actor_fixture.h"
#include "coordinator/stragglers/straggler_memory.h"
#include "coordinator/stragglers/testing_timings.h"
#include "coordinator/stragglers/testing_traces.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr unsigned kSeed = 7;

/// Keeps what it is told of traces and stragglers.
class TraceSink : public MetricSink {
 public:
  void JobStarted(const v1::Job&, const v1::Plan&) override {}
  void JobChanged(const v1::Job&) override {}
  void WorkerReported(const std::string&, int, int,
                      const v1::StepReport&) override {}
  void WentBack(const std::string&, const std::string&) override {}
  void StepCompleted(const std::string&, const v1::StepSummary&) override {}
  void Validated(const std::string&, const v1::StepSummary&) override {}
  void CheckpointCommitted(const std::string&, int64_t, int64_t, double,
                           double) override {}
  void StragglersJudged(const std::string&,
                        const v1::StragglerAnalysis& analysis) override {
    analyses.push_back(analysis);
  }
  void Traced(const std::string&, int stage, int replica,
              const v1::StepTrace& trace) override {
    traced.push_back(trace.step());
  }

  std::vector<v1::StragglerAnalysis> analyses;
  std::vector<int64_t> traced;  // steps
};

NoisyJob TwoByTwo() {
  NoisyJob job;
  job.num_stages = 2;
  job.num_replicas = 2;
  job.num_microbatches = 4;
  job.jitter = 0.02;
  return job;
}

class JobActorStragglersTest : public JobActorFixture {
 protected:
  explicit JobActorStragglersTest(bool awaits_return = false)
      : JobActorFixture(awaits_return), source_(TwoByTwo(), kSeed) {
    RecordProperty("seed", kSeed);
    spec_.mutable_train()->set_steps(1000);
    spec_.mutable_failure()->set_max_restarts(1);
    spec_.mutable_stragglers()->set_policy("detect");
    plan_->plan.set_num_stages(2);
    plan_->plan.set_num_replicas(2);
    plan_->plan.set_num_microbatches(4);
    services_.metrics = &sink_;
  }

  /// One step of all workers, who trace as they are asked.
  void RunStep() {
    const StepTimings timings = source_.Step(step_);
    for (int rank = 0; rank < 4; ++rank) {
      Say(rank, StepOf(rank, step_));
      SendDueTrace(rank, timings);
      Listen(rank);
    }
    clock_.Advance(step_time_);
    ++step_;
  }
  void RunSteps(int count) {
    for (int i = 0; i < count; ++i) RunStep();
  }
  void SendDueTrace(int rank, const StepTimings& timings) {
    int& due = due_[static_cast<size_t>(rank)];
    if (due == 0) return;
    --due;
    v1::WorkerMessage message;
    *message.mutable_trace() =
        TraceOf(timings.workers[static_cast<size_t>(rank)], step_);
    Fill(message.mutable_trace());
    Say(rank, message);
  }
  /// As a worker does: a request replaces the one before.
  void Listen(int rank) {
    for (const v1::CoordinatorMessage& message : SentTo(rank)) {
      if (!message.has_request_trace()) continue;
      due_[static_cast<size_t>(rank)] = message.request_trace().steps();
      if (rank == 0) asked_.push_back(message.request_trace().steps());
    }
  }
  void ListenAll() {
    for (int rank = 0; rank < 4; ++rank) Listen(rank);
  }
  absl::Status AskAsUser(int steps) {
    absl::Status answer = absl::UnknownError("no answer");
    actor_->Handle(TraceRequested{
        steps, [&answer](const absl::Status& status) { answer = status; }});
    ListenAll();
    return answer;
  }

  TraceSink sink_;
  TimingsSource source_;
  int64_t step_ = 0;
  Nanos step_time_ = std::chrono::milliseconds(50);
  std::vector<int> due_ = std::vector<int>(4, 0);
  uint32_t num_tunings_ = 0;
  std::vector<int> asked_;  // steps, of each request that rank 0 got
};

TEST_F(JobActorStragglersTest, OneStepInTenIsSampledAndNoUserSeesIt) {
  StartTraining();

  RunSteps(100);

  EXPECT_THAT(asked_,
              AllOf(SizeIs(::testing::Ge(8u)), SizeIs(::testing::Le(10u)),
                    ::testing::Each(StragglerWatch::kMinTracedSteps)));
  EXPECT_THAT(sink_.analyses, SizeIs(::testing::Ge(8u)));
  EXPECT_THAT(sink_.traced, IsEmpty());
  EXPECT_THAT(EventTexts("warning"), IsEmpty());
}

TEST_F(JobActorStragglersTest, ShortStepsAreSampledLessOften) {
  step_time_ = std::chrono::milliseconds(1);
  StartTraining();

  RunSteps(500);

  // One in 100 ms, and a step or two until it begins.
  EXPECT_THAT(asked_,
              AllOf(SizeIs(::testing::Ge(4u)), SizeIs(::testing::Le(5u))));
}

TEST_F(JobActorStragglersTest, PolicyNoneSamplesNothing) {
  spec_.mutable_stragglers()->set_policy("none");
  StartTraining();
  source_.SlowCompute(1, 1, 2);

  RunSteps(100);

  EXPECT_THAT(asked_, IsEmpty());
  EXPECT_THAT(sink_.analyses, IsEmpty());
}

TEST_F(JobActorStragglersTest, StragglerIsNamedWithItsMachineAndItsEndIsTold) {
  StartTraining();
  source_.SlowCompute(1, 1, 1.5);
  RunSteps(110);
  const auto found = EventTexts("warning");
  const v1::StragglerAnalysis analysis = sink_.analyses.back();
  source_.Heal();
  RunSteps(110);
  const auto cleared = EventTexts("warning");

  ASSERT_FALSE(found.empty());
  EXPECT_THAT(found[0],
              AllOf(HasSubstr("stage 1, replica 1 (worker-4 on host-b) "
                              "computes 1.5"),
                    HasSubstr("s a step lost; cause: compute")));
  ASSERT_GT(analysis.stragglers_size(), 0);
  EXPECT_EQ(analysis.stragglers(0).stage(), 1);
  EXPECT_EQ(analysis.stragglers(0).replica(), 1);
  EXPECT_EQ(analysis.stragglers(0).worker_id(), "worker-4");
  EXPECT_EQ(analysis.stragglers(0).cause(), "compute");
  EXPECT_NEAR(analysis.stragglers(0).slowdown(), 1.5, 0.1);
  EXPECT_GT(analysis.stragglers(0).seconds_lost_per_step(), 0);
  EXPECT_EQ(analysis.scores_size(), 4);
  EXPECT_GT(analysis.step_seconds(), analysis.ideal_seconds());
  EXPECT_EQ(cleared.size(), found.size());
  EXPECT_THAT(cleared[0], HasSubstr("slows the job down no longer"));
  EXPECT_EQ(sink_.analyses.back().stragglers_size(), 0);
}

TEST_F(JobActorStragglersTest, UserAsksDuringASampleAndGetsTheirOwnSteps) {
  StartTraining();
  while (asked_.empty()) RunStep();  // by now all work on the sample
  ListenAll();

  const absl::Status answer = AskAsUser(3);
  EXPECT_TRUE(answer.ok()) << answer;
  EXPECT_THAT(asked_, SizeIs(1));  // it waits its turn
  RunSteps(10);

  ASSERT_THAT(asked_, SizeIs(::testing::Ge(2u)));
  EXPECT_EQ(asked_[1], 3);
  EXPECT_THAT(sink_.traced, SizeIs(3 * 4));
}

TEST_F(JobActorStragglersTest, OfTwoUsersWhoWaitNoneIsLeftWithTooFew) {
  StartTraining();
  while (asked_.empty()) RunStep();
  EXPECT_TRUE(AskAsUser(5).ok());
  EXPECT_TRUE(AskAsUser(1).ok());

  RunSteps(12);

  EXPECT_THAT(sink_.traced, SizeIs(5 * 4));
}

TEST_F(JobActorStragglersTest, NothingIsSampledWhileAUserTraces) {
  StartTraining();
  RunSteps(5);

  EXPECT_TRUE(AskAsUser(40).ok());
  RunSteps(38);
  EXPECT_THAT(asked_, ElementsAre(40));
  RunSteps(20);

  EXPECT_THAT(sink_.traced, SizeIs(40 * 4));
  EXPECT_GT(asked_.size(), 1u);
}

TEST_F(JobActorStragglersTest, TraceThatIsLostHoldsUpNeitherSamplesNorUsers) {
  StartTraining();
  while (asked_.empty()) RunStep();
  ListenAll();
  due_[2] = 0;  // its connection broke, say
  EXPECT_TRUE(AskAsUser(2).ok());

  // The patience is 12 steps and 5 seconds, of 50 ms steps.
  RunSteps(110);

  EXPECT_THAT(sink_.traced, SizeIs(2 * 4));
  EXPECT_THAT(sink_.analyses, SizeIs(::testing::Ge(1u)));
}

TEST_F(JobActorStragglersTest, PolicyOfRunTimeHoldsAndNoneForgets) {
  StartTraining();
  source_.SlowCompute(1, 1, 1.5);
  RunSteps(110);
  ASSERT_GT(sink_.analyses.back().stragglers_size(), 0);
  const auto set_policy = [&](const std::string& policy) {
    TuningRequested request;
    request.make_next = [policy](const v1::Tuning& current, const v1::JobSpec&,
                                 const v1::Plan&) {
      v1::Tuning next = current;
      next.set_revision(current.revision() + 1);
      next.set_straggler_policy(policy);
      return next;
    };
    uint32_t revision = 0;
    request.reply = [&revision](const absl::StatusOr<v1::Tuning>& tuning) {
      ASSERT_TRUE(tuning.ok()) << tuning.status();
      revision = tuning->revision();
    };
    actor_->Handle(request);
    const uint32_t wanted = ++num_tunings_ + 1;
    for (int rank = 0; rank < 4; ++rank) {
      v1::WorkerMessage message;
      Fill(message.mutable_tuning());
      message.mutable_tuning()->set_revision(wanted);
      Say(rank, message);
    }
    v1::WorkerMessage applied;
    Fill(applied.mutable_tuning_applied());
    applied.mutable_tuning_applied()->set_revision(wanted);
    Say(0, applied);
    ASSERT_EQ(revision, wanted);
    ListenAll();
  };

  set_policy("none");
  RunSteps(3);
  const size_t asked = asked_.size();
  EXPECT_EQ(sink_.analyses.back().scores_size(), 0);
  RunSteps(50);
  EXPECT_THAT(asked_, SizeIs(asked));
  set_policy("drop");
  RunSteps(30);

  EXPECT_GT(asked_.size(), asked);
}

TEST_F(JobActorStragglersTest, MovedMicrobatchesAreAnEventThatSaysWhoAndWhy) {
  StartTraining();
  v1::WorkerMessage message = StepOf(0, step_);
  v1::Rebalancing* told = message.mutable_step()->add_rebalancings();
  told->set_step(46);
  for (const int count : {4, 4}) told->add_before(count);
  for (const int count : {5, 3}) told->add_after(count);
  told->set_replica(1);
  told->set_why("replica 1 differs from the others for long");

  Say(0, message);

  EXPECT_THAT(EventTexts("rebalance"),
              ::testing::Contains(
                  "from step 47 on replicas have 5, 3 micro-batches, before "
                  "4, 4: replica 1 differs from the others for long"));
}

class StragglersRestartTest : public JobActorStragglersTest {
 protected:
  StragglersRestartTest() : JobActorStragglersTest(true) {}

  /// Another coordinator goes on with the store; all workers come back.
  void Restart(const std::string& stragglers) {
    actor_.reset();
    for (const auto& session : sessions_) session->TakeSent();
    due_.assign(4, 0);
    successor_ = std::make_unique<Roster>(RosterOptionsFor(true), &clock_);
    services_.roster = successor_.get();
    const StoredJob stored = *store_.GetJob("text-1");
    actor_ = std::make_unique<JobActor>(stored.job, services_,
                                        [](const v1::JobSpec&) {});
    actor_->GoOn(stored.plan, stored.progress, stragglers);
    for (int rank = 0; rank < 4; ++rank) {
      v1::Hello hello;
      hello.set_version("1");
      hello.set_host("host-b");
      hello.set_data_address(":4000");
      hello.set_worker_id(WorkerId(rank));
      hello.mutable_held()->set_job_id("text-1");
      hello.mutable_held()->set_generation(generation_);
      const auto welcome = successor_->Join(
          hello, "10.0.0.2", sessions_[static_cast<size_t>(rank)]);
      ASSERT_TRUE(welcome.ok()) << welcome.status();
      actor_->Handle(WorkerReturned{WorkerId(rank)});
    }
  }
  std::string Stored() { return store_.GetJob("text-1")->stragglers; }

  std::unique_ptr<Roster> successor_;
};

TEST_F(StragglersRestartTest, WhatWasFoundIsKnownAtOnceAndToldOnce) {
  StartTraining();
  source_.SlowCompute(1, 1, 1.5);
  RunSteps(110);
  const v1::StragglerAnalysis before = sink_.analyses.back();
  ASSERT_GT(before.stragglers_size(), 0);
  const size_t num_told = EventTexts("warning").size();
  sink_.analyses.clear();

  Restart(Stored());
  ASSERT_THAT(sink_.analyses, SizeIs(1));
  const v1::StragglerAnalysis after = sink_.analyses.back();
  RunSteps(110);
  EXPECT_THAT(EventTexts("warning"), IsEmpty());
  source_.Heal();
  RunSteps(110);

  EXPECT_GT(num_told, 0u);
  EXPECT_EQ(after.stragglers_size(), before.stragglers_size());
  EXPECT_EQ(after.stragglers(0).worker_id(), "worker-4");
  EXPECT_EQ(after.stragglers(0).since_step(),
            before.stragglers(0).since_step());
  EXPECT_EQ(after.stragglers(0).since_time_millis(),
            before.stragglers(0).since_time_millis());
  EXPECT_EQ(after.scores_size(), 4);
  EXPECT_THAT(EventTexts("warning"),
              ::testing::Contains(HasSubstr("slows the job down no longer")));
  EXPECT_EQ(sink_.analyses.back().stragglers_size(), 0);
}

TEST_F(StragglersRestartTest, WhatCannotBeReadOrIsOfOthersIsForgotten) {
  StartTraining();
  source_.SlowCompute(1, 1, 1.5);
  RunSteps(110);
  StragglerMemory of_others = *ReadStragglerMemory(Stored(), 2, 2);
  ++of_others.generation;
  sink_.analyses.clear();

  for (const std::string& text :
       {std::string("{"), StragglerMemoryText(of_others), std::string()}) {
    Restart(text);
    EXPECT_THAT(sink_.analyses, IsEmpty()) << text;
    EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  }
}

TEST_F(JobActorStragglersTest, GenerationBeginsWithoutFindings) {
  StartTraining();
  source_.SlowCompute(1, 1, 1.5);
  RunSteps(110);
  ASSERT_GT(sink_.analyses.back().stragglers_size(), 0);
  const size_t judged = sink_.analyses.size();

  Lose(3);
  for (int rank = 0; rank < 3; ++rank) Say(rank, ErrorOf("stopped", true));
  AddWorkers(1);
  generation_ = Job().generation();
  ASSERT_EQ(Job().state(), v1::JOB_STATE_STARTING) << Job().reason();
  const v1::Job job = Job();
  for (const v1::JobMember& member : job.members()) {
    actor_->Handle(WorkerSpoke{member.worker_id(), ReadyOf(99)});
  }
  ASSERT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
  due_.assign(4, 0);
  step_ = 0;
  for (int rank = 0; rank < 4; ++rank) SentTo(rank);
  // Ranks 0 to 2 as before; rank 3 is the worker that came.
  for (int i = 0; i < 30; ++i) {
    const StepTimings timings = source_.Step(step_);
    for (int rank = 0; rank < 4; ++rank) {
      const std::string id = job.members(rank).worker_id();
      const size_t session = rank == 3 ? 4 : static_cast<size_t>(rank);
      actor_->Handle(WorkerSpoke{id, StepOf(rank, step_)});
      if (due_[static_cast<size_t>(rank)] > 0) {
        --due_[static_cast<size_t>(rank)];
        v1::WorkerMessage message;
        *message.mutable_trace() =
            TraceOf(timings.workers[static_cast<size_t>(rank)], step_);
        Fill(message.mutable_trace());
        actor_->Handle(WorkerSpoke{id, message});
      }
      for (const auto& sent : sessions_[session]->TakeSent()) {
        if (sent.has_request_trace()) {
          due_[static_cast<size_t>(rank)] = sent.request_trace().steps();
        }
      }
    }
    clock_.Advance(std::chrono::milliseconds(50));
    ++step_;
  }

  ASSERT_GT(sink_.analyses.size(), judged);
  EXPECT_EQ(sink_.analyses.back().stragglers_size(), 0);
}

}  // namespace
}  // namespace deltapipe
