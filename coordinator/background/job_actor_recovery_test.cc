// How a job survives the loss of workers, pauses and the coordinator's restart,
// and how its knobs change.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/checkpoint/manifest.h"
#include "base/sample_ledger.h"
#include "coordinator/background/job_actor_fixture.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class JobActorRecoveryTest : public JobActorFixture {
 protected:
  explicit JobActorRecoveryTest(bool awaits_return = false)
      : JobActorFixture(awaits_return) {
    spec_.mutable_failure()->set_max_restarts(2);
    spec_.mutable_train()->set_steps(100);
    spec_.mutable_checkpoint()->set_keep(2);
    plan_->plan.set_num_stages(2);
    plan_->plan.set_num_replicas(2);
    plan_->plan.set_num_microbatches(2);
    plan_->plan.set_microbatch_samples(2);
    plan_->plan.set_activation_codec("int(8)");
    plan_->plan.set_activation_gradient_codec("int(8)");
    plan_->plan.set_gradient_codec("none");
    plan_->plan.set_predicted_step_seconds(0.1);
    plan_->plan.add_links()->set_boundary(0);
  }

  /// Every rank's part of a checkpoint and its answer to the manifest.
  void WriteCheckpoint(int64_t step) {
    for (int rank = 0; rank < 4; ++rank) Say(rank, PartOf(rank, step));
    for (int rank = 0; rank < 4; ++rank) Say(rank, StoredOf(step));
  }
  v1::WorkerMessage PartOf(int rank, int64_t step) {
    v1::WorkerMessage message;
    Fill(message.mutable_shards());
    message.mutable_shards()->set_step(step);
    v1::CheckpointFile* file = message.mutable_shards()->add_files();
    file->set_name(absl::StrCat("rank-", rank, ".safetensors"));
    file->set_bytes(10);
    file->set_digest("00000000000000aa");
    return message;
  }
  v1::WorkerMessage StoredOf(int64_t step) {
    v1::WorkerMessage message;
    Fill(message.mutable_stored());
    message.mutable_stored()->set_step(step);
    return message;
  }
  /// It has ended where it was asked to, with a checkpoint of that step.
  v1::WorkerMessage PausedOf(int64_t step) {
    v1::WorkerMessage message = DoneOf(true);
    message.mutable_done()->set_checkpoint_step(step);
    return message;
  }
  v1::WorkerMessage StoppedOf() { return ErrorOf("stopped", true); }
  /// All assigned workers get ready, from a checkpoint of that step.
  void GetReady(int64_t restored_step) {
    generation_ = Job().generation();
    for (int rank = 0; rank < 4; ++rank) {
      v1::WorkerMessage message = ReadyOf(99);
      message.mutable_ready()->set_restored_step(restored_step);
      message.mutable_ready()->set_restored_generation(1);
      SayAs(Job().members(rank).worker_id(), message);
    }
  }
  void StopAllThatAreLeft() {
    const v1::Job job = Job();
    for (const v1::JobMember& member : job.members()) {
      SayAs(member.worker_id(), StoppedOf());
    }
  }
  void SayAs(const std::string& worker_id, const v1::WorkerMessage& message) {
    actor_->Handle(WorkerSpoke{worker_id, message});
  }
  /// What was sent of one kind since the last look.
  std::vector<v1::CoordinatorMessage> SentTo(
      int rank, v1::CoordinatorMessage::MessageCase kind) {
    std::vector<v1::CoordinatorMessage> found;
    for (const auto& message : JobActorFixture::SentTo(rank)) {
      if (message.message_case() == kind) found.push_back(message);
    }
    return found;
  }
  void Drain(int rank) {
    absl::Status told = absl::UnknownError("not answered");
    actor_->Handle(
        WorkerLeaves{WorkerId(rank), "drained",
                     [&](const absl::Status& status) { told = status; }});
    EXPECT_TRUE(told.ok()) << told;
  }
  /// Asks for other activations; the answer is in answers_.
  void Tune(const std::string& codec, const TuningRequestKey& key = {}) {
    TuningRequested request;
    request.key = key;
    request.principal = "ann";
    request.reason = "a thin line";
    request.make_next = [codec](const v1::Tuning& current, const v1::JobSpec&,
                                const v1::Plan&) {
      v1::Tuning next = current;
      next.mutable_boundaries(0)->set_activations(codec);
      MakeNextRevision(current, &next);
      return next;
    };
    request.reply = [this](const absl::StatusOr<v1::Tuning>& tuning) {
      answers_.push_back(tuning);
    };
    actor_->Handle(request);
  }
  v1::WorkerMessage AnswerOf(uint32_t revision, const std::string& error = "") {
    v1::WorkerMessage message;
    Fill(message.mutable_tuning());
    message.mutable_tuning()->set_revision(revision);
    if (!error.empty()) {
      message.mutable_tuning()->set_error_code(3);
      message.mutable_tuning()->set_error_message(error);
    }
    return message;
  }
  v1::WorkerMessage AppliedOf(uint32_t revision, int64_t step) {
    v1::WorkerMessage message;
    Fill(message.mutable_tuning_applied());
    message.mutable_tuning_applied()->set_revision(revision);
    message.mutable_tuning_applied()->set_effective_step(step);
    return message;
  }

  std::vector<absl::StatusOr<v1::Tuning>> answers_;
};

TEST_F(JobActorRecoveryTest, ALostWorkerIsReplacedAndTrainingGoesOn) {
  StartTraining();
  for (int64_t step = 0; step < 7; ++step) ReportStep(step);
  WriteCheckpoint(5);
  ReportStep(7);
  AddWorkers(1);  // a spare
  const uint64_t before = Job().generation();

  Lose(2);
  for (int rank : {0, 1, 3}) Say(rank, StoppedOf());

  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING);
  EXPECT_GT(Job().generation(), before);
  // Those that stayed keep their ranks, and the files that belong to them.
  EXPECT_EQ(Job().members(0).worker_id(), "worker-1");
  EXPECT_EQ(Job().members(2).worker_id(), "worker-5");
  EXPECT_EQ(Job().members(3).worker_id(), "worker-4");
  const auto assigned = SentTo(0, v1::CoordinatorMessage::kAssignment);
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_TRUE(assigned[0].assignment().resume());
  EXPECT_THAT(EventTexts("restart"),
              ElementsAre(AllOf(
                  HasSubstr("worker-3 (stage 1, replica 0"),
                  HasSubstr("goes back to step 5, its last checkpoint"))));

  GetReady(5);
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  EXPECT_THAT(Job().reason(),
              HasSubstr("from step 5 on (checkpoint step-000000005-g1)"));
  EXPECT_EQ(Job().step(), 5);
  EXPECT_EQ(Job().restarts(), 1);
}

TEST_F(JobActorRecoveryTest, WithoutASpareItWaitsAtTheHeadOfTheLine) {
  StartTraining();
  Lose(0);
  for (int rank : {1, 2, 3}) Say(rank, StoppedOf());

  EXPECT_EQ(Job().state(), v1::JOB_STATE_PENDING);
  AddWorkers(1);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Job().members(0).worker_id(), "worker-5");
}

TEST_F(JobActorRecoveryTest, AfterSomeTriesInVainItFails) {
  StartTraining();
  ReportStep(0);
  for (int i = 0; i < 2; ++i) {
    Lose(i);
    StopAllThatAreLeft();
    AddWorkers(1);
    GetReady(0);
    ASSERT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
  }

  Lose(2);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(Job().reason(),
              HasSubstr("started again 2 times without getting further than "
                        "step 1 (failure.max_restarts)"));
}

TEST_F(JobActorRecoveryTest, GettingFurtherEarnsFurtherTries) {
  StartTraining();
  for (int i = 0; i < 4; ++i) {
    const v1::Job job = Job();
    for (int rank = 0; rank < 4; ++rank) {
      SayAs(job.members(rank).worker_id(), StepOf(rank, i));
    }
    Lose(i);
    StopAllThatAreLeft();
    AddWorkers(1);
    GetReady(i + 1);

    EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
    EXPECT_EQ(Job().restarts(), i + 1);
  }
}

/// Replicas do 2 micro-batches of 2 samples in a step, or leave some out.
class LeavesWorkOutTest : public JobActorRecoveryTest {
 protected:
  LeavesWorkOutTest() { spec_.mutable_stragglers()->set_policy("drop"); }

  /// A step in which replica r did microbatches[r], on the job's workers.
  void ReportWork(int64_t step, const std::vector<int>& microbatches) {
    const v1::Job job = Job();
    for (int rank = 0; rank < 4; ++rank) {
      const int executed = microbatches[static_cast<size_t>(rank % 2)];
      v1::WorkerMessage message = StepOf(rank, step);
      message.mutable_step()->set_steps(1);
      message.mutable_step()->add_microbatches(executed);
      message.mutable_step()->set_dropped_samples(2 * (2 - executed));
      message.set_sequence(++sequence_);  // so that it is stored
      SayAs(job.members(rank).worker_id(), message);
    }
  }
  /// As GetReady; of a checkpoint before which so many were left out.
  void GetReadyAfterDropping(int64_t restored_step, int64_t dropped) {
    generation_ = Job().generation();
    const v1::Job job = Job();
    for (const v1::JobMember& member : job.members()) {
      v1::WorkerMessage message = ReadyOf(99);
      message.mutable_ready()->set_restored_step(restored_step);
      message.mutable_ready()->set_restored_generation(1);
      message.mutable_ready()->set_restored_samples_dropped(dropped);
      SayAs(member.worker_id(), message);
    }
  }
  /// As `deltapipe job audit` asks.
  LedgerAudit Audit() {
    const auto stored = store_.GetJob("text-1");
    LedgerQuestion question;
    question.order.num_samples = stored->progress->train_samples();
    question.order.num_slots = 4;
    question.order.microbatch = 2;
    for (const v1::CommittedRange& told : stored->progress->ledger()) {
      question.ranges.push_back({told.generation(), told.first_step(),
                                 told.end_step(), told.samples_applied(),
                                 told.samples_dropped(),
                                 told.dropped_before()});
      question.num_steps_begun =
          std::max(question.num_steps_begun, told.end_step());
    }
    return AuditLedger(question);
  }

  int64_t sequence_ = 0;
};

TEST_F(LeavesWorkOutTest, TheNextGenerationIsToldWhatToDoAgain) {
  StartTraining();
  ReportWork(0, {2, 2});
  ReportWork(1, {2, 1});
  WriteCheckpoint(1);
  ReportWork(2, {0, 2});

  Lose(2);
  StopAllThatAreLeft();
  AddWorkers(1);

  ASSERT_EQ(Job().state(), v1::JOB_STATE_STARTING) << Job().reason();
  const auto sent = SentTo(1, v1::CoordinatorMessage::kAssignment);
  ASSERT_EQ(sent.size(), 1u);
  std::vector<std::string> executed;
  for (const v1::ExecutedStep& step : sent[0].assignment().executed()) {
    executed.push_back(absl::StrCat(step.step(), ": ", step.microbatches(0),
                                    " ", step.microbatches(1)));
  }
  EXPECT_THAT(executed, ElementsAre("0: 2 2", "1: 2 1", "2: 0 2"));
}

TEST_F(LeavesWorkOutTest, StepsBeforeTheOldestCheckpointAreForgotten) {
  StartTraining();
  for (int64_t step = 0; step < 4; ++step) {
    ReportWork(step, {2, 1});
    WriteCheckpoint(step + 1);
  }

  // The checkpoints of 3 and 4 steps are kept.
  const auto progress = *store_.GetJob("text-1")->progress;
  ASSERT_EQ(progress.executed_size(), 1);
  EXPECT_EQ(progress.executed(0).step(), 3);
}

TEST_F(LeavesWorkOutTest, AppliedAndDroppedAddUpOverGenerations) {
  StartTraining();
  ReportWork(0, {2, 2});
  ReportWork(1, {2, 1});  // 2 samples
  WriteCheckpoint(2);
  ReportWork(2, {0, 2});  // 4, to be done again
  Lose(2);
  StopAllThatAreLeft();
  AddWorkers(1);
  GetReadyAfterDropping(2, 2);
  ASSERT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
  ReportWork(2, {0, 2});             // 4
  ReportWork(3, {1, 1});             // 4
  Advance(std::chrono::seconds(2));  // stores the progress

  const LedgerAudit audit = Audit();

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_EQ(audit.num_steps, 4);
  EXPECT_EQ(audit.samples_per_step, 8);
  EXPECT_EQ(audit.consumed, 4 * 8);
  EXPECT_EQ(audit.dropped, 2 + 4 + 4);
  EXPECT_EQ(audit.applied, 4 * 8 - 10);
  EXPECT_EQ(audit.replaced, 8);
}

TEST_F(LeavesWorkOutTest, AuditFindsDropsThatACheckpointDoesNotKnow) {
  StartTraining();
  ReportWork(0, {2, 1});
  WriteCheckpoint(1);
  Lose(2);
  StopAllThatAreLeft();
  AddWorkers(1);
  GetReadyAfterDropping(1, 0);  // 2 were left out
  ASSERT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
  ReportWork(1, {2, 2});
  Advance(std::chrono::seconds(2));

  EXPECT_THAT(Audit().findings,
              Contains(HasSubstr("0 samples dropped, expected 2")));
}

TEST_F(JobActorRecoveryTest, PauseWritesACheckpointAndFreesTheWorkers) {
  StartTraining();
  ReportStep(0);
  absl::Status answer = absl::UnknownError("not answered");
  actor_->Handle(PauseRequested{
      "dinner", [&](const absl::Status& status) { answer = status; }});

  ASSERT_TRUE(answer.ok()) << answer;
  EXPECT_EQ(Job().wish(), v1::JOB_WISH_PAUSE);
  const auto stops = SentTo(1, v1::CoordinatorMessage::kStop);
  ASSERT_EQ(stops.size(), 1u);
  EXPECT_TRUE(stops[0].stop().writes_checkpoint());
  EXPECT_FALSE(stops[0].stop().at_once());
  ReportStep(1);
  WriteCheckpoint(2);
  for (int rank = 0; rank < 4; ++rank) Say(rank, PausedOf(2));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(Job().reason(), "paused: dinner, at step 2");
  EXPECT_EQ(Job().checkpoint_step(), 2);
  EXPECT_EQ(Job().wish(), v1::JOB_WISH_UNSPECIFIED);
  EXPECT_EQ(NumIdle(), 4);
  EXPECT_TRUE(actor_->is_done());
}

TEST_F(JobActorRecoveryTest, APauseLeavesNothingOutOfTheTotals) {
  StartTraining();
  ReportStep(0);
  actor_->Handle(PauseRequested{"", [](const absl::Status&) {}});
  WriteCheckpoint(1);
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf(true));
  ASSERT_EQ(Job().state(), v1::JOB_STATE_PAUSED);

  const StoredJob stored = *store_.GetJob("text-1");
  v1::Job resumed = stored.job;
  resumed.set_resume(true);
  actor_ =
      std::make_unique<JobActor>(resumed, services_, [](const v1::JobSpec&) {});
  actor_->Start(stored.progress);
  GetReady(1);
  for (int64_t step = 1; step < 100; ++step) ReportStep(step);
  for (int rank = 0; rank < 4; ++rank) Say(rank, DoneOf());

  EXPECT_EQ(Job().state(), v1::JOB_STATE_SUCCEEDED) << Job().reason();
  EXPECT_EQ(Job().result().gradient_wire_bytes(), 800);
}

TEST_F(JobActorRecoveryTest, APauseThatCannotBeStoredIsRefused) {
  StartTraining();
  store_.FailCommits(absl::ResourceExhaustedError("disk full"));
  absl::Status answer;
  actor_->Handle(
      PauseRequested{"", [&](const absl::Status& status) { answer = status; }});

  EXPECT_EQ(answer.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(SentTo(0, v1::CoordinatorMessage::kStop), IsEmpty());
}

TEST_F(JobActorRecoveryTest, WithoutACheckpointThePauseIsOff) {
  StartTraining();
  actor_->Handle(PauseRequested{});
  for (int rank = 0; rank < 4; ++rank) {
    v1::WorkerMessage part = PartOf(rank, 1);
    if (rank == 2) part.mutable_shards()->set_error("No space left on device");
    Say(rank, part);
  }

  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Job().wish(), v1::JOB_WISH_UNSPECIFIED);
  const auto commits = SentTo(3, v1::CoordinatorMessage::kCommitCheckpoint);
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_EQ(commits[0].commit_checkpoint().manifest(), "");
  EXPECT_THAT(EventTexts("warning"),
              ElementsAre(HasSubstr("No space left on device"),
                          HasSubstr("not paused, training goes on")));
}

TEST_F(JobActorRecoveryTest, AWorkerThatLeavesIsReplacedWithoutLosingAStep) {
  StartTraining();
  ReportStep(0);
  AddWorkers(1);
  v1::WorkerMessage leaving;
  leaving.mutable_leaving()->set_reason("SIGTERM");
  Say(3, leaving);
  ReportStep(1);
  WriteCheckpoint(2);
  for (int rank = 0; rank < 4; ++rank) Say(rank, PausedOf(2));

  EXPECT_TRUE(sessions_[3]->is_closed());  // it was said goodbye to
  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Job().members(3).worker_id(), "worker-5");
  GetReady(2);
  EXPECT_EQ(Job().step(), 2);
  EXPECT_EQ(Job().restarts(), 0);
}

TEST_F(JobActorRecoveryTest, DamagedCheckpointsAreTold) {
  StartTraining();
  Lose(0);
  for (int rank : {1, 2, 3}) Say(rank, StoppedOf());
  AddWorkers(1);
  generation_ = Job().generation();
  for (int rank = 0; rank < 4; ++rank) {
    v1::WorkerMessage message = ReadyOf(99);
    message.mutable_ready()->add_notes("stage-1 is torn");
    SayAs(Job().members(rank).worker_id(), message);
  }

  EXPECT_THAT(EventTexts("checkpoint"),
              ElementsAre(HasSubstr("stage-1 is torn")));
  EXPECT_THAT(Job().reason(), HasSubstr("from the beginning"));
}

class CoordinatorRestartTest : public JobActorRecoveryTest {
 protected:
  CoordinatorRestartTest() : JobActorRecoveryTest(true) {}

  /// The actor is gone with its coordinator; another begins with the store.
  void Restart() {
    actor_.reset();
    for (const auto& session : sessions_) session->TakeSent();
    successor_ = std::make_unique<Roster>(RosterOptionsFor(true), &clock_);
    services_.roster = successor_.get();
    const StoredJob stored = *store_.GetJob("text-1");
    actor_ = std::make_unique<JobActor>(stored.job, services_,
                                        [](const v1::JobSpec&) {});
    if (stored.job.state() == v1::JOB_STATE_PENDING) {
      actor_->Start(stored.progress, stored.tuning_answers);
    } else {
      actor_->GoOn(stored.plan, stored.progress, stored.stragglers,
                   stored.tuning_answers);
    }
  }
  v1::Welcome Rejoin(int rank, uint64_t generation) {
    v1::Hello hello;
    hello.set_version("1");
    hello.set_host("host-b");
    hello.set_pid(812);
    hello.set_data_address(":4000");
    hello.set_worker_id(WorkerId(rank));
    hello.mutable_held()->set_job_id("text-1");
    hello.mutable_held()->set_generation(generation);
    const auto welcome = services_.roster->Join(
        hello, "10.0.0.2", sessions_[static_cast<size_t>(rank)]);
    EXPECT_TRUE(welcome.ok()) << welcome.status();
    if (welcome->keeps_assignment()) {
      actor_->Handle(WorkerReturned{WorkerId(rank)});
    }
    return *welcome;
  }
  v1::WorkerMessage Numbered(v1::WorkerMessage message, int64_t sequence) {
    message.set_sequence(sequence);
    return message;
  }

  std::unique_ptr<Roster> successor_;
};

TEST_F(CoordinatorRestartTest, NoStepIsLostAndNoneCountedTwice) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) {
    Say(rank, Numbered(StepOf(rank, 0), 1));
  }
  Advance(std::chrono::seconds(2));  // stores progress
  const auto acknowledged = SentTo(1, v1::CoordinatorMessage::kAcknowledge);
  ASSERT_EQ(acknowledged.size(), 1u);
  EXPECT_EQ(acknowledged[0].acknowledge().sequence(), 1);
  Say(0, Numbered(StepOf(0, 1), 2));  // was not stored

  Restart();
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(Rejoin(rank, generation_).keeps_assignment());
    // All that was not acknowledged, and, of a hasty worker, what was.
    Say(rank, Numbered(StepOf(rank, 0), 1));
    Say(rank, Numbered(StepOf(rank, 1), 2));
    Say(rank, Numbered(StepOf(rank, 2), 3));
  }

  EXPECT_EQ(actor_->step(), 3);
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Job().generation(), generation_);
  EXPECT_EQ(SentTo(2, v1::CoordinatorMessage::kStart).size(), 1u);
  std::vector<int64_t> steps;
  for (const v1::JobEvent& event : Events()) {
    if (event.kind() == "step") steps.push_back(event.step().step());
  }
  EXPECT_THAT(steps, ElementsAre(0, 1, 2));
}

TEST_F(CoordinatorRestartTest, AJobThatWasStartingAgainStartsAgain) {
  StartTraining();
  for (int64_t step = 0; step < 7; ++step) ReportStep(step);
  WriteCheckpoint(5);
  AddWorkers(1);
  auto departed = *roster_.Leave(WorkerId(2), sessions_[2].get());
  ASSERT_TRUE(roster_.Forget(WorkerId(2)));
  departed.is_away = false;
  actor_->Handle(WorkerGone{departed});
  for (int rank : {0, 1, 3}) Say(rank, StoppedOf());
  ASSERT_EQ(Job().state(), v1::JOB_STATE_STARTING);
  const uint64_t before = Job().generation();

  Restart();
  for (int rank : {0, 1, 3}) {
    // What they held has not begun: they are free for the next try.
    EXPECT_FALSE(Rejoin(rank, before).keeps_assignment()) << rank;
  }
  AddWorkers(1);

  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING) << Job().reason();
  EXPECT_GT(Job().generation(), before);
}

TEST_F(CoordinatorRestartTest, WhoIsNotBackYetIsNotBlamed) {
  StartTraining();
  for (int rank = 0; rank < 4; ++rank) Say(rank, Numbered(StepOf(rank, 0), 1));
  Advance(std::chrono::seconds(2));
  Restart();
  // worker-3 is dead, and its neighbour says so before the others are back.
  EXPECT_TRUE(Rejoin(0, generation_).keeps_assignment());
  Say(0, ErrorOf("cannot reach worker-3", true));
  EXPECT_TRUE(Rejoin(1, generation_).keeps_assignment());
  EXPECT_TRUE(Rejoin(3, generation_).keeps_assignment());
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);

  Advance(std::chrono::seconds(4));
  const auto texts = EventTexts("restart");
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_THAT(texts[0], HasSubstr("worker-3 (stage 1, replica 0"));
  EXPECT_THAT(texts[0], HasSubstr("was lost at step 2"));
}

TEST_F(CoordinatorRestartTest, ADecidedChangeIsCarriedThrough) {
  StartTraining();
  Tune("int(4)");
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  ASSERT_EQ(SentTo(0, v1::CoordinatorMessage::kDecideTuning).size(), 1u);

  Restart();  // before anybody said that it holds
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(Rejoin(rank, generation_).keeps_assignment());
  }
  bool is_decided = false;
  for (const auto& message : JobActorFixture::SentTo(2)) {
    if (message.has_prepare_tuning()) {
      EXPECT_EQ(message.prepare_tuning().tuning().boundaries(0).activations(),
                "int(4)");
    }
    is_decided |= message.has_decide_tuning();
  }
  EXPECT_TRUE(is_decided);
  Say(1, AppliedOf(2, 9));

  EXPECT_THAT(EventTexts("tuning"), ElementsAre(HasSubstr("ann set")));
  // The next change is another revision.
  Tune("int(2)");
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(3));
  Say(0, AppliedOf(3, 12));
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(answers_[0].ok()) << answers_[0].status();
}

TEST_F(CoordinatorRestartTest, ARequestIsKnownToASuccessor) {
  StartTraining();
  Tune("int(4)", {"a", 7});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(1, AppliedOf(2, 9));
  Restart();

  Tune("int(4)", {"a", 7});

  ASSERT_EQ(answers_.size(), 2u);
  ASSERT_TRUE(answers_[1].ok()) << answers_[1].status();
  EXPECT_EQ(answers_[1]->effective_step(), 9);
  EXPECT_EQ(answers_[1]->SerializeAsString(), answers_[0]->SerializeAsString());
}

TEST_F(CoordinatorRestartTest, ARequestThatWasDecidedIsAnsweredByASuccessor) {
  StartTraining();
  Tune("int(4)", {"a", 7});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Restart();  // before anybody said that it holds
  for (int rank = 0; rank < 4; ++rank) Rejoin(rank, generation_);

  Tune("int(4)", {"a", 7});
  EXPECT_THAT(answers_, IsEmpty());
  Say(1, AppliedOf(2, 9));

  ASSERT_EQ(answers_.size(), 1u);
  ASSERT_TRUE(answers_[0].ok()) << answers_[0].status();
  EXPECT_EQ(answers_[0]->effective_step(), 9);
  EXPECT_THAT(EventTexts("tuning"), ElementsAre(HasSubstr("ann set")));
}

TEST_F(CoordinatorRestartTest, ACheckpointThatWasPromisedIsAskedForAgain) {
  StartTraining();
  ReportStep(0);
  absl::Status answer = absl::UnknownError("not answered");
  actor_->Handle(CheckpointRequested{
      [&](const absl::Status& status) { answer = status; }});
  ASSERT_TRUE(answer.ok()) << answer;

  Restart();
  EXPECT_TRUE(Rejoin(1, generation_).keeps_assignment());
  const auto asked = SentTo(1, v1::CoordinatorMessage::kRequestCheckpoint);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].request_checkpoint().after_step(), 1);
  for (int rank : {0, 2, 3}) Rejoin(rank, generation_);
  WriteCheckpoint(2);

  Restart();
  EXPECT_TRUE(Rejoin(1, generation_).keeps_assignment());
  EXPECT_THAT(SentTo(1, v1::CoordinatorMessage::kRequestCheckpoint), IsEmpty());
}

TEST_F(CoordinatorRestartTest, AChangeThatCannotBeStoredIsNotDecided) {
  StartTraining();
  Tune("int(4)");
  for (int rank = 0; rank < 3; ++rank) Say(rank, AnswerOf(2));
  store_.FailCommits(absl::ResourceExhaustedError("disk full"));
  Say(3, AnswerOf(2));

  const auto decided = SentTo(0, v1::CoordinatorMessage::kDecideTuning);
  ASSERT_EQ(decided.size(), 1u);
  EXPECT_FALSE(decided[0].decide_tuning().commit());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(CoordinatorRestartTest, WhoDoesNotComeBackIsLost) {
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));
  Restart();
  for (int rank : {0, 1, 2}) Rejoin(rank, generation_);

  clock_.Advance(std::chrono::seconds(13));  // more than 3 x 4 s
  for (int rank : {0, 1, 2}) services_.roster->Heard(WorkerId(rank));
  const auto silent = services_.roster->RemoveSilent();
  ASSERT_EQ(silent.size(), 1u);
  actor_->Handle(WorkerGone{silent[0]});

  EXPECT_THAT(EventTexts("restart"),
              ElementsAre(AllOf(HasSubstr("worker-4"),
                                HasSubstr("did not come back"))));
}

TEST_F(CoordinatorRestartTest, WorkersOfAnotherGenerationDropWhatTheyHold) {
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));
  Restart();

  EXPECT_FALSE(Rejoin(1, generation_ + 5).keeps_assignment());
}

TEST_F(CoordinatorRestartTest, ACancelThatWasAcknowledgedIsObeyed) {
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));
  actor_->Handle(CancelRequested{"enough"});
  Restart();
  Rejoin(0, generation_);

  const auto stops = SentTo(0, v1::CoordinatorMessage::kStop);
  ASSERT_EQ(stops.size(), 1u);
  EXPECT_EQ(stops[0].stop().reason(), "cancelled: enough");
}

class StoppedForALeaverTest : public CoordinatorRestartTest,
                              public ::testing::WithParamInterface<int> {};

// The coordinator had stopped all workers for one that was to leave, and went
// before all of them had ended.
TEST_P(StoppedForALeaverTest, GoesOnWithASuccessor) {
  const int num_ended = GetParam();
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));  // stores progress
  Drain(3);
  ReportStep(1);
  WriteCheckpoint(2);
  for (int rank = 0; rank < num_ended; ++rank) Say(rank, PausedOf(2));

  Restart();
  for (int rank = num_ended; rank < 4; ++rank) {
    EXPECT_TRUE(Rejoin(rank, generation_).keeps_assignment());
  }
  for (int rank = num_ended; rank < 4; ++rank) Say(rank, PausedOf(2));

  EXPECT_EQ(Job().state(), v1::JOB_STATE_PENDING) << Job().reason();
  EXPECT_THAT(EventTexts("state"),
              ::testing::Contains(AllOf(HasSubstr("starts again: worker-4"),
                                        HasSubstr("leaves: drained"),
                                        HasSubstr("at step 2"))));
  EXPECT_TRUE(sessions_[3]->is_closed());
  EXPECT_EQ(Job().restarts(), 0);
  EXPECT_TRUE(Job().resume());
}

INSTANTIATE_TEST_SUITE_P(Ended, StoppedForALeaverTest, ::testing::Values(0, 3));

TEST_F(CoordinatorRestartTest, WorkersThatHeardNothingOfADrainAreStopped) {
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));
  Drain(3);
  Restart();
  for (int rank = 0; rank < 4; ++rank) Rejoin(rank, generation_);

  for (int rank = 0; rank < 4; ++rank) {
    const auto stops = SentTo(rank, v1::CoordinatorMessage::kStop);
    ASSERT_EQ(stops.size(), 1u) << rank;
    EXPECT_TRUE(stops[0].stop().writes_checkpoint());
    EXPECT_THAT(stops[0].stop().reason(), HasSubstr("leaves: drained"));
  }
}

// Its goodbye was lost with the coordinator.
TEST_F(CoordinatorRestartTest, ADrainedWorkerThatComesBackIdleIsSentAway) {
  StartTraining();
  ReportStep(0);
  Advance(std::chrono::seconds(2));
  Drain(3);
  ReportStep(1);
  WriteCheckpoint(2);
  for (int rank = 0; rank < 4; ++rank) Say(rank, PausedOf(2));
  ASSERT_EQ(Job().state(), v1::JOB_STATE_PENDING);
  Restart();
  sessions_[3] = std::make_shared<FakeWorkerSession>();
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_FALSE(Rejoin(rank, generation_).keeps_assignment());
  }
  actor_->Handle(RosterChanged{});
  EXPECT_TRUE(sessions_[3]->is_closed());
  EXPECT_EQ(Job().state(), v1::JOB_STATE_PENDING);

  AddWorkers(1);
  EXPECT_EQ(Job().state(), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Job().members(3).leaves(), "");
}

TEST_F(JobActorRecoveryTest, AWorkerThatTheJobIsDoneWithIsNotItsToDrain) {
  StartTraining();
  Say(3, DoneOf());
  absl::Status told;
  const auto keep = [&](const absl::Status& status) { told = status; };
  actor_->Handle(WorkerLeaves{WorkerId(3), "drained", keep});
  EXPECT_EQ(told.code(), absl::StatusCode::kNotFound) << told;
  actor_->Handle(WorkerLeaves{"worker-9", "drained", keep});
  EXPECT_EQ(told.code(), absl::StatusCode::kNotFound) << told;
  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
}

TEST_F(CoordinatorRestartTest, AnOpenCheckpointIsCommittedByTheSuccessor) {
  StartTraining();
  ReportStep(0);
  for (int rank = 0; rank < 4; ++rank) Say(rank, PartOf(rank, 1));
  const auto first = SentTo(0, v1::CoordinatorMessage::kCommitCheckpoint);
  Restart();
  for (int rank = 0; rank < 4; ++rank) Rejoin(rank, generation_);
  const auto again = SentTo(0, v1::CoordinatorMessage::kCommitCheckpoint);
  for (int rank = 0; rank < 4; ++rank) Say(rank, StoredOf(1));

  ASSERT_EQ(first.size(), 1u);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].commit_checkpoint().manifest(),
            first[0].commit_checkpoint().manifest());
  EXPECT_EQ(Job().checkpoint_step(), 1);
}

TEST_F(CoordinatorRestartTest, ABrokenStreamAloneChangesNothing) {
  StartTraining();
  const auto departed = roster_.Leave(WorkerId(1), sessions_[1].get());
  ASSERT_TRUE(departed.has_value() && departed->is_away);
  actor_->Handle(WorkerGone{*departed});

  EXPECT_EQ(Job().state(), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(Rejoin(1, generation_).keeps_assignment());
  EXPECT_THAT(EventTexts("restart"), IsEmpty());
}

TEST_F(CoordinatorRestartTest, ABrokenStreamThatPeersFeelTooIsALoss) {
  StartTraining();
  const auto departed = roster_.Leave(WorkerId(1), sessions_[1].get());
  actor_->Handle(WorkerGone{*departed});
  Say(0, ErrorOf("worker-2 closed the connection", true));

  EXPECT_THAT(EventTexts("restart"),
              ElementsAre(AllOf(HasSubstr("worker-2"),
                                HasSubstr("its peers cannot reach it"))));
}

class TuningTest : public JobActorRecoveryTest {};

TEST_F(TuningTest, IsPreparedByAllBeforeItIsDecided) {
  StartTraining();
  Tune("int(4)");
  const auto prepare = SentTo(0, v1::CoordinatorMessage::kPrepareTuning);
  ASSERT_EQ(prepare.size(), 1u);
  EXPECT_EQ(prepare[0].prepare_tuning().tuning().boundaries(0).activations(),
            "int(4)");
  for (int rank = 0; rank < 3; ++rank) Say(rank, AnswerOf(2));
  EXPECT_THAT(SentTo(0, v1::CoordinatorMessage::kDecideTuning), IsEmpty());
  Say(3, AnswerOf(2));

  const auto decided = SentTo(0, v1::CoordinatorMessage::kDecideTuning);
  ASSERT_EQ(decided.size(), 1u);
  EXPECT_TRUE(decided[0].decide_tuning().commit());
  EXPECT_THAT(answers_, IsEmpty());
  Say(1, AppliedOf(2, 41));

  ASSERT_EQ(answers_.size(), 1u);
  ASSERT_TRUE(answers_[0].ok()) << answers_[0].status();
  EXPECT_EQ(answers_[0]->effective_step(), 41);
  EXPECT_THAT(EventTexts("tuning"),
              ElementsAre("ann set boundaries[0].activations=int(4) (was "
                          "boundaries[0].activations=int(8)) from step 42 on: "
                          "a thin line"));
}

TEST_F(TuningTest, OneWorkerThatCannotChangesNothingAnywhere) {
  StartTraining();
  Tune("int(4)");
  Say(0, AnswerOf(2));
  Say(2, AnswerOf(2, "no memory"));

  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(answers_[0].status().message()),
      AllOf(HasSubstr("worker-3 (stage 1, replica 0"), HasSubstr("no memory")));
  const auto decided = SentTo(1, v1::CoordinatorMessage::kDecideTuning);
  ASSERT_EQ(decided.size(), 1u);
  EXPECT_FALSE(decided[0].decide_tuning().commit());
}

TEST_F(TuningTest, SilenceIsARefusal) {
  StartTraining();
  Tune("int(4)");
  Advance(std::chrono::seconds(6));

  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(TuningTest, ChangesComeOneAfterTheOther) {
  StartTraining();
  Tune("int(4)");
  Tune("int(2)");
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));
  const auto second = SentTo(0, v1::CoordinatorMessage::kPrepareTuning);
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(3));
  Say(0, AppliedOf(3, 12));

  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1]->revision(), 3u);
  EXPECT_EQ(second.back().prepare_tuning().tuning().revision(), 3u);
}

TEST_F(TuningTest, ARequestThatIsSentAgainChangesNothing) {
  StartTraining();
  Tune("int(4)", {"a", 7});
  Tune("int(4)", {"a", 7});  // while the first is on its way
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));
  Tune("int(2)", {"b", 8});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(3));
  Say(0, AppliedOf(3, 12));
  for (const auto& session : sessions_) session->TakeSent();
  EventTexts("tuning");

  Tune("int(4)", {"a", 7});

  ASSERT_EQ(answers_.size(), 4u);
  for (int i : {1, 3}) {
    ASSERT_TRUE(answers_[i].ok()) << answers_[i].status();
    EXPECT_EQ(answers_[i]->SerializeAsString(),
              answers_[0]->SerializeAsString());
  }
  EXPECT_EQ(answers_[0]->effective_step(), 10);
  EXPECT_THAT(SentTo(0, v1::CoordinatorMessage::kPrepareTuning), IsEmpty());
  EXPECT_THAT(EventTexts("tuning"), IsEmpty());
}

TEST_F(TuningTest, AnIdStandsForOneRequest) {
  StartTraining();
  Tune("int(4)", {"a", 7});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));

  Tune("int(2)", {"a", 8});

  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1].status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TuningTest, WhoWasRefusedMayAskAgain) {
  StartTraining();
  Tune("int(4)", {"a", 7});
  Say(0, AnswerOf(2, "no memory"));
  Tune("int(4)", {"a", 7});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));

  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_FALSE(answers_[0].ok());
  EXPECT_TRUE(answers_[1].ok()) << answers_[1].status();
}

TEST_F(TuningTest, AllThatWaitAreAnsweredWhenTheyAreRepetitions) {
  StartTraining();
  for (int i = 0; i < 4; ++i) Tune("int(4)", {"a", 7});
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));

  EXPECT_EQ(answers_.size(), 4u);
}

TEST_F(TuningTest, ARestartKeepsWhatWasInForce) {
  StartTraining();
  Tune("int(4)");
  for (int rank = 0; rank < 4; ++rank) Say(rank, AnswerOf(2));
  Say(0, AppliedOf(2, 10));
  Lose(0);
  for (int rank : {1, 2, 3}) Say(rank, StoppedOf());
  AddWorkers(1);

  const auto assigned = SentTo(1, v1::CoordinatorMessage::kAssignment);
  ASSERT_EQ(assigned.size(), 1u);
  EXPECT_EQ(assigned[0].assignment().tuning().boundaries(0).activations(),
            "int(4)");
}

}  // namespace
}  // namespace deltapipe
