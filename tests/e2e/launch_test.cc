// A coordinator that launches workers itself, against a fake Kubernetes API
// server. The test is the kubelet: where a Job appears it runs real workers
// with what the Job tells them, and where one goes it ends them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/kube_json.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kFirst[] = "deltapipe-small-1";
constexpr char kSecond[] = "deltapipe-small-2";

class LaunchTest : public testing::Test {
 protected:
  void StartCoordinator() {
    coordinator_ =
        bench_.Start({"coordinator", "--listen",
                      address_.empty() ? std::string("127.0.0.1:0") : address_,
                      "--launch", "kubernetes", "--kube-server", api_->url(),
                      "--kube-namespace", "team-a"});
    address_ = AwaitListening(coordinator_.get());
    ASSERT_NE(address_, "") << coordinator_->all();
  }
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--coordinator", address_});
    return bench_.Run(arguments);
  }
  /// A job of two workers.
  void Submit(int steps) {
    const Outcome submitted =
        Ask({"submit", "job.yaml", "-d", "--set", "parallel.stages=1", "--set",
             "checkpoint.every=5", "--set",
             "train.steps=" + std::to_string(steps)});
    ASSERT_EQ(submitted.exit_code, 0) << submitted.text;
  }
  nlohmann::json Describe(const std::string& job) {
    const auto objects = Ask({"describe", job, "--json"}).Objects();
    return objects.empty() ? nlohmann::json::object() : objects.front();
  }
  std::string Field(const std::string& job, const std::string& field) {
    const nlohmann::json described = Describe(job);
    return described.value(field, "");
  }
  int64_t Step(const std::string& job) {
    const nlohmann::json described = Describe(job);
    return described.contains("step") ? described["step"].get<int64_t>() : 0;
  }
  /// Asks again until the condition holds, two minutes at most.
  template <typename Condition>
  bool Await(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + seconds(120);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
    }
    return false;
  }
  bool AwaitState(const std::string& job, const std::string& state) {
    return Await([&] { return Field(job, "state") == state; });
  }

  /// The Job's pods: as many (`most` at most), for that job and on that device
  /// as it says.
  void RunPods(const std::string& name, int64_t most = 100) {
    const KubernetesObject job = api_->JobNamed(name);
    const auto& arguments =
        job["spec"]["template"]["spec"]["containers"][0]["args"];
    std::vector<std::string> words = {bench_.program("deltapipe-worker"),
                                      "--coordinator", address_};
    for (size_t i = 0; i + 1 < arguments.size(); ++i) {
      const std::string flag = arguments[i].get<std::string>();
      if (flag != "--job" && flag != "--device") continue;
      words.push_back(flag);
      words.push_back(arguments[i + 1].get<std::string>());
    }
    const int64_t count =
        std::min(most, NumberAt(job, {"spec", "completions"}, 0));
    for (int64_t i = 0; i < count; ++i) {
      pods_[name].push_back(bench_.StartProgram(words));
    }
  }
  /// Their exit codes after SIGTERM.
  std::vector<int> EndPods(const std::string& name) {
    std::vector<int> codes;
    for (const auto& pod : pods_[name]) pod->Signal(SIGTERM);
    for (const auto& pod : pods_[name]) {
      codes.push_back(pod->WaitForExit(seconds(20)).value_or(-1));
    }
    pods_.erase(name);
    return codes;
  }

  const std::unique_ptr<FakeKubeApi> api_ = FakeKubeApi::Start();
  Workbench bench_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::map<std::string, std::vector<std::unique_ptr<Process>>> pods_;
};

TEST_F(LaunchTest, JobBringsItsWorkersAndTheyGoWithIt) {
  StartCoordinator();
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  const KubernetesObject made = api_->JobNamed(kFirst);

  RunPods(kFirst);

  EXPECT_TRUE(AwaitState("small-1", "SUCCEEDED")) << Describe("small-1").dump();
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
  EXPECT_THAT(EndPods(kFirst), ElementsAre(8, 8));
  EXPECT_EQ(NumberAt(made, {"spec", "completions"}, 0), 2);
  EXPECT_EQ(TextAt(made, {"metadata", "namespace"}), "team-a");
  EXPECT_THAT(Ask({"events", "small-1"}).output,
              HasSubstr("its 2 workers are the Kubernetes Job "
                        "team-a/deltapipe-small-1"));
}

TEST_F(LaunchTest, WorkersOfOneJobAreNotTakenByAnotherThatWaitsLonger) {
  StartCoordinator();
  Submit(8);
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst, kSecond}), ElementsAre(kFirst, kSecond));

  RunPods(kSecond);
  EXPECT_TRUE(AwaitState("small-2", "SUCCEEDED")) << Describe("small-2").dump();
  EXPECT_EQ(Field("small-1", "state"), "PENDING");
  EXPECT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst);

  EXPECT_TRUE(AwaitState("small-1", "SUCCEEDED")) << Describe("small-1").dump();
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(LaunchTest, CancelledJobTakesItsWorkersAway) {
  StartCoordinator();
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));

  EXPECT_EQ(Ask({"cancel", "small-1"}).exit_code, 0);

  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
  EXPECT_EQ(Field("small-1", "state"), "CANCELLED");
}

TEST_F(LaunchTest, PausedJobGivesItsWorkersBackAndResumesWithOthers) {
  StartCoordinator();
  Submit(400);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst);
  ASSERT_TRUE(Await([&] { return Step("small-1") >= 10; }));

  EXPECT_EQ(Ask({"pause", "small-1"}).exit_code, 0);
  EXPECT_TRUE(AwaitState("small-1", "PAUSED")) << Describe("small-1").dump();
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
  EXPECT_THAT(EndPods(kFirst), ElementsAre(8, 8));
  EXPECT_EQ(Ask({"resume", "small-1"}).exit_code, 0);
  EXPECT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst);

  EXPECT_TRUE(AwaitState("small-1", "SUCCEEDED")) << Describe("small-1").dump();
}

TEST_F(LaunchTest, NextCoordinatorAdoptsTheWorkersOfItsPredecessor) {
  StartCoordinator();
  Submit(400);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst);
  ASSERT_TRUE(Await([&] { return Step("small-1") >= 10; }));
  const int num_deleted = api_->num_requests("DELETE");

  coordinator_->Signal(SIGKILL);
  ASSERT_EQ(coordinator_->WaitForExit(seconds(5)), 128 + SIGKILL);
  StartCoordinator();
  // Its launch meets the Job that is there: the second POST is answered 409.
  ASSERT_TRUE(Await([&] { return api_->num_requests("POST") >= 2; }));
  EXPECT_THAT(api_->job_names(), ElementsAre(kFirst));
  EXPECT_EQ(api_->num_requests("DELETE"), num_deleted);

  EXPECT_TRUE(AwaitState("small-1", "SUCCEEDED")) << Describe("small-1").dump();
  EXPECT_EQ(Describe("small-1").value("restarts", 0), 0);
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(LaunchTest, JobThatEndedWhileNobodyCouldDeleteLosesItsWorkersLater) {
  StartCoordinator();
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  api_->FailNext(500, 1000000);
  EXPECT_EQ(Ask({"cancel", "small-1"}).exit_code, 0);
  ASSERT_TRUE(AwaitState("small-1", "CANCELLED"));

  coordinator_->Signal(SIGKILL);
  coordinator_->WaitForExit(seconds(5));
  EXPECT_THAT(api_->job_names(), ElementsAre(kFirst));
  api_->FailNext(500, 0);
  StartCoordinator();

  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(LaunchTest, RefusalIsAnEventWithItsRemedyAndTheJobWaits) {
  api_->FailNext(403, 1000000);
  StartCoordinator();
  Submit(8);

  EXPECT_TRUE(Await([&] {
    return Field("small-1", "reason").find("403") != std::string::npos;
  })) << Describe("small-1").dump();
  EXPECT_EQ(Field("small-1", "state"), "PENDING");
  EXPECT_THAT(
      Ask({"events", "small-1"}).output,
      AllOf(HasSubstr("could not be launched, which is tried again"),
            HasSubstr("the Role of deploy/kubernetes/components/launcher")));
  api_->FailNext(403, 0);
  EXPECT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst);

  EXPECT_TRUE(AwaitState("small-1", "SUCCEEDED")) << Describe("small-1").dump();
}

TEST_F(LaunchTest, WorkerThatIsKilledIsAnEventOfItsJob) {
  StartCoordinator();
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  ASSERT_TRUE(api_->AwaitWatches(1));

  api_->EndPod(kFirst, 1, 137, /*replace=*/true);

  EXPECT_TRUE(Await([&] {
    return Ask({"events", "small-1"})
               .output.find(
                   "worker 1 of the Kubernetes Job team-a/deltapipe-small-1 "
                   "ended "
                   "by itself (killed by signal 9") != std::string::npos;
  }));
}

TEST_F(LaunchTest, WorkerThatIsSentAwayEndsSoThatItsPodIsReplaced) {
  StartCoordinator();
  Submit(8);
  ASSERT_THAT(api_->AwaitJobs({kFirst}), ElementsAre(kFirst));
  RunPods(kFirst, 1);
  ASSERT_TRUE(Await([&] {
    return Ask({"worker", "ls"}).output.find("for small-1") !=
           std::string::npos;
  }));

  EXPECT_EQ(Ask({"worker", "drain", "worker-1"}).exit_code, 0);

  EXPECT_EQ(pods_[kFirst][0]->WaitForExit(seconds(20)), 8);
}

TEST_F(LaunchTest, OutsideOfAClusterItSaysSoAndDoesNotStart) {
  const Outcome outcome = bench_.Run({"coordinator", "--launch", "kubernetes"});

  EXPECT_EQ(outcome.exit_code, 4) << outcome.text;
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("this process runs in no pod"),
                                    HasSubstr("--kube-server"),
                                    HasSubstr("deltapipe render SPEC")));
}

}  // namespace
}  // namespace deltapipe
