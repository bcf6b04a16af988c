// The life of a job with scripted workers, a fake clock and no thread.
#include "coordinator/background/job_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/background/job_actor_fixture.h"
#include "coordinator/launch/fake_worker_supply.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using JobActorTest = JobActorFixture;

TEST_F(JobActorTest, WaitsForWorkersAndSaysHowManyAreMissing) {
  Submit();
  EXPECT_THAT(Job().reason(), HasSubstr("4 missing"));
  AddWorkers(1);
  EXPECT_THAT(EventTexts("worker"), IsEmpty());  // they may just be starting
  Advance(JobActor::kQuietWait);
  AddWorkers(2);

  EXPECT_THAT(EventTexts("worker"),
              ElementsAre("waits for 4 workers: 1 idle, 3 missing (each is a "
                          "deltapipe-worker --coordinator HOST:PORT)",
                          "waits for 4 workers: 3 idle, 1 missing (each is a "
                          "deltapipe-worker --coordinator HOST:PORT)"));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_PENDING);
  EXPECT_THAT(Job().reason(), HasSubstr("1 missing"));
}

TEST_F(JobActorTest, TroubleOfTheSupplyIsToldAndIsTheReasonUntilItIsOver) {
  FakeWorkerSupply supply;
  services_.supply = &supply;
  Submit();
  const std::string before = Job().reason();

  actor_->Handle(
      SupplyTold{{SupplyNotice::Kind::kTrouble, "403: is the Role bound?"}});
  const std::string during = Job().reason();
  actor_->Handle(SupplyTold{{SupplyNotice::Kind::kLaunched, "4 workers"}});

  const std::string missing =
      "waits for 4 workers: 0 idle, 4 missing (a fake brings those of text-1)";
  EXPECT_EQ(before, missing);
  EXPECT_EQ(during, missing + "; 403: is the Role bound?");
  EXPECT_EQ(Job().reason(), missing);
  EXPECT_THAT(EventTexts("warning"), ElementsAre("403: is the Role bound?"));
}

TEST_F(JobActorTest, EndOfAWorkersPodIsAnEventAndNoTrouble) {
  FakeWorkerSupply supply;
  services_.supply = &supply;
  StartTraining();

  actor_->Handle(SupplyTold{
      {SupplyNotice::Kind::kWorkerEnded, "worker 2 ended (exit code 8)"}});

  EXPECT_THAT(EventTexts("worker"), Contains("worker 2 ended (exit code 8)"));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
}

TEST_F(JobActorTest, AssignsEveryRankItsPartOfThePlan) {
  spec_.mutable_parallel()->set_threads(0);
  Submit();
  AddWorkers(4);

  ASSERT_EQ(plan_requests_.size(), 1u);
  EXPECT_EQ(plan_requests_[0].worker_memory_bytes, 1000 / 4);  // one host
  for (int rank = 0; rank < 4; ++rank) {
    const auto sent = SentTo(rank);
    ASSERT_EQ(sent.size(), 2u);  // Welcome, Assignment
    const v1::Assignment& assignment = sent[1].assignment();
    EXPECT_EQ(assignment.job_id(), "text-1");
    EXPECT_EQ(assignment.generation(), Job().generation());
    EXPECT_EQ(assignment.rank(), rank);
    EXPECT_EQ(assignment.threads(), 2);  // 8 cores, 4 workers
    EXPECT_EQ(assignment.wait_seconds(), 90);
    EXPECT_EQ(assignment.start_seconds(), 570);
    EXPECT_EQ(assignment.plan().schedule(), "1f1b+1");
    EXPECT_EQ(assignment.run_folder(), "");  // the worker's own
    ASSERT_EQ(assignment.peers_size(), 4);
    EXPECT_EQ(assignment.peers(3).stage(), 1);
    EXPECT_EQ(assignment.peers(3).replica(), 1);
    EXPECT_EQ(assignment.peers(3).worker_id(), "worker-4");
    EXPECT_EQ(assignment.peers(3).data_address(), "10.0.0.2:4000");
  }
  EXPECT_EQ(store_.GetJob("text-1")->plan->schedule(), "1f1b+1");
  EXPECT_THAT(EventTexts("plan"), ElementsAre("schedule: auto became 1f1b+1"));
  EXPECT_EQ(Job().workers(0), "worker-1 (host-b 10.0.0.2:4000)");
}

TEST_F(JobActorTest, ReplicasOfANodeAreSeatedOnOneHost) {
  spec_.mutable_parallel()->set_stages(1);
  spec_.mutable_parallel()->set_replicas(4);
  spec_.mutable_parallel()->set_nodes(2);
  Submit();
  AddWorkers(1, "host-a");
  AddWorkers(1, "host-b");
  AddWorkers(1, "host-c");
  AddWorkers(1, "host-b");

  const v1::Job job = Job();
  std::vector<std::string> hosts;
  for (const v1::JobMember& member : job.members()) {
    hosts.push_back(member.host());
  }
  EXPECT_THAT(hosts, ElementsAre("host-b", "host-b", "host-a", "host-c"));
  EXPECT_THAT(EventTexts("warning"),
              ElementsAre(HasSubstr("replicas 2 to 3 of stage 0 count as one "
                                    "node, but their workers are on host-a, "
                                    "host-c")));
}

TEST_F(JobActorTest, SuccessfulRunEndsWithItsResult) {
  StartTraining();
  for (int64_t step = 0; step < 3; ++step) ReportStep(step);
  v1::WorkerMessage validation;
  Fill(validation.mutable_validation());
  validation.mutable_validation()->set_step(2);
  validation.mutable_validation()->set_loss(1.5);
  validation.mutable_validation()->set_tokens(100);
  Say(2, validation);
  Say(3, validation);
  clock_.Advance(std::chrono::seconds(12));
  v1::WorkerMessage writer = DoneOf();
  writer.mutable_done()->set_model_path("/runs/x/model.safetensors");
  Say(0, writer);
  for (int rank = 1; rank < 4; ++rank) Say(rank, DoneOf());

  const v1::Job job = Job();
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED) << job.reason();
  EXPECT_EQ(job.reason(), "trained 3 steps");
  EXPECT_EQ(job.step(), 3);
  EXPECT_EQ(job.model_folder(), "host-b:/runs/x");
  EXPECT_EQ(job.result().steps(), 3);
  EXPECT_DOUBLE_EQ(job.result().train_loss(), 2.0);
  EXPECT_DOUBLE_EQ(job.result().validation_loss(), 1.5);
  EXPECT_DOUBLE_EQ(job.result().wall_seconds(), 12);
  EXPECT_EQ(job.result().gradient_wire_bytes(), 400);
  EXPECT_TRUE(actor_->is_done());
  EXPECT_EQ(NumIdle(), 4);
  const auto events = Events();
  EXPECT_EQ(events.back().kind(), "state");
  EXPECT_EQ(events.back().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(events.back().result().steps(), 3);
}

TEST_F(JobActorTest, StepsAreShownButNotStored) {
  StartTraining();
  Events();
  ReportStep(1);

  const auto events = Events();

  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind(), "step");
  EXPECT_EQ(events[0].sequence(), 0);
  EXPECT_EQ(events[0].step().total_steps(), 3);
  EXPECT_EQ(actor_->step(), 2);
  const auto stored = *store_.ReadEvents("text-1", 0, 100);
  for (const v1::JobEvent& event : stored) {
    EXPECT_NE(event.kind(), "step");
  }
}

TEST_F(JobActorTest, RealModelsAreProfiledWithTheThreadsTheyWillHave) {
  spec_.mutable_model()->set_kind("gpt");
  Submit();
  AddWorkers(4);
  ASSERT_EQ(profiled_specs_.size(), 1u);
  EXPECT_EQ(profiled_specs_[0].parallel().threads(), 2);
  EXPECT_EQ(profiled_specs_[0].parallel().device(), "auto");  // not this host
  EXPECT_THAT(plan_requests_, IsEmpty());
  v1::StageProfile profile;
  profile.add_layers()->set_name("embedding");

  actor_->Handle(Profiled{profile});

  ASSERT_EQ(plan_requests_.size(), 1u);
  EXPECT_EQ(plan_requests_[0].profile.layers(0).name(), "embedding");
  EXPECT_EQ(SentTo(0).size(), 2u);
}

TEST_F(JobActorTest, WorkersOfThisHostAreProfiledOnTheirDevice) {
  spec_.mutable_model()->set_kind("gpt");
  spec_.mutable_parallel()->set_device("auto");
  services_.host = "host-b";
  Submit();
  AddWorkers(4);

  ASSERT_EQ(profiled_specs_.size(), 1u);
  EXPECT_EQ(profiled_specs_[0].parallel().device(), "cpu");
}

TEST_F(JobActorTest, SharedCoresSlowTheLayersOfThePlanDown) {
  spec_.mutable_parallel()->set_threads(4);
  Submit();
  AddWorkers(4);

  ASSERT_EQ(plan_requests_.size(), 1u);
  EXPECT_EQ(plan_requests_[0].compute_slowdown, 2);  // 16 threads, 8 cores
}

TEST_F(JobActorTest, FailedProfileFailsTheJobAndFreesTheWorkers) {
  spec_.mutable_model()->set_kind("gpt");
  Submit();
  AddWorkers(4);

  actor_->Handle(Profiled{absl::FailedPreconditionError("no such model")});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("no such model"));
  EXPECT_EQ(NumIdle(), 4);
  EXPECT_TRUE(actor_->is_done());
  EXPECT_EQ(SentTo(0).size(), 1u);  // Welcome only
}

TEST_F(JobActorTest, ImpossiblePlanFailsTheJobWithThePlannersWords) {
  plan_ = absl::ResourceExhaustedError("needs 3 GB more memory");
  Submit();
  AddWorkers(4);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("needs 3 GB more memory"));
  EXPECT_EQ(NumIdle(), 4);
}

TEST_F(JobActorTest, DifferentDataFailsTheJobAndNamesWhoDiffers) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();

  for (int rank = 0; rank < 4; ++rank) {
    Say(rank, ReadyOf(rank == 2 ? 0xabc : 0xdef));
  }

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(),
              AllOf(HasSubstr("worker-1 (stage 0, replica 0, on host-b, pid "
                              "812) (hash 0000000000000def"),
                    HasSubstr("worker-3 (stage 1, replica 0"),
                    HasSubstr("0000000000000abc"), HasSubstr("corpus.txt")));
  EXPECT_THAT(Job().reason(), testing::Not(HasSubstr("worker-4")));
}

TEST_F(JobActorTest, LostWorkerFailsTheJobAndStopsTheOthersAtOnce) {
  StartTraining();
  ReportStep(1);
  Say(2, StepOf(2, 2));

  Lose(2);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job().reason(),
            "worker-3 (stage 1, replica 0, on host-b, pid 812) was lost at "
            "step 4: its connection closed");
  const v1::StopTraining stop = StopSentTo(0);
  EXPECT_TRUE(stop.at_once());
  EXPECT_THAT(stop.reason(), HasSubstr("worker-3"));
  EXPECT_FALSE(actor_->is_done());

  for (int rank : {0, 1, 3}) Say(rank, ErrorOf("cancelled", true));
  EXPECT_TRUE(actor_->is_done());
  EXPECT_EQ(NumIdle(), 3);
  EXPECT_THAT(Job().reason(), HasSubstr("worker-3"));
}

TEST_F(JobActorTest, HeartbeatTellsTheStepOfALostWorker) {
  StartTraining();
  v1::WorkerMessage heartbeat;
  heartbeat.mutable_heartbeat()->set_job_id("text-1");
  heartbeat.mutable_heartbeat()->set_step(117);
  Say(1, heartbeat);

  Lose(1);

  EXPECT_THAT(Job().reason(), HasSubstr("was lost at step 118"));
}

TEST_F(JobActorTest, WorkerLostBeforeTrainingIsSaidSo) {
  Submit();
  AddWorkers(4);

  Lose(3);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("was lost before the first step"));
}

TEST_F(JobActorTest, SilentWorkerIsLostWithinTheJobsDetectionBudget) {
  StartTraining();
  clock_.Advance(std::chrono::seconds(4));
  for (int rank : {0, 1, 2}) roster_.Heard(WorkerId(rank));
  clock_.Advance(std::chrono::milliseconds(250));

  const auto silent = roster_.RemoveSilent();

  ASSERT_EQ(silent.size(), 1u);
  actor_->Handle(WorkerGone{silent[0]});
  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), AllOf(HasSubstr("worker-4 (stage 1, replica 1"),
                                    HasSubstr("no heartbeat for 4"),
                                    HasSubstr("detection budget 4 s")));
  EXPECT_TRUE(sessions_[3]->is_closed());
}

TEST_F(JobActorTest, RealErrorWinsOverAnEarlierConsequence) {
  StartTraining();
  Say(1, ErrorOf("peer worker-1 went away", true));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);

  Say(0, ErrorOf("out of memory", false));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(Job().reason(),
            "worker-1 (stage 0, replica 0, on host-b, pid 812): out of memory");
}

TEST_F(JobActorTest, LostWorkerWinsOverTheConsequenceItsPeersReport) {
  StartTraining();
  Say(1, ErrorOf("peer worker-1 went away", true));

  Lose(0);

  EXPECT_THAT(Job().reason(), HasSubstr("worker-1 (stage 0, replica 0"));
  EXPECT_THAT(Job().reason(), HasSubstr("its connection closed"));
}

TEST_F(JobActorTest, ConsequenceCountsWhenNoCauseTurnsUpInTime) {
  StartTraining();
  Say(1, ErrorOf("peer worker-1 went away", true));
  Advance(std::chrono::milliseconds(4900));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);

  Advance(std::chrono::milliseconds(200));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("peer worker-1 went away"));
}

// The cause was lost and the job sat until its start had taken ten minutes.
TEST_F(JobActorTest, ConsequenceCountsWhileStartingToo) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();
  for (const auto& session : sessions_) session->TakeSent();
  Say(1, ErrorOf("cannot start: cannot connect to worker-1", true));
  Advance(std::chrono::milliseconds(4900));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING);

  Advance(std::chrono::milliseconds(200));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), AllOf(HasSubstr("worker-2 (stage 0, replica 1"),
                                    HasSubstr("cannot connect to worker-1")));
  EXPECT_TRUE(StopSentTo(0).at_once());
}

TEST_F(JobActorTest, ConsequenceIsTheReasonWhenTheTimeToStartIsOver) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();
  clock_.Advance(JobActor::kStartTime - std::chrono::seconds(1));
  Say(1, ErrorOf("cannot start: cannot connect to worker-1", true));

  Advance(std::chrono::seconds(1));

  EXPECT_THAT(Job().reason(), HasSubstr("cannot connect to worker-1"));
}

TEST_F(JobActorTest, ConsequenceCountsAtOnceWhenNobodyIsLeftToAsk) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) Say(rank, ErrorOf("peers gone", true));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_TRUE(actor_->is_done());
}

TEST_F(JobActorTest, DifferentReplicasFailTheJob) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) {
    Say(rank, StepOf(rank, 1, rank == 3 ? 8 : 7));
  }

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("the weights of stage 1 differ"));
  EXPECT_TRUE(StopSentTo(0).at_once());
}

TEST_F(JobActorTest, CancelWhileWaitingEndsTheJobAtOnce) {
  Submit();

  actor_->Handle(CancelRequested{"changed my mind"});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Job().reason(), "cancelled: changed my mind");
  EXPECT_TRUE(actor_->is_done());
  AddWorkers(4);
  EXPECT_EQ(NumIdle(), 4);
}

TEST_F(JobActorTest, CancelWhileProfilingFreesTheWorkers) {
  spec_.mutable_model()->set_kind("gpt");
  Submit();
  AddWorkers(4);

  actor_->Handle(CancelRequested{""});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(NumIdle(), 4);
  actor_->Handle(Profiled{v1::StageProfile()});
  EXPECT_THAT(plan_requests_, IsEmpty());
}

TEST_F(JobActorTest, CancelWhileStartingDiscards) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();
  for (const auto& session : sessions_) session->TakeSent();

  actor_->Handle(CancelRequested{""});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(StopSentTo(0).at_once());
  EXPECT_FALSE(actor_->is_done());
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf(true));
  EXPECT_TRUE(actor_->is_done());
}

TEST_F(JobActorTest, CancelWhileRunningKeepsTheModel) {
  StartTraining();
  ReportStep(1);

  actor_->Handle(CancelRequested{"interrupted"});
  actor_->Handle(CancelRequested{"again"});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  const v1::StopTraining stop = StopSentTo(0);
  EXPECT_FALSE(stop.at_once());
  ReportStep(2);
  v1::WorkerMessage writer = DoneOf(true);
  writer.mutable_done()->set_model_path("/runs/x/model.safetensors");
  Say(0, writer);
  for (int rank = 1; rank < 4; ++rank) Say(rank, DoneOf(true));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Job().reason(), "cancelled: interrupted");
  EXPECT_EQ(Job().result().steps(), 2);
  EXPECT_EQ(Job().model_folder(), "host-b:/runs/x");
  EXPECT_TRUE(actor_->is_done());
}

TEST_F(JobActorTest, CancelThatComesTooLateLeavesASuccess) {
  StartTraining();
  for (int64_t step = 1; step <= 3; ++step) ReportStep(step);

  actor_->Handle(CancelRequested{""});
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf());

  EXPECT_EQ(Job().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(JobActorTest, WorkersThatDoNotStopAreStoppedAtOnceThenSentAway) {
  StartTraining();
  actor_->Handle(CancelRequested{""});
  for (const auto& session : sessions_) session->TakeSent();
  for (int rank = 0; rank < 3; ++rank) Say(rank, DoneOf(true));

  Advance(std::chrono::seconds(27));
  EXPECT_THAT(SentTo(3), IsEmpty());
  Advance(std::chrono::seconds(2));  // 10 s and two predicted steps have passed
  EXPECT_TRUE(StopSentTo(3).at_once());
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  Advance(std::chrono::seconds(11));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_FALSE(sessions_[3]->is_closed());
  Advance(std::chrono::seconds(11));

  EXPECT_TRUE(sessions_[3]->is_closed());
  EXPECT_TRUE(actor_->is_done());
  EXPECT_EQ(NumIdle(), 3);
}

TEST_F(JobActorTest, WorkerLostWhileStoppingStopsTheOthersAtOnce) {
  StartTraining();
  actor_->Handle(CancelRequested{""});
  for (const auto& session : sessions_) session->TakeSent();

  Lose(1);

  EXPECT_TRUE(StopSentTo(0).at_once());
  for (int rank : {0, 2, 3}) Say(rank, ErrorOf("peer gone", true));
  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(Job().reason(), HasSubstr("worker-2"));
}

TEST_F(JobActorTest, WorkersCutShortWhileStoppingAreNoSuccess) {
  StartTraining();
  actor_->Handle(CancelRequested{"interrupted"});

  for (int rank = 0; rank < 4; ++rank) Say(rank, ErrorOf("cancelled", true));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Job().reason(), "cancelled: interrupted");
}

TEST_F(JobActorTest, BudgetBelowThreeHeartbeatsIsRaisedWithAWarning) {
  spec_.mutable_failure()->set_detection_budget("100ms");
  StartTraining();

  EXPECT_THAT(EventTexts("warning"),
              ElementsAre("failure.detection_budget 100ms is raised to 1.5 s: "
                          "three heartbeats"));
  clock_.Advance(std::chrono::milliseconds(1500));
  EXPECT_THAT(roster_.RemoveSilent(), IsEmpty());
  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(roster_.RemoveSilent().size(), 4u);
}

TEST_F(JobActorTest, WorkersThatNeverGetReadyAreNamed) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();
  for (int rank : {0, 1, 3}) Say(rank, ReadyOf(1));

  Advance(JobActor::kStartTime);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), AllOf(HasSubstr("not ready within 10 min"),
                                    HasSubstr("worker-3 (stage 1")));
}

TEST_F(JobActorTest, ReportsOfAnotherGenerationAreRefused) {
  StartTraining();
  Events();
  --generation_;

  for (int rank = 0; rank < 4; ++rank) Say(rank, StepOf(rank, 1));
  Say(0, ErrorOf("from the past", false));

  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
}

TEST_F(JobActorTest, EarlyEndThatNobodyAskedForIsAFailure) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf(true));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(), HasSubstr("stopped early"));
}

TEST_F(JobActorTest, LogLinesAreKeptWithTheirWorker) {
  StartTraining();
  v1::WorkerMessage log;
  log.mutable_log()->set_text("epoch 2");
  Say(1, log);

  LogQuery query;
  query.job_id = "text-1";
  const auto lines = *store_.ReadLogs(query);

  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].line.worker_id(), "worker-2");
  EXPECT_EQ(lines[0].line.text(), "epoch 2");
}

TEST_F(JobActorTest, StoreThatCannotWriteFailsTheJobAndStillTellsItsWatchers) {
  Submit();
  AddWorkers(4);
  generation_ = Job().generation();
  for (int rank = 0; rank < 3; ++rank) Say(rank, ReadyOf(99));
  for (const auto& session : sessions_) session->TakeSent();
  Events();
  store_.FailCommits(absl::ResourceExhaustedError("disk full"));

  Say(3, ReadyOf(99));

  const auto events = Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(events[0].text(), HasSubstr("disk full"));
  EXPECT_TRUE(StopSentTo(0).at_once());
}

TEST_F(JobActorTest, NextJobGetsTheWorkersOfTheLast) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf());
  ASSERT_TRUE(actor_->is_done());
  NewJob job;
  job.spec = spec_;
  const v1::Job second = store_.CreateJob(job)->job;

  JobActor next(second, services_, nullptr);
  next.Start();

  EXPECT_EQ(store_.GetJob(second.id())->job.state(), v1::JOB_STATE_STARTING);
  EXPECT_GT(store_.GetJob(second.id())->job.generation(), generation_);
}

TEST_F(JobActorTest, ChangesToSavedActivationsAreEventsThatSayWhere) {
  StartTraining();
  v1::WorkerMessage message = StepOf(3, 0);
  message.mutable_step()->mutable_saved()->add_changes(
      "step 1: gelu moves the gradient by 0.7 of its norm: 4 bits, was 2");

  Say(3, message);

  EXPECT_THAT(EventTexts("saved"),
              ElementsAre("stage 1, replica 1: step 1: gelu moves the gradient "
                          "by 0.7 of its norm: 4 bits, was 2"));
}

TEST_F(JobActorTest, ManyChangesToSavedActivationsAreFewEvents) {
  StartTraining();
  v1::WorkerMessage message = StepOf(0, 0);
  for (int i = 0; i < 1000; ++i) {
    message.mutable_step()->mutable_saved()->add_changes("x");
  }

  Say(0, message);

  const std::vector<std::string> texts = EventTexts("saved");
  ASSERT_EQ(texts.size(), 21u);
  EXPECT_EQ(texts.back(),
            "stage 0, replica 0: 980 more changes in these steps");
}

}  // namespace
}  // namespace deltapipe
