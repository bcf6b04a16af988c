// Jobs that lose workers, their coordinator, or are stopped and resumed: they
// end as if nothing had happened, bit for bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr int kSteps = 120;

/// Everything that has to be restored: momenta, residuals, records of deltas.
/// Of two layers, so that measured costs cannot move the cut, and with it what
/// is quantised, from one run to the next.
std::vector<std::string> JobArguments() {
  std::vector<std::string> arguments;
  for (const char* setting :
       {"model.layers=2", "train.steps=120", "train.optimizer.kind=onebit_lamb",
        "train.optimizer.learning_rate=2e-3",
        "train.optimizer.compress_after_step=20",
        "compression.activations=delta(int(4),first=int(8))",
        "compression.activation_gradients=int(8)", "compression.verdict=tell",
        "checkpoint.every=10", "failure.detection_budget=3s"}) {
    arguments.insert(arguments.end(), {"--set", setting});
  }
  return arguments;
}

/// The loss last told of each step.
std::map<int, double> LossesOf(const std::string& output) {
  std::map<int, double> losses;
  Outcome outcome;
  outcome.output = output;
  for (const nlohmann::json& event : outcome.Events("step")) {
    losses[event.value("step", 0)] = event.value("loss", 0.0);
  }
  return losses;
}

class RecoveryTest : public testing::Test {
 protected:
  std::vector<std::string> RunArguments(const std::string& name) {
    std::vector<std::string> arguments = {"run", "job.yaml", "--json", "--set",
                                          "name=" + name};
    const std::vector<std::string> job = JobArguments();
    arguments.insert(arguments.end(), job.begin(), job.end());
    return arguments;
  }
  std::map<int, double> Undisturbed() {
    const Outcome whole = bench_.Run(RunArguments("whole"));
    EXPECT_EQ(whole.exit_code, 0) << whole.text;
    const std::map<int, double> losses = LossesOf(whole.output);
    EXPECT_THAT(losses, SizeIs(kSteps));
    return losses;
  }
  std::unique_ptr<Process> StartUntilStep(
      const std::vector<std::string>& arguments, int step) {
    auto run = bench_.Start(arguments);
    EXPECT_TRUE(run->WaitForOutput(
        [&](const std::string& text) {
          return CountEvents(text, "step") >= step;
        },
        seconds(60)))
        << run->all();
    return run;
  }

  /// A run with these settings, one of whose workers is killed after `step`.
  Outcome RunAndKillAWorker(const std::string& name, int step,
                            const std::vector<std::string>& settings) {
    std::vector<std::string> arguments = RunArguments(name);
    for (const std::string& setting : settings) {
      arguments.insert(arguments.end(), {"--set", setting});
    }
    auto run = StartUntilStep(arguments, step);
    const std::vector<RunningProcess> workers = bench_.Workers();
    EXPECT_THAT(workers, SizeIs(4));
    if (workers.size() == 4) kill(workers[2].pid, SIGKILL);
    Outcome outcome = bench_.Finish(run.get(), seconds(60));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    return outcome;
  }

  /// Samples applied and dropped; -1 where the run gave no result.
  static std::pair<int64_t, int64_t> SamplesOf(const Outcome& outcome) {
    const std::vector<nlohmann::json> results = outcome.Events("result");
    EXPECT_THAT(results, SizeIs(1));
    if (results.empty()) return {-1, -1};
    return {results[0].value("samples_applied", int64_t{-1}),
            results[0].value("samples_dropped", int64_t{-1})};
  }

  /// Steps that are told of twice are the same twice.
  static void ExpectSameAgain(const Outcome& outcome) {
    std::map<int, double> first;
    int num_again = 0;
    for (const nlohmann::json& event : outcome.Events("step")) {
      const int step = event.value("step", 0);
      const double loss = event.value("loss", 0.0);
      const auto [told, is_new] = first.emplace(step, loss);
      if (is_new) continue;
      ++num_again;
      EXPECT_EQ(loss, told->second) << "step " << step;
    }
    EXPECT_THAT(first, SizeIs(kSteps));
    EXPECT_GE(num_again, 1);
  }

  Workbench bench_;
};

TEST_F(RecoveryTest, AKilledWorkerOfARunIsReplaced) {
  const std::map<int, double> expected = Undisturbed();
  auto run = StartUntilStep(RunArguments("killed"), 25);
  const std::vector<RunningProcess> workers = bench_.Workers();
  ASSERT_THAT(workers, SizeIs(4));

  kill(workers[1].pid, SIGKILL);
  const Outcome outcome = bench_.Finish(run.get(), seconds(60));

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_EQ(LossesOf(outcome.output), expected);
  EXPECT_THAT(outcome.Events("restart"), SizeIs(1));
}

// What was left out of a step depends on clocks and on the steps before; done
// again, the step is the same all the same.
TEST_F(RecoveryTest, StepsDoneAgainLeaveOutWhatTheyHadLeftOut) {
  const Outcome outcome = RunAndKillAWorker(
      "dropping", 25,
      {"train.microbatch=1", "stragglers.policy=drop", "stragglers.tau=3ms",
       "stragglers.max_drop_rate=0.4", "stragglers.requeue=on",
       "stragglers.inject=\"lognormal:2\""});

  ExpectSameAgain(outcome);
  const auto [applied, dropped] = SamplesOf(outcome);
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(applied + dropped, kSteps * 16);
}

// Whose micro-batches are whose depends on clocks, too. Replica 1 is slow from
// the beginning, and has fewer by step 60.
TEST_F(RecoveryTest, StepsDoneAgainHaveTheCountsThatTheyHad) {
  const Outcome outcome =
      RunAndKillAWorker("moving", 65,
                        {"train.microbatch=1", "stragglers.policy=rebalance",
                         "stragglers.inject=\"slow:rank=1,x=3\""});

  ExpectSameAgain(outcome);
  const std::vector<nlohmann::json> moved = outcome.Events("rebalance");
  ASSERT_THAT(moved, Not(IsEmpty()));
  EXPECT_THAT(moved[0].value("text", ""),
              HasSubstr("micro-batches, before 8, 8: replica 1 differs"));
  EXPECT_EQ(SamplesOf(outcome),
            std::make_pair(int64_t{kSteps * 16}, int64_t{0}));
}

TEST_F(RecoveryTest, StepsDoneAgainPackSavedActivationsAsTheyDid) {
  // Bits are planned after the first step and raised after each fifth; what was
  // decided is in checkpoints.
  const std::vector<std::string> settings = {
      "compression.saved_activations=actnn(bits=2)",
      "compression.saved_probe_every=5", "compression.saved_error_limit=0.02"};
  ExpectSameAgain(RunAndKillAWorker("packed", 20, settings));
  // Steps alternate between two instances of the model, and each decides for
  // itself.
  std::vector<std::string> in_turns = settings;
  in_turns.push_back("parallel.schedule=2bw");
  ExpectSameAgain(RunAndKillAWorker("in-turns", 25, in_turns));
}

TEST_F(RecoveryTest, SigtermPausesARunThatResumeEnds) {
  const std::map<int, double> expected = Undisturbed();
  auto run = StartUntilStep(RunArguments("paused"), 25);

  run->Signal(SIGTERM);
  const Outcome paused = bench_.Finish(run.get(), seconds(30));
  std::vector<std::string> arguments = RunArguments("paused");
  arguments.push_back("--resume");
  const Outcome resumed = bench_.Run(arguments);

  EXPECT_EQ(paused.exit_code, 8) << paused.text;
  EXPECT_EQ(resumed.exit_code, 0) << resumed.text;
  std::map<int, double> losses = LossesOf(paused.output);
  const std::map<int, double> rest = LossesOf(resumed.output);
  EXPECT_EQ(rest.begin()->first, losses.rbegin()->first + 1) << "no step twice";
  losses.insert(rest.begin(), rest.end());
  EXPECT_EQ(losses, expected);
}

// What is measured when the job goes on may call for another cut.
TEST_F(RecoveryTest, ResumeKeepsTheCutThatTheCheckpointIsOf) {
  const auto arguments = [&](const std::string& name, const std::string& cut) {
    std::vector<std::string> arguments = RunArguments(name);
    arguments.insert(arguments.end(), {"--set", "model.layers=4", "--set",
                                       "parallel.partition=" + cut});
    return arguments;
  };
  auto run = StartUntilStep(arguments("cut", "3,1"), 25);
  run->Signal(SIGTERM);
  const Outcome paused = bench_.Finish(run.get(), seconds(30));
  ASSERT_EQ(paused.exit_code, 8) << paused.text;
  std::vector<std::string> resume = arguments("cut", "auto");
  resume.push_back("--resume");

  const Outcome resumed = bench_.Run(resume);

  EXPECT_EQ(resumed.exit_code, 0) << resumed.text;
  std::map<int, double> losses = LossesOf(paused.output);
  const std::map<int, double> rest = LossesOf(resumed.output);
  losses.insert(rest.begin(), rest.end());
  EXPECT_EQ(rest.size() + LossesOf(paused.output).size(), losses.size());
  EXPECT_EQ(losses, LossesOf(bench_.Run(arguments("whole", "3,1")).output));

  // One that was asked for is kept to.
  resume = arguments("cut", "2,2");
  resume.push_back("--resume");
  const Outcome recut = bench_.Run(resume);
  EXPECT_EQ(recut.exit_code, 0) << recut.text;
  EXPECT_THAT(recut.text,
              HasSubstr("is of stages of 3,1 layers, this job's have 2,2: "
                        "parallel.partition: "));
}

// A worker would read tensors of another shape, and fail.
TEST_F(RecoveryTest, ResumeOfAnotherShapeIsRefusedBeforeAnythingStarts) {
  std::vector<std::string> arguments = RunArguments("shape");
  arguments.insert(
      arguments.end(),
      {"--set", "train.steps=12", "--set", "train.optimizer.kind=adamw",
       "--set", "model.kind=mlp", "--inject", "lognormal:0.1"});
  ASSERT_EQ(bench_.Run(arguments).exit_code, 0);
  const std::string spec = bench_.Read("runs/shape/spec.yaml");
  EXPECT_THAT(spec, HasSubstr("lognormal:0.1"));
  const auto resume = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> words = arguments;
    words.push_back("--resume");
    for (const std::string& setting : settings) {
      words.insert(words.end(), {"--set", setting});
    }
    return bench_.Run(words);
  };

  const Outcome wider = resume({"model.width=64"});
  const Outcome lamb = resume({"train.optimizer.kind=lamb"});
  // No parameter of an mlp, but its delta records have that shape.
  const Outcome shorter = resume({"model.context=8"});
  const std::string kept = bench_.Read("runs/shape/spec.yaml");
  const Outcome more_steps = resume({"train.steps=14", "parallel.replicas=1"});

  EXPECT_EQ(wider.exit_code, 2) << wider.text;
  EXPECT_THAT(wider.errors,
              testing::AllOf(HasSubstr("--set model.width=64: error: "
                                       "model.width: expected 32, as in "
                                       "checkpoint step-"),
                             HasSubstr("nothing was started")));
  EXPECT_EQ(lamb.exit_code, 2) << lamb.text;
  EXPECT_THAT(lamb.errors,
              HasSubstr("train.optimizer.kind: expected adamw, as in"));
  EXPECT_EQ(shorter.exit_code, 2) << shorter.text;
  EXPECT_THAT(shorter.errors,
              HasSubstr("--set model.context=8: error: model.context: "
                        "expected "));
  EXPECT_EQ(kept, spec);
  EXPECT_EQ(more_steps.exit_code, 0) << more_steps.text;
}

TEST_F(RecoveryTest, ResumeWithoutAnEarlierRunSaysSo) {
  std::vector<std::string> arguments = RunArguments("never");
  arguments.push_back("--resume");

  const Outcome outcome = bench_.Run(arguments);

  EXPECT_EQ(outcome.exit_code, 3) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("there is no run"));
}

class ClusterRecoveryTest : public RecoveryTest {
 protected:
  void StartCoordinator() {
    coordinator_ = bench_.Start(
        {"coordinator", "--listen",
         address_.empty() ? std::string("127.0.0.1:0") : address_});
    address_ = AwaitListening(coordinator_.get());
    EXPECT_NE(address_, "") << coordinator_->all();
  }
  void StartWorker() {
    workers_.push_back(bench_.StartProgram(
        {bench_.program("deltapipe-worker"), "--coordinator", address_}));
  }
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--coordinator", address_});
    return bench_.Run(arguments);
  }
  nlohmann::json Job() {
    const auto objects = Ask({"describe", "small-1", "--json"}).Objects();
    return objects.empty() ? nlohmann::json::object() : objects.front();
  }
  template <typename Condition>
  bool Await(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + seconds(40);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
    }
    return false;
  }
  int64_t Step() {
    const nlohmann::json job = Job();
    return job.contains("step") ? job["step"].get<int64_t>() : 0;
  }
  void Begin(int steps, const std::vector<std::string>& more = {}) {
    StartCoordinator();
    for (int i = 0; i < 4; ++i) StartWorker();
    std::vector<std::string> arguments = {"submit", "job.yaml", "-d"};
    const std::vector<std::string> job = JobArguments();
    arguments.insert(arguments.end(), job.begin(), job.end());
    arguments.insert(arguments.end(),
                     {"--set", "train.steps=" + std::to_string(steps)});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome submitted = Ask(arguments);
    ASSERT_EQ(submitted.exit_code, 0) << submitted.text;
    ASSERT_TRUE(Await([this] { return Step() >= 15; })) << Job().dump();
  }
  std::string AwaitEnd() {
    Await([this] {
      const std::string state = Job().value("state", "");
      return state == "SUCCEEDED" || state == "FAILED";
    });
    return Job().value("state", "");
  }

  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
};

TEST_F(ClusterRecoveryTest, WorkersTrainOnWithoutTheirCoordinator) {
  Begin(400);
  coordinator_->Signal(SIGKILL);
  ASSERT_EQ(coordinator_->WaitForExit(seconds(5)), 128 + SIGKILL);
  StartCoordinator();

  EXPECT_EQ(AwaitEnd(), "SUCCEEDED") << Job().dump();
  EXPECT_EQ(Step(), 400);
  EXPECT_FALSE(Job().contains("restarts") && Job()["restarts"] != 0)
      << Job().dump();
  const Outcome audit = Ask({"job", "audit", "small-1"});
  EXPECT_EQ(audit.exit_code, 0) << audit.text;
}

// Whoever was told that a worker leaves relies on it.
TEST_F(ClusterRecoveryTest, ADrainOutlivesItsCoordinator) {
  Begin(600);
  StartWorker();
  ASSERT_TRUE(Await([this] {
    return Ask({"worker", "ls", "--json"}).Objects().size() == 5;
  }));
  const std::string drained =
      Ask({"worker", "ls", "--json"}).Objects()[0]["id"];
  const Outcome told = Ask({"worker", "drain", drained});
  ASSERT_EQ(told.exit_code, 0) << told.text;
  coordinator_->Signal(SIGKILL);
  ASSERT_EQ(coordinator_->WaitForExit(seconds(5)), 128 + SIGKILL);
  StartCoordinator();

  EXPECT_EQ(AwaitEnd(), "SUCCEEDED") << Job().dump();
  for (const auto& worker : Ask({"worker", "ls", "--json"}).Objects()) {
    EXPECT_NE(worker["id"], drained) << worker.dump();
  }
  const Outcome audit = Ask({"job", "audit", "small-1"});
  EXPECT_EQ(audit.exit_code, 0) << audit.text;
}

TEST_F(ClusterRecoveryTest, ACoordinatorThatWasOvertakenEnds) {
  Begin(100000);
  // As where the lock does not reach: on a volume that two hosts share.
  ASSERT_TRUE(
      std::filesystem::remove(bench_.folder() + "/runs/coordinator.db.lock"));

  auto successor = bench_.Start({"coordinator", "--listen", "127.0.0.1:0"});

  EXPECT_EQ(coordinator_->WaitForExit(seconds(20)), 4) << coordinator_->all();
  EXPECT_THAT(coordinator_->all(),
              HasSubstr("another coordinator has taken over the job store"));
}

TEST_F(ClusterRecoveryTest, AWorkerThatIsTerminatedLeavesItsJobToASpare) {
  Begin(600);
  StartWorker();
  ASSERT_TRUE(Await([this] {
    return Ask({"worker", "ls", "--json"}).Objects().size() == 5;
  }));

  workers_[2]->Signal(SIGTERM);

  EXPECT_EQ(workers_[2]->WaitForExit(seconds(30)), 8) << workers_[2]->all();
  EXPECT_TRUE(Await([this] {
    const std::string state = Job().value("state", "");
    return state == "RUNNING" || state == "SUCCEEDED";
  })) << Job().dump();
  EXPECT_EQ(AwaitEnd(), "SUCCEEDED") << Job().dump();
  const Outcome audit = Ask({"job", "audit", "small-1"});
  EXPECT_EQ(audit.exit_code, 0) << audit.text;
}

// The only checkpoint is of before the change: what the former codec and policy
// kept in it is not theirs who follow.
TEST_F(ClusterRecoveryTest, AWorkerIsReplacedAfterCodecsWereChanged) {
  Begin(600, {"--set", "checkpoint.every=100000", "--set",
              "compression.saved_activations=actnn(bits=4)"});
  StartWorker();
  ASSERT_TRUE(Await([this] {
    return Ask({"worker", "ls", "--json"}).Objects().size() == 5;
  }));
  ASSERT_EQ(Ask({"pause", "small-1"}).exit_code, 0);
  ASSERT_TRUE(Await([this] { return Job().value("state", "") == "PAUSED"; }))
      << Job().dump();
  ASSERT_EQ(Ask({"resume", "small-1"}).exit_code, 0);
  const Outcome set =
      Ask({"set", "small-1", "activations=int(8)", "gradients=cast(bf16)",
           "saved_activations=fixed(int(8))"});
  ASSERT_EQ(set.exit_code, 0) << set.text;

  workers_[2]->Signal(SIGKILL);

  EXPECT_EQ(AwaitEnd(), "SUCCEEDED") << Job().dump();
  const std::string events = Ask({"events", "small-1"}).output;
  EXPECT_THAT(events, HasSubstr("is left out, since int(8)"));
  EXPECT_THAT(events, HasSubstr("what actnn"));
  EXPECT_THAT(events, HasSubstr("is left out, the policy is fixed"));
  EXPECT_THAT(Ask({"set", "small-1"}).output, HasSubstr("int(8)"));
  const Outcome audit = Ask({"job", "audit", "small-1"});
  EXPECT_EQ(audit.exit_code, 0) << audit.text;
}

TEST_F(ClusterRecoveryTest, ASubmissionGoesOnFromAnEarlierJob) {
  Begin(45);
  ASSERT_EQ(AwaitEnd(), "SUCCEEDED") << Job().dump();
  const auto submit = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"submit", "job.yaml", "--resume",
                                          "--json"};
    const std::vector<std::string> job = JobArguments();
    arguments.insert(arguments.end(), job.begin(), job.end());
    arguments.insert(arguments.end(), {"--set", "train.steps=60"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Ask(arguments);
  };

  const Outcome nowhere = submit({});
  const Outcome wider =
      submit({"--run-folder", "runs/small-1", "--set", "model.width=64"});
  const Outcome here = submit({"--run-folder", "runs/small-1", "--here",
                               "--set", "train.optimizer.kind=adamw"});
  const Outcome longer = submit({"--run-folder", "runs/small-1"});

  EXPECT_EQ(nowhere.exit_code, 2) << nowhere.text;
  EXPECT_THAT(nowhere.errors, HasSubstr("run_folder: expected "));
  EXPECT_EQ(wider.exit_code, 2) << wider.text;
  EXPECT_THAT(wider.errors,
              testing::ContainsRegex("model.width: expected 32, as in "
                                     "checkpoint [0-9]+ of small-1, got 64"));
  EXPECT_EQ(here.exit_code, 2) << here.text;
  EXPECT_THAT(here.errors,
              HasSubstr("train.optimizer.kind: expected onebit_lamb, as in "
                        "checkpoint step-"));
  EXPECT_EQ(longer.exit_code, 0) << longer.text;
  const std::map<int, double> losses = LossesOf(longer.output);
  ASSERT_THAT(losses, Not(IsEmpty())) << longer.text;
  EXPECT_GT(losses.begin()->first, 40);
  EXPECT_EQ(losses.rbegin()->first, 60);
}

TEST_F(ClusterRecoveryTest, PauseResumeAndKnobsWhileItTrains) {
  Begin(900);

  const Outcome set =
      Ask({"set", "small-1", "activations=int(4)",
           "boundaries[0].rate_limit=500Mbit/s",
           "saved_activations=fixed(int(8))", "--reason", "a thin line"});
  const Outcome stale =
      Ask({"set", "small-1", "activations=int(2)", "--etag", "1-old"});
  const Outcome impossible = Ask({"set", "small-1", "activations=int(99)"});
  const Outcome pause = Ask({"pause", "small-1"});
  const bool is_paused =
      Await([this] { return Job().value("state", "") == "PAUSED"; });
  const Outcome resume = Ask({"resume", "small-1"});
  const std::string end = AwaitEnd();

  EXPECT_EQ(set.exit_code, 0) << set.text;
  EXPECT_EQ(stale.exit_code, 4) << stale.text;
  EXPECT_EQ(impossible.exit_code, 2) << impossible.text;
  EXPECT_EQ(pause.exit_code, 0) << pause.text;
  EXPECT_TRUE(is_paused) << Job().dump();
  EXPECT_EQ(resume.exit_code, 0) << resume.text;
  EXPECT_EQ(end, "SUCCEEDED") << Job().dump();
  EXPECT_THAT(
      Ask({"events", "small-1"}).output,
      testing::AllOf(HasSubstr("a thin line"), HasSubstr("activations=int(4)"),
                     HasSubstr("saved_activations=fixed(int(8))")));
  EXPECT_THAT(Ask({"set", "small-1"}).output, HasSubstr("int(4)"));
}

}  // namespace
}  // namespace deltapipe
