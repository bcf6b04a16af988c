// A supply against a fake API server: what it makes, adopts, deletes and says.
#include "coordinator/launch/kubernetes/kubernetes_supply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kJob[] = "deltapipe-text-1";
const SuppliedJob kText = {"text-1", 4, "cpu"};

/// Collects what a supply says and lets a test wait for it.
class Notices {
 public:
  void Add(const std::string& job_id, const SupplyNotice& notice) {
    MutexLock lock(&mutex_);
    notices_.push_back({job_id, notice});
    changed_.NotifyAll();
  }
  /// The first of that kind about the job, or "" after 30 s.
  std::string Await(const std::string& job_id, SupplyNotice::Kind kind,
                    const std::string& part = "") {
    std::string text;
    MutexLock lock(&mutex_);
    changed_.WaitUntil(lock, Deadline::After(seconds(30)), [&] {
      for (const auto& [id, notice] : notices_) {
        if (id == job_id && notice.kind == kind &&
            notice.text.find(part) != std::string::npos) {
          text = notice.text;
          return true;
        }
      }
      return false;
    });
    return text;
  }
  bool Has(SupplyNotice::Kind kind) { return Count(kind) > 0; }
  int Count(SupplyNotice::Kind kind) {
    MutexLock lock(&mutex_);
    int count = 0;
    for (const auto& [id, notice] : notices_) count += notice.kind == kind;
    return count;
  }
  void Clear() {
    MutexLock lock(&mutex_);
    notices_.clear();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::pair<std::string, SupplyNotice>> notices_
      DP_GUARDED_BY(mutex_);
};

class KubernetesSupplyTest : public ::testing::Test {
 protected:
  JobKeeperOptions Options() {
    JobKeeperOptions options;
    options.kube.server = api_->url();
    options.kube.namespace_name = "team-a";
    options.kube.first_pause = milliseconds(1);
    options.kube.longest_pause = milliseconds(2);
    options.first_pause = milliseconds(1);
    options.longest_pause = milliseconds(5);
    options.look_every = milliseconds(5);
    options.slow_start = milliseconds(1);
    options.patience = seconds(30);
    return options;
  }
  std::unique_ptr<KubernetesSupply> Start(const JobKeeperOptions& options) {
    auto supply = KubernetesSupply::Create(options);
    EXPECT_TRUE(supply.ok()) << supply.status();
    SupplyListener listener;
    listener.on_notice = [this](const std::string& job_id,
                                const SupplyNotice& notice) {
      notices_.Add(job_id, notice);
    };
    listener.is_at_rest = [this](const std::string& job_id) {
      return at_rest_.count(job_id) > 0;
    };
    (*supply)->Begin(std::move(listener));
    return *std::move(supply);
  }
  std::unique_ptr<KubernetesSupply> Start() { return Start(Options()); }

  std::string AwaitLaunch(const std::string& job_id = "text-1") {
    return notices_.Await(job_id, SupplyNotice::Kind::kLaunched);
  }
  /// False after 30 s.
  bool AwaitRequest(const std::string& method) {
    const Deadline deadline = Deadline::After(seconds(30));
    while (api_->num_requests(method) == 0 && !deadline.has_passed()) {
    }
    return api_->num_requests(method) > 0;
  }
  /// Returns when the Job has been looked at a few times more.
  void AwaitLooks() {
    const int num_looks = api_->num_requests("GET");
    while (api_->num_requests("GET") < num_looks + 3) {
    }
  }
  std::string AwaitTrouble(const std::string& part = "") {
    return notices_.Await("text-1", SupplyNotice::Kind::kTrouble, part);
  }

  const std::unique_ptr<FakeKubeApi> api_ = FakeKubeApi::Start();
  Notices notices_;                // outlives supplies
  std::set<std::string> at_rest_;  // set before a supply begins
};

TEST_F(KubernetesSupplyTest, JobIsThereForAsLongAsItIsWanted) {
  const auto supply = Start();

  supply->Want(kText);
  const std::string launched = AwaitLaunch();
  const KubernetesObject job = api_->JobNamed(kJob);
  supply->Unwant("text-1");

  EXPECT_EQ(launched,
            "its 4 workers are the Kubernetes Job team-a/deltapipe-text-1");
  EXPECT_EQ(NumberAt(job, {"spec", "completions"}, 0), 4);
  EXPECT_EQ(TextAt(job, {"metadata", "annotations", kLaunchedFor}), "text-1");
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(KubernetesSupplyTest, WantingAgainMakesNoSecondJob) {
  const auto supply = Start();

  supply->Want(kText);
  supply->Want(kText);
  AwaitLaunch();
  supply->Want(kText);

  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
  EXPECT_EQ(api_->num_requests("POST"), 1);
}

TEST_F(KubernetesSupplyTest, PausedJobGetsItsWorkersAgain) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();
  supply->Unwant("text-1");
  ASSERT_THAT(api_->AwaitJobs({}), IsEmpty());

  supply->Want(kText);

  EXPECT_THAT(api_->AwaitJobs({kJob}), ElementsAre(kJob));
}

TEST_F(KubernetesSupplyTest, JobThatIsWantedAgainAtOnceOutlivesItsDeletion) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();
  notices_.Clear();
  api_->LetDeletedJobsLinger(3);

  supply->Unwant("text-1");
  supply->Want(kText);

  // Either nothing was deleted yet, which is put right, or it is made anew.
  AwaitLaunch();
  EXPECT_THAT(api_->AwaitJobs({kJob}), ElementsAre(kJob));
}

TEST_F(KubernetesSupplyTest, NextCoordinatorAdoptsWhatTheLastOneLeft) {
  {
    const auto supply = Start();
    supply->Want(kText);
    AwaitLaunch();
    supply->End();
  }
  ASSERT_THAT(api_->job_names(), ElementsAre(kJob));
  notices_.Clear();
  const auto supply = Start();

  supply->Want(kText);
  AwaitLaunch();
  api_->EndPod(kJob, 2, 4, /*replace=*/true, "no space left");

  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
  EXPECT_EQ(api_->num_requests("DELETE"), 0);
  EXPECT_THAT(
      notices_.Await("text-1", SupplyNotice::Kind::kWorkerEnded),
      AllOf(HasSubstr("worker 2 of the Kubernetes Job team-a/deltapipe-text-1 "
                      "ended by itself (exit code 4), saying: no space left"),
            HasSubstr("kubectl -n team-a logs deltapipe-text-1-2-")));
}

TEST_F(KubernetesSupplyTest, JobsOfFinishedJobsAreDeletedAtTheStart) {
  {
    const auto supply = Start();
    supply->Want(kText);
    supply->Want({"other-2", 1, "cpu"});
    AwaitLaunch();
    AwaitLaunch("other-2");
  }
  at_rest_ = {"text-1"};
  WorkerGroup rendered;
  rendered.name = "deltapipe-by-hand";
  api_->AddJob(RenderWorkerJob(rendered, ManifestOptions()));

  const auto supply = Start();

  EXPECT_THAT(api_->AwaitJobs({"deltapipe-by-hand", "deltapipe-other-2"}),
              ElementsAre("deltapipe-by-hand", "deltapipe-other-2"));
}

TEST_F(KubernetesSupplyTest, RefusalIsTroubleWithARemedyAndTriedAgain) {
  api_->FailNext(403, 1000000);
  const auto supply = Start();

  supply->Want(kText);
  const std::string trouble = AwaitTrouble();
  api_->FailNext(403, 0);

  EXPECT_THAT(
      trouble,
      AllOf(HasSubstr("its workers could not be launched, which is tried "
                      "again: launch 4 workers as Job team-a/deltapipe-text-1"),
            HasSubstr("with 403"), HasSubstr("is it bound?")));
  EXPECT_THAT(api_->AwaitJobs({kJob}), ElementsAre(kJob));
  EXPECT_THAT(AwaitLaunch(), HasSubstr("4 workers"));
}

TEST_F(KubernetesSupplyTest, NameThatIsTakenIsTroubleAndTheOtherJobStays) {
  WorkerGroup other;
  other.name = kJob;
  api_->AddJob(RenderWorkerJob(other, ManifestOptions()));
  const auto supply = Start();

  supply->Want(kText);
  const std::string trouble = AwaitTrouble();
  supply->Unwant("text-1");
  supply->Want({"other-2", 1, "cpu"});
  AwaitLaunch("other-2");

  EXPECT_THAT(trouble, HasSubstr("kubectl delete job deltapipe-text-1"));
  EXPECT_EQ(api_->num_requests("DELETE"), 0);
}

TEST_F(KubernetesSupplyTest, JobInTroubleDoesNotHoldUpOthers) {
  WorkerGroup other;
  other.name = kJob;
  api_->AddJob(RenderWorkerJob(other, ManifestOptions()));
  const auto supply = Start();

  supply->Want(kText);
  AwaitTrouble();
  supply->Want({"other-2", 1, "cpu"});

  EXPECT_THAT(AwaitLaunch("other-2"), HasSubstr("deltapipe-other-2"));
}

TEST_F(KubernetesSupplyTest, FailedJobIsToldAndMadeAgain) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();

  api_->SetStatus(kJob, {{"conditions", KubernetesObject::array(
                                            {{{"type", "Failed"},
                                              {"status", "True"},
                                              {"reason", "PodFailurePolicy"},
                                              {"message", "exit code 6"}}})}});

  EXPECT_THAT(AwaitTrouble(), HasSubstr("which is made again: it has failed: "
                                        "PodFailurePolicy: exit code 6"));
  notices_.Clear();
  EXPECT_THAT(AwaitLaunch(), HasSubstr("4 workers"));
  EXPECT_EQ(api_->num_requests("DELETE"), 1);
}

TEST_F(KubernetesSupplyTest, JobThatSomebodyDeletedIsMadeAgain) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();

  api_->RemoveJob(kJob);

  EXPECT_THAT(AwaitTrouble(), HasSubstr("somebody deleted"));
  EXPECT_THAT(api_->AwaitJobs({kJob}), ElementsAre(kJob));
}

TEST_F(KubernetesSupplyTest, PodsThatDoNotStartAreToldUntilTheyDo) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();

  api_->SetStatus(kJob, {{"active", 4}, {"ready", 1}});
  const std::string trouble = AwaitTrouble();
  api_->SetStatus(kJob, {{"active", 4}, {"ready", 4}});

  EXPECT_THAT(trouble, AllOf(HasSubstr("Kubernetes runs 1 of its 4 workers"),
                             HasSubstr("kubectl -n team-a get events")));
  EXPECT_THAT(
      notices_.Await("text-1", SupplyNotice::Kind::kLaunched, "all workers"),
      HasSubstr("run"));
}

TEST_F(KubernetesSupplyTest, DeletionIsTriedUntilItSucceeds) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();

  api_->FailNext(403, 20);
  supply->Unwant("text-1");

  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(KubernetesSupplyTest, JobThatTurnsUpAfterItsLaunchWasCutShortGoes) {
  const auto supply = Start();
  api_->CarryOutNextPostLate();
  supply->Want(kText);
  EXPECT_TRUE(AwaitRequest("POST"));

  supply->Unwant("text-1");

  EXPECT_TRUE(AwaitRequest("DELETE"));
  EXPECT_THAT(api_->AwaitJobs({}), IsEmpty());
}

TEST_F(KubernetesSupplyTest, WorkerThatIsReplacedInTimeIsNoTrouble) {
  JobKeeperOptions options = Options();
  options.slow_start = std::chrono::hours(1);
  const auto supply = Start(options);
  supply->Want(kText);
  AwaitLaunch();

  api_->SetStatus(kJob, {{"active", 4}, {"ready", 3}});
  AwaitLooks();

  EXPECT_FALSE(notices_.Has(SupplyNotice::Kind::kTrouble));
}

TEST_F(KubernetesSupplyTest, WorkersAreEvictedOneByOneForAsLongAsTheirJobIs) {
  const auto supply = Start();

  supply->Want(kText);
  const auto budgets = api_->AwaitBudgets(1);
  const KubernetesObject job = api_->JobNamed(kJob);
  supply->Unwant("text-1");

  ASSERT_EQ(budgets.size(), 1u);
  const KubernetesObject& budget = budgets[0];
  EXPECT_EQ(TextAt(budget, {"apiVersion"}), "policy/v1");
  EXPECT_EQ(TextAt(budget, {"kind"}), "PodDisruptionBudget");
  EXPECT_EQ(TextAt(budget, {"metadata", "namespace"}), "team-a");
  EXPECT_EQ(NumberAt(budget, {"spec", "minAvailable"}, 0), 3);
  // The pods of this Job and no others.
  KubernetesObject labels =
      *FindAt(job, {"spec", "template", "metadata", "labels"});
  labels["batch.kubernetes.io/job-name"] = kJob;
  EXPECT_EQ(*FindAt(budget, {"spec", "selector", "matchLabels"}), labels);
  const KubernetesObject& owner = budget["metadata"]["ownerReferences"][0];
  EXPECT_EQ(TextAt(owner, {"kind"}), "Job");
  EXPECT_EQ(TextAt(owner, {"uid"}), TextAt(job, {"metadata", "uid"}));
  // Kubernetes deletes what belongs to a Job.
  EXPECT_THAT(api_->AwaitBudgets(0), IsEmpty());
}

TEST_F(KubernetesSupplyTest, JobThatIsMadeAgainGetsItsOwnBudget) {
  const auto supply = Start();
  supply->Want(kText);
  const auto before = api_->AwaitBudgets(1);
  ASSERT_EQ(before.size(), 1u);

  api_->RemoveJob(kJob);
  ASSERT_THAT(api_->AwaitJobs({kJob}), ElementsAre(kJob));

  const auto after = api_->AwaitBudgets(1);
  ASSERT_EQ(after.size(), 1u);
  EXPECT_NE(TextAt(after[0], {"metadata", "name"}),
            TextAt(before[0], {"metadata", "name"}));
}

TEST_F(KubernetesSupplyTest, BudgetThatIsThereIsNoTrouble) {
  {
    const auto supply = Start();
    supply->Want(kText);
    ASSERT_EQ(api_->AwaitBudgets(1).size(), 1u);
  }
  const auto supply = Start();

  supply->Want(kText);
  while (api_->num_requests("BUDGET") < 2) {
  }
  AwaitLooks();

  EXPECT_FALSE(notices_.Has(SupplyNotice::Kind::kTrouble));
  EXPECT_EQ(api_->AwaitBudgets(1).size(), 1u);
  EXPECT_EQ(api_->num_requests("BUDGET"), 2);
}

TEST_F(KubernetesSupplyTest, BudgetThatIsRefusedIsToldOnceAndTriedAgain) {
  api_->RefuseBudgets(403);
  const auto supply = Start();

  supply->Want(kText);
  const std::string trouble = AwaitTrouble("PodDisruptionBudget");
  api_->SetStatus(kJob, {{"active", 4}, {"ready", 4}});
  AwaitLooks();
  const int num_told = notices_.Count(SupplyNotice::Kind::kTrouble);
  api_->RefuseBudgets(0);

  EXPECT_THAT(trouble, AllOf(HasSubstr("its workers go on without"),
                             HasSubstr("with 403"), HasSubstr("is it bound?")));
  EXPECT_EQ(num_told, 1);
  EXPECT_EQ(api_->AwaitBudgets(1).size(), 1u);
  EXPECT_THAT(api_->job_names(), ElementsAre(kJob));
}

TEST_F(KubernetesSupplyTest, EndReturnsInTimeFromASilentServer) {
  const auto supply = Start();
  supply->Want(kText);
  AwaitLaunch();
  api_->Freeze();
  supply->Want({"other-2", 1, "cpu"});
  supply->Unwant("text-1");

  const auto start = std::chrono::steady_clock::now();
  supply->End();

  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(1));
}

TEST_F(KubernetesSupplyTest, HintNamesTheCommandThatShows) {
  EXPECT_EQ(Start()->Hint("text-1"),
            "Kubernetes brings them: kubectl -n team-a describe job "
            "deltapipe-text-1");
}

TEST_F(KubernetesSupplyTest, OptionsThatKubernetesWouldRefuseAreNamed) {
  JobKeeperOptions options = Options();
  options.manifests.image = "worker";

  const auto supply = KubernetesSupply::Create(options);

  EXPECT_EQ(supply.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(supply.status().message()), HasSubstr("image: "));
}

}  // namespace
}  // namespace deltapipe
