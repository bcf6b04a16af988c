// The same, spread out: a coordinator, workers started by hand, and the verbs
// that talk to them.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class SpreadOutTest : public testing::Test {
 protected:
  /// Starts a coordinator and waits until it listens. `listen` may have port 0.
  std::unique_ptr<Process> StartCoordinator(
      const std::string& listen = "127.0.0.1:0") {
    auto coordinator = bench_.Start({"coordinator", "--listen", listen});
    address_ = AwaitListening(coordinator.get());
    EXPECT_THAT(address_, Not(IsEmpty())) << coordinator->all();
    return coordinator;
  }

  std::unique_ptr<Process> StartWorker() {
    return bench_.StartProgram(
        {bench_.program("deltapipe-worker"), "--coordinator", address_});
  }

  /// Waits until the coordinator has `count` workers, no more and no fewer.
  bool AwaitWorkers(size_t count) {
    const auto end = std::chrono::steady_clock::now() + seconds(30);
    while (std::chrono::steady_clock::now() < end) {
      if (Ask({"worker", "ls", "--json"}).Objects().size() == count) {
        return true;
      }
    }
    return false;
  }

  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--coordinator", address_});
    return bench_.Run(arguments);
  }

  /// Submits job.yaml; its id.
  std::string Submit(std::vector<std::string> settings = {}) {
    std::vector<std::string> arguments = {"submit", "job.yaml", "-d", "--json"};
    for (const std::string& setting : settings) {
      arguments.insert(arguments.end(), {"--set", setting});
    }
    const Outcome outcome = Ask(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    const std::vector<nlohmann::json> objects = outcome.Objects();
    return objects.empty() ? "" : objects.back().value("id", "");
  }

  nlohmann::json Describe(const std::string& id) {
    const Outcome outcome = Ask({"describe", id, "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    const std::vector<nlohmann::json> objects = outcome.Objects();
    return objects.empty() ? nlohmann::json::object() : objects.front();
  }

  /// Follows the job's log until it has ended; its state then.
  std::string AwaitEnd(const std::string& id) {
    const Outcome logs = Ask({"logs", "-f", id});
    EXPECT_NE(logs.exit_code, -1) << logs.text;
    return Describe(id).value("state", "");
  }

  Workbench bench_;
  std::string address_;
};

TEST_F(SpreadOutTest, AJobRunsOnWorkersStartedByHandWhichStayForTheNext) {
  auto coordinator = StartCoordinator();
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());

  const std::string first = Submit();
  ASSERT_THAT(first, Not(IsEmpty()));
  EXPECT_THAT(AwaitEnd(first), HasSubstr("SUCCEEDED"));
  const std::string second = Submit({"seed=5"});
  EXPECT_THAT(AwaitEnd(second), HasSubstr("SUCCEEDED"));

  const Outcome list = Ask({"ls"});
  EXPECT_THAT(list.output, HasSubstr(first));
  EXPECT_THAT(list.output, HasSubstr(second));
  for (const auto& worker : workers) {
    EXPECT_EQ(worker->WaitForExit(milliseconds(0)), std::nullopt);
  }
}

TEST_F(SpreadOutTest, AJobWaitsForItsWorkersAndSaysSo) {
  auto coordinator = StartCoordinator();

  const std::string id = Submit();

  EXPECT_THAT(Describe(id).value("state", ""), HasSubstr("PENDING"));
  const Outcome text = Ask({"describe", id});
  EXPECT_THAT(text.output, HasSubstr("4 workers")) << text.text;
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());
  EXPECT_THAT(AwaitEnd(id), HasSubstr("SUCCEEDED"));
}

TEST_F(SpreadOutTest, CancelStopsARunningJobAndFreesItsWorkers) {
  auto coordinator = StartCoordinator();
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());
  const std::string id = Submit({"train.steps=1000000"});

  const Outcome cancel = Ask({"cancel", id});

  EXPECT_EQ(cancel.exit_code, 0) << cancel.text;
  EXPECT_THAT(AwaitEnd(id), HasSubstr("CANCELLED"));
  EXPECT_EQ(Ask({"cancel", id}).exit_code, 4);
  EXPECT_THAT(AwaitEnd(Submit()), HasSubstr("SUCCEEDED"));
}

TEST_F(SpreadOutTest, JobsSurviveACoordinatorThatIsKilled) {
  auto coordinator = StartCoordinator();
  const std::string id = Submit({"seed=5"});
  coordinator->Signal(SIGKILL);
  ASSERT_EQ(coordinator->WaitForExit(seconds(5)), 128 + SIGKILL);

  coordinator = StartCoordinator(address_);

  EXPECT_THAT(Ask({"ls"}).output, HasSubstr(id));
  const nlohmann::json job = Describe(id);
  EXPECT_THAT(job.value("state", ""), HasSubstr("PENDING"));
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());
  EXPECT_THAT(AwaitEnd(id), HasSubstr("SUCCEEDED"));
}

TEST_F(SpreadOutTest, APortInUseIsNamedWithTheRemedy) {
  auto coordinator = StartCoordinator();

  const Outcome second =
      bench_.Run({"coordinator", "--listen", address_, "--store", "other.db"});

  EXPECT_EQ(second.exit_code, 4) << second.text;
  EXPECT_THAT(second.errors, HasSubstr(address_));
  EXPECT_THAT(second.errors, HasSubstr("in use"));
}

TEST_F(SpreadOutTest, AStoreHasOneCoordinator) {
  auto coordinator = StartCoordinator();

  const Outcome second = bench_.Run({"coordinator", "--listen", "127.0.0.1:0"});

  EXPECT_EQ(second.exit_code, 4) << second.text;
  EXPECT_THAT(second.errors, HasSubstr("in use by another coordinator"));
}

TEST_F(SpreadOutTest, AKilledWorkerFailsItsJobAndTheOthersTakeTheNext) {
  auto coordinator = StartCoordinator();
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());
  auto watch = bench_.Start({"submit", "job.yaml", "--json", "--coordinator",
                             address_, "--set", "train.steps=1000000", "--set",
                             "failure.max_restarts=0"});
  ASSERT_TRUE(watch->WaitForOutput(
      [](const std::string& text) { return CountEvents(text, "step") >= 3; },
      seconds(60)))
      << watch->all();

  workers[1]->Signal(SIGKILL);
  const Outcome outcome = bench_.Finish(watch.get(), seconds(12));
  const std::string next = Submit({"parallel.replicas=1"});

  EXPECT_EQ(outcome.exit_code, 1) << outcome.text;
  EXPECT_THAT(outcome.errors,
              testing::ContainsRegex("stage [01], replica [01].* step [0-9]+"));
  EXPECT_THAT(AwaitEnd(next), HasSubstr("SUCCEEDED"));
}

TEST_F(SpreadOutTest, AnIdleWorkerThatIsKilledCanBeReplaced) {
  auto coordinator = StartCoordinator();
  std::vector<std::unique_ptr<Process>> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(StartWorker());
  ASSERT_TRUE(AwaitWorkers(4));

  workers[2]->Signal(SIGKILL);
  ASSERT_TRUE(AwaitWorkers(3));
  workers.push_back(StartWorker());

  EXPECT_THAT(AwaitEnd(Submit()), HasSubstr("SUCCEEDED"));
}

TEST_F(SpreadOutTest, SubmitEndsAtASignalWhileNobodyAnswers) {
  auto coordinator = StartCoordinator();
  coordinator->Signal(SIGSTOP);
  auto submit =
      bench_.Start({"submit", "job.yaml", "-d", "--coordinator", address_});
  // The last that it says before it submits.
  ASSERT_TRUE(submit->WaitForOutput(
      [](const std::string& text) {
        return text.find("is relative") != std::string::npos;
      },
      seconds(20)))
      << submit->all();

  submit->Signal(SIGTERM);
  const Outcome outcome = bench_.Finish(submit.get(), seconds(5));

  EXPECT_EQ(outcome.exit_code, 143) << outcome.text;
}

TEST_F(SpreadOutTest, SubmittedJobsAreAnEventAndADryRunSubmitsNothing) {
  auto coordinator = StartCoordinator();

  const Outcome dry = Ask({"submit", "job.yaml", "--dry-run", "--json"});
  const Outcome submit = Ask({"submit", "job.yaml", "-d", "--json"});
  const Outcome list = Ask({"ls", "--json"});

  ASSERT_THAT(dry.Events("accepted"), SizeIs(1)) << dry.text;
  EXPECT_EQ(dry.Events("accepted")[0].value("id", "none"), "");
  ASSERT_THAT(submit.Events("submitted"), SizeIs(1)) << submit.text;
  EXPECT_EQ(submit.Events("submitted")[0].value("state", ""), "PENDING");
  ASSERT_THAT(list.Objects(), SizeIs(1)) << list.text;
  EXPECT_EQ(list.Objects()[0].value("state", ""), "PENDING");
  EXPECT_TRUE(list.Objects()[0]["create_time_millis"].is_number());
}

TEST_F(SpreadOutTest, CancelOfAWaitingJobSaysThatItWaited) {
  auto coordinator = StartCoordinator();
  const std::string id = Submit();

  const Outcome cancel = Ask({"cancel", id});

  EXPECT_EQ(cancel.exit_code, 0) << cancel.text;
  EXPECT_EQ(cancel.output,
            id + " is cancelled: it was still waiting for workers\n");
}

TEST_F(SpreadOutTest, AWorkerListensBeyondLoopbackOnlyWithInsecure) {
  auto worker =
      bench_.StartProgram({bench_.program("deltapipe-worker"), "--coordinator",
                           "127.0.0.1:1", "--listen", "0.0.0.0:0"});

  const Outcome outcome = bench_.Finish(worker.get(), seconds(60));

  EXPECT_EQ(outcome.exit_code, 6) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("--listen 0.0.0.0:0"));
  EXPECT_THAT(outcome.errors, HasSubstr("give --insecure"));
}

TEST_F(SpreadOutTest, ListeningBeyondLoopbackIsTls) {
  auto coordinator = bench_.Start({"coordinator", "--listen", "0.0.0.0:0"});

  EXPECT_TRUE(coordinator->WaitForOutput(
      [](const std::string& text) {
        return text.find("--join-token dpj_") != std::string::npos;
      },
      seconds(20)))
      << coordinator->all();
}

TEST_F(SpreadOutTest, AnAbsentCoordinatorIsUnreachable) {
  address_ = "127.0.0.1:1";

  const Outcome list = Ask({"ls"});

  EXPECT_EQ(list.exit_code, 5) << list.text;
  EXPECT_THAT(list.errors, HasSubstr("127.0.0.1:1"));
}

TEST_F(SpreadOutTest, UnknownJobsAreNotFound) {
  auto coordinator = StartCoordinator();

  EXPECT_EQ(Ask({"describe", "nobody"}).exit_code, 3);
  EXPECT_EQ(Ask({"cancel", "nobody"}).exit_code, 3);
  EXPECT_EQ(Ask({"logs", "nobody"}).exit_code, 3);
}

TEST_F(SpreadOutTest, SubmitRefusesABadSpecAsRunDoes) {
  auto coordinator = StartCoordinator();

  const Outcome outcome = Ask({"submit", "job.yaml", "--set", "train.batch=0"});

  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("train.batch"));
  EXPECT_THAT(
      Ask({"ls", "--json"}).Objects(),
      Not(testing::Contains(testing::ResultOf(
          [](const nlohmann::json& object) { return object.contains("id"); },
          true))));
}

}  // namespace
}  // namespace deltapipe
