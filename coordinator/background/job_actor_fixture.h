// A job with scripted workers, a fake clock and no thread, for tests.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_FIXTURE_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/background/job_actor.h"
#include "coordinator/store/memory_job_store.h"

namespace deltapipe {

using Sessions = std::vector<std::shared_ptr<FakeWorkerSession>>;

/// Two stages of two replicas: rank = stage * 2 + replica, worker-(rank + 1).
class JobActorFixture : public ::testing::Test {
 protected:
  explicit JobActorFixture(bool awaits_return = false)
      : roster_(RosterOptionsFor(awaits_return), &clock_),
        events_(&store_, &clock_),
        logs_(&store_) {
    spec_.set_name("text");
    spec_.mutable_model()->set_kind("synthetic");
    spec_.mutable_train()->set_steps(3);
    spec_.mutable_train()->set_batch(8);
    spec_.mutable_parallel()->set_stages(2);
    spec_.mutable_parallel()->set_replicas(2);
    spec_.mutable_data()->set_path("corpus.txt");
    spec_.mutable_failure()->set_detection_budget("4s");
    services_.store = &store_;
    services_.roster = &roster_;
    services_.events = &events_;
    services_.logs = &logs_;
    services_.clock = &clock_;
    services_.plan = [this](const PlanRequest& request) {
      plan_requests_.push_back(request);
      return plan_;
    };
    plan_->plan.set_schedule("1f1b+1");
    plan_->plan.set_predicted_step_seconds(9);
    plan_->notes = {"schedule: auto became 1f1b+1"};
  }

  void Submit() {
    NewJob job;
    job.spec = spec_;
    job.event_text = "submitted";
    const v1::Job created = store_.CreateJob(job)->job;
    watch_ = events_.Subscribe(created.id(), true);
    actor_ = std::make_unique<JobActor>(
        created, services_,
        [this](const v1::JobSpec& spec) { profiled_specs_.push_back(spec); });
    actor_->Start();
  }
  void AddWorkers(int count, const std::string& host = "host-b") {
    for (int i = 0; i < count; ++i) {
      v1::Hello hello;
      hello.set_version("1");
      hello.set_host(host);
      hello.set_pid(812);
      hello.set_data_address(":4000");
      hello.set_cores(8);
      hello.set_memory_bytes(1000 + i);
      sessions_.push_back(std::make_shared<FakeWorkerSession>());
      ASSERT_TRUE(
          services_.roster->Join(hello, "10.0.0.2", sessions_.back()).ok());
    }
    if (actor_ != nullptr) actor_->Handle(RosterChanged{});
  }
  static std::string WorkerId(int rank) {
    return absl::StrCat("worker-", rank + 1);
  }
  void Say(int rank, const v1::WorkerMessage& message) {
    actor_->Handle(WorkerSpoke{WorkerId(rank), message});
  }
  v1::WorkerMessage ReadyOf(uint64_t data_hash) {
    v1::WorkerMessage message;
    Fill(message.mutable_ready());
    message.mutable_ready()->set_data_hash(data_hash);
    message.mutable_ready()->set_train_samples(500);
    return message;
  }
  v1::WorkerMessage StepOf(int rank, int64_t step, uint64_t hash = 0) {
    v1::WorkerMessage message;
    Fill(message.mutable_step());
    message.mutable_step()->set_step(step);
    message.mutable_step()->set_has_loss(rank >= 2);
    message.mutable_step()->set_loss(2.0);
    message.mutable_step()->set_tokens(10);
    message.mutable_step()->set_step_seconds(0.5);
    message.mutable_step()->set_weights_hash(hash);
    return message;
  }
  v1::WorkerMessage DoneOf(bool is_early = false) {
    v1::WorkerMessage message;
    Fill(message.mutable_done());
    message.mutable_done()->set_stopped_early(is_early);
    message.mutable_done()->mutable_bytes()->set_gradient_wire(100);
    return message;
  }
  v1::WorkerMessage ErrorOf(const std::string& text, bool is_consequence) {
    v1::WorkerMessage message = DoneOf();
    message.mutable_done()->set_error_code(14);
    message.mutable_done()->set_error_message(text);
    message.mutable_done()->set_is_consequence(is_consequence);
    return message;
  }
  template <typename Report>
  void Fill(Report* report) {
    report->set_job_id("text-1");
    report->set_generation(generation_);
  }
  void Lose(int rank) {
    const auto departed = roster_.Leave(
        WorkerId(rank), sessions_[static_cast<size_t>(rank)].get());
    ASSERT_TRUE(departed.has_value());
    actor_->Handle(WorkerGone{*departed});
  }
  void Advance(Nanos by) {
    clock_.Advance(by);
    actor_->Handle(Tick{});
  }
  /// Submits, adds four workers, has all of them ready.
  void StartTraining() {
    Submit();
    AddWorkers(4);
    generation_ = Job().generation();
    for (int rank = 0; rank < 4; ++rank) Say(rank, ReadyOf(99));
    ASSERT_EQ(Job().state(), v1::JOB_STATE_RUNNING) << Job().reason();
    for (const auto& session : sessions_) session->TakeSent();
  }
  void ReportStep(int64_t step) {
    for (int rank = 0; rank < 4; ++rank) Say(rank, StepOf(rank, step));
  }

  v1::Job Job() { return store_.GetJob("text-1")->job; }
  std::vector<v1::JobEvent> Events() {
    std::vector<v1::JobEvent> events;
    for (;;) {
      const auto next = watch_->Next(Deadline::After(Nanos(0)));
      if (!next.ok() || !next->has_value()) return events;
      events.push_back(**next);
    }
  }
  std::vector<std::string> EventTexts(const std::string& kind) {
    std::vector<std::string> texts;
    for (const v1::JobEvent& event : Events()) {
      if (event.kind() == kind) texts.push_back(event.text());
    }
    return texts;
  }
  std::vector<v1::CoordinatorMessage> SentTo(int rank) {
    return sessions_[static_cast<size_t>(rank)]->TakeSent();
  }
  /// The one StopTraining that a worker was sent since the last look.
  v1::StopTraining StopSentTo(int rank) {
    const auto sent = SentTo(rank);
    EXPECT_EQ(sent.size(), 1u);
    return sent.empty() ? v1::StopTraining() : sent.back().stop();
  }
  int NumIdle() {
    int num_idle = 0;
    const v1::ListWorkersResponse list = roster_.List();
    for (const v1::Worker& worker : list.workers()) {
      num_idle += worker.state() == "idle";
    }
    return num_idle;
  }

  static RosterOptions RosterOptionsFor(bool awaits_return) {
    RosterOptions options;
    options.version = "1";
    options.awaits_return = awaits_return;
    return options;
  }

  FakeClock clock_;
  MemoryJobStore store_;
  Roster roster_;
  EventLog events_;
  LogBook logs_;
  v1::JobSpec spec_;
  JobServices services_;
  absl::StatusOr<PlanAnswer> plan_ = PlanAnswer();
  std::vector<PlanRequest> plan_requests_;
  std::vector<v1::JobSpec> profiled_specs_;
  Sessions sessions_;
  uint64_t generation_ = 0;
  std::unique_ptr<EventLog::Subscription> watch_;
  std::unique_ptr<JobActor> actor_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_JOB_ACTOR_FIXTURE_H_
