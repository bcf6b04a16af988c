// What only pods can show; the conformance suite is in launcher_test.cc.
#include "coordinator/launch/kubernetes/kubernetes_launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kJob[] = "deltapipe-job-7";

/// Collects ends and lets a test wait for them.
class Exits {
 public:
  WorkerExitCallback callback() {
    return [this](const WorkerExit& exit) {
      MutexLock lock(&mutex_);
      exits_.push_back(exit);
      changed_.NotifyAll();
    };
  }
  std::vector<WorkerExit> Await(size_t count) {
    MutexLock lock(&mutex_);
    changed_.WaitUntil(lock, Deadline::After(seconds(30)),
                       [&] { return exits_.size() >= count; });
    return exits_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<WorkerExit> exits_ DP_GUARDED_BY(mutex_);
};

class KubernetesLauncherTest : public ::testing::Test {
 protected:
  std::unique_ptr<KubernetesLauncher> MakeLauncher(
      milliseconds patience = seconds(30)) {
    KubeClientOptions client_options;
    client_options.server = api_->url();
    client_options.namespace_name = "team-a";
    client_options.first_pause = milliseconds(1);
    client_options.longest_pause = milliseconds(2);
    auto client = KubeClient::Create(client_options);
    EXPECT_TRUE(client.ok()) << client.status();
    KubernetesLauncherOptions options;
    options.job = "job-7";
    options.on_exit = exits_.callback();
    options.launch_patience = patience;
    options.is_tried_again = is_tried_again_;
    auto launcher =
        KubernetesLauncher::Create(*std::move(client), std::move(options));
    EXPECT_TRUE(launcher.ok()) << launcher.status();
    return *std::move(launcher);
  }

  const std::unique_ptr<FakeKubeApi> api_ = FakeKubeApi::Start();
  Exits exits_;
  bool is_tried_again_ = false;
};

TEST_F(KubernetesLauncherTest, EachLaunchIsAJobOfItsOwnName) {
  const auto launcher = MakeLauncher();

  ASSERT_TRUE(launcher->Launch(2).ok());
  ASSERT_TRUE(launcher->Launch(1).ok());

  EXPECT_THAT(api_->job_names(),
              ElementsAre(kJob, absl::StrCat(kJob, "-more1")));
  const KubernetesObject second = api_->JobNamed(absl::StrCat(kJob, "-more1"));
  EXPECT_EQ(TextAt(second, {"metadata", "labels", "deltapipe.io/job"}), kJob);
  EXPECT_EQ(TextAt(second, {"metadata", "namespace"}), "team-a");
  EXPECT_EQ(NumberAt(second, {"spec", "completions"}, 0), 1);
}

TEST_F(KubernetesLauncherTest, IndexCountsOverAllLaunches) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(2).ok());
  ASSERT_TRUE(launcher->Launch(2).ok());

  api_->EndPod(absl::StrCat(kJob, "-more1"), 1, 4, /*replace=*/false);

  const auto exits = exits_.Await(1);
  ASSERT_EQ(exits.size(), 1u);
  EXPECT_EQ(exits[0].index, 3);
  EXPECT_EQ(exits[0].exit.code, 4);
  EXPECT_THAT(exits[0].stderr_path, HasSubstr("kubectl -n team-a logs "));
}

TEST_F(KubernetesLauncherTest, RestartedCoordinatorAdoptsItsJob) {
  {
    const auto launcher = MakeLauncher();
    ASSERT_TRUE(launcher->Launch(2).ok());
  }
  const auto launcher = MakeLauncher();

  ASSERT_TRUE(launcher->Launch(2).ok());
  api_->EndPod(kJob, 1, 5, /*replace=*/false);

  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
  EXPECT_EQ(exits_.Await(1)[0].index, 1);
  EXPECT_EQ(launcher->NumRunning(), 1);
}

TEST_F(KubernetesLauncherTest, LostAnswerIsNoSecondJob) {
  const auto launcher = MakeLauncher();
  api_->LoseNextAnswer();

  const absl::Status launched = launcher->Launch(2);

  EXPECT_TRUE(launched.ok()) << launched;
  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
}

TEST_F(KubernetesLauncherTest, JobOfAnotherShapeIsNotAdoptedNorDeleted) {
  WorkerGroup group;
  group.name = kJob;
  api_->AddJob(RenderWorkerJob(group, ManifestOptions()));
  const auto launcher = MakeLauncher();

  const absl::Status launched = launcher->Launch(2);

  EXPECT_EQ(launched.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(
      std::string(launched.message()),
      HasSubstr("for '' with 1 workers, expected 'job-7' with 2: delete it "
                "with kubectl delete job deltapipe-job-7"));
  EXPECT_EQ(launcher->NumRunning(), 0);
  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
}

TEST_F(KubernetesLauncherTest, JobThatIsStillBeingDeletedIsWaitedFor) {
  {
    const auto launcher = MakeLauncher();
    ASSERT_TRUE(launcher->Launch(1).ok());
    api_->LetDeletedJobsLinger(3);
    launcher->Stop();
  }
  ASSERT_THAT(api_->job_names(), ElementsAre(kJob));
  const auto launcher = MakeLauncher();

  const absl::Status launched = launcher->Launch(1);

  EXPECT_TRUE(launched.ok()) << launched;
  EXPECT_EQ(FindAt(api_->JobNamed(kJob), {"metadata", "deletionTimestamp"}),
            nullptr);
}

TEST_F(KubernetesLauncherTest, ReplacedPodIsTheSameWorkerRunningAgain) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(2).ok());

  api_->EndPod(kJob, 0, 8, /*replace=*/true);
  api_->EndPod(kJob, 0, 1, /*replace=*/true);

  const auto exits = exits_.Await(2);
  ASSERT_EQ(exits.size(), 2u);
  EXPECT_EQ(exits[0].exit.code, 8);
  EXPECT_EQ(exits[1].index, 0);
  api_->EndPod(kJob, 1, 2, /*replace=*/false);
  exits_.Await(3);
  EXPECT_EQ(launcher->NumRunning(), 1);
}

TEST_F(KubernetesLauncherTest, CodeAbove128IsTheSignalThatKilled) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(1).ok());

  api_->EndPod(kJob, 0, 137, /*replace=*/false);

  const auto exits = exits_.Await(1);
  ASSERT_EQ(exits.size(), 1u);
  EXPECT_EQ(exits[0].exit.signal, SIGKILL);
}

TEST_F(KubernetesLauncherTest, PodThatIsTakenAwayCountsAsKilled) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(2).ok());
  // Who has seen the end of one has seen both. A watch alone may be one that
  // began before the launch, and pods that nobody saw cannot be missed.
  api_->EndPod(kJob, 0, 3, /*replace=*/false);
  ASSERT_EQ(exits_.Await(1).size(), 1u);

  api_->RemovePod(kJob, 1);

  const auto exits = exits_.Await(2);
  ASSERT_EQ(exits.size(), 2u);
  EXPECT_EQ(exits[1].index, 1);
  EXPECT_EQ(exits[1].exit.signal, SIGKILL);
}

TEST_F(KubernetesLauncherTest, EndsThatHappenWhileAWatchIsCutAreReportedOnce) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(3).ok());
  api_->EndPod(kJob, 0, 3, /*replace=*/false);
  exits_.Await(1);

  api_->CutWatches();
  api_->EndPod(kJob, 1, 4, /*replace=*/false);
  api_->Forget(/*as_answer=*/false);
  api_->EndPod(kJob, 2, 5, /*replace=*/false);

  const auto exits = exits_.Await(3);
  ASSERT_EQ(exits.size(), 3u);
  EXPECT_EQ(exits[1].exit.code + exits[2].exit.code, 9);
  EXPECT_EQ(launcher->NumRunning(), 0);
}

TEST_F(KubernetesLauncherTest, FailedLaunchLeavesNothingBehind) {
  const auto launcher = MakeLauncher(milliseconds(50));
  // The watch asks, too, and may come first.
  api_->FailNext(403, 1000000);

  const absl::Status launched = launcher->Launch(2);

  api_->FailNext(403, 0);
  EXPECT_EQ(launched.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(launched.message()),
              HasSubstr("launch 2 workers as Job team-a/deltapipe-job-7"));
  EXPECT_EQ(launcher->NumRunning(), 0);
  EXPECT_TRUE(launcher->Launch(2).ok());
}

TEST_F(KubernetesLauncherTest, FailedLaunchThatIsTriedAgainLeavesWhatIsThere) {
  {
    const auto launcher = MakeLauncher();
    ASSERT_TRUE(launcher->Launch(2).ok());
  }
  is_tried_again_ = true;
  const auto launcher = MakeLauncher(milliseconds(50));
  api_->FailNext(500, 1000000);

  const absl::Status launched = launcher->Launch(2);

  EXPECT_EQ(launched.code(), absl::StatusCode::kUnavailable) << launched;
  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
  EXPECT_EQ(api_->num_requests("DELETE"), 0);
}

TEST_F(KubernetesLauncherTest, PodsServeTheirJobOnly) {
  const auto launcher = MakeLauncher();

  ASSERT_TRUE(launcher->Launch(2).ok());

  const KubernetesObject job = api_->JobNamed(kJob);
  const auto& arguments =
      job["spec"]["template"]["spec"]["containers"][0]["args"];
  ASSERT_GE(arguments.size(), 2u);
  EXPECT_EQ(arguments[arguments.size() - 2], "--job");
  EXPECT_EQ(arguments[arguments.size() - 1], "job-7");
}

TEST_F(KubernetesLauncherTest, EndsWithTheLastWordsThatKubernetesKept) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(1).ok());

  api_->EndPod(kJob, 0, 6, /*replace=*/false,
               "joining\nthe token is used up\n");

  const auto exits = exits_.Await(1);
  ASSERT_EQ(exits.size(), 1u);
  EXPECT_EQ(exits[0].last_words, "the token is used up");
}

TEST_F(KubernetesLauncherTest, StopDeletesEveryJob) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(2).ok());
  ASSERT_TRUE(launcher->Launch(1).ok());

  launcher->Stop();

  EXPECT_THAT(api_->job_names(), IsEmpty());
}

TEST_F(KubernetesLauncherTest, GoingAwayLeavesTheWorkersAlone) {
  {
    const auto launcher = MakeLauncher();
    ASSERT_TRUE(launcher->Launch(2).ok());
  }

  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
  EXPECT_EQ(api_->num_requests("DELETE"), 0);
}

TEST_F(KubernetesLauncherTest, StopReturnsInTimeFromASilentServer) {
  const auto launcher = MakeLauncher();
  ASSERT_TRUE(launcher->Launch(1).ok());
  api_->Freeze();

  const auto start = std::chrono::steady_clock::now();
  launcher->Stop();

  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(2));
}

TEST_F(KubernetesLauncherTest, StopEndsALaunchThatWaits) {
  const auto launcher = MakeLauncher(std::chrono::hours(1));
  api_->Freeze();
  absl::Status launched;
  Thread launching("launch", [&] { launched = launcher->Launch(1); });

  launcher->Stop();
  launching.Join();

  // It may not have begun.
  EXPECT_THAT(launched.code(),
              ::testing::AnyOf(absl::StatusCode::kCancelled,
                               absl::StatusCode::kFailedPrecondition));
}

TEST_F(KubernetesLauncherTest, OptionsThatKubernetesWouldRefuseAreNamed) {
  KubeClientOptions client_options;
  client_options.server = api_->url();
  client_options.namespace_name = "team-a";
  KubernetesLauncherOptions options;
  options.manifests.image = "worker";

  const auto launcher =
      KubernetesLauncher::Create(*KubeClient::Create(client_options), options);

  EXPECT_EQ(launcher.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(launcher.status().message()), HasSubstr("image: "));
}

}  // namespace
}  // namespace deltapipe
