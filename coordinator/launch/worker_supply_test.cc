// The conformance suite of WorkerSupply, over all of them. What only pods can
// show is in kubernetes_supply_test.cc.
#include "coordinator/launch/worker_supply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "coordinator/launch/fake_worker_supply.h"
#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/kubernetes_supply.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(30);

class WorkerSupplyTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (is_fake()) {
      supply_ = std::make_unique<FakeWorkerSupply>();
    } else {
      JobKeeperOptions options;
      options.kube.server = api_->url();
      options.kube.namespace_name = "team-a";
      options.look_every = std::chrono::milliseconds(5);
      auto supply = KubernetesSupply::Create(std::move(options));
      ASSERT_TRUE(supply.ok()) << supply.status();
      supply_ = *std::move(supply);
    }
    SupplyListener listener;
    listener.on_notice = [this](const std::string& job_id,
                                const SupplyNotice& notice) {
      MutexLock lock(&mutex_);
      if (notice.kind == SupplyNotice::Kind::kLaunched) launched_ = job_id;
      ++num_notices_;
      changed_.NotifyAll();
    };
    listener.is_at_rest = [](const std::string&) { return false; };
    supply_->Begin(std::move(listener));
  }
  bool is_fake() const { return std::string(GetParam()) == "fake"; }
  /// The fake says only what a test says.
  void AwaitLaunch(const std::string& job_id) {
    if (is_fake()) {
      static_cast<FakeWorkerSupply*>(supply_.get())
          ->Tell(job_id, {SupplyNotice::Kind::kLaunched, "there"});
    }
    MutexLock lock(&mutex_);
    EXPECT_TRUE(changed_.WaitUntil(lock, Deadline::After(kPatience),
                                   [&] { return launched_ == job_id; }));
  }
  /// Whether `count` jobs have workers, in the end.
  bool HasWorkersFor(size_t count) {
    if (is_fake()) {
      return static_cast<FakeWorkerSupply*>(supply_.get())->wanted().size() ==
             count;
    }
    const Deadline deadline = Deadline::After(kPatience);
    while (api_->job_names().size() != count && !deadline.has_passed()) {
    }
    return api_->job_names().size() == count;
  }
  int num_notices() {
    MutexLock lock(&mutex_);
    return num_notices_;
  }

  Mutex mutex_;
  CondVar changed_;
  std::string launched_ DP_GUARDED_BY(mutex_);
  int num_notices_ DP_GUARDED_BY(mutex_) = 0;
  const std::unique_ptr<FakeKubeApi> api_ = FakeKubeApi::Start();
  std::unique_ptr<WorkerSupply> supply_;
};

TEST_P(WorkerSupplyTest, JobHasWorkersWhileTheyAreWanted) {
  supply_->Want({"text-1", 2, "cpu"});
  AwaitLaunch("text-1");
  EXPECT_TRUE(HasWorkersFor(1));

  supply_->Unwant("text-1");

  EXPECT_TRUE(HasWorkersFor(0));
}

TEST_P(WorkerSupplyTest, WantAndUnwantAreIdempotent) {
  supply_->Unwant("nobody-9");
  supply_->Want({"text-1", 2, "cpu"});
  supply_->Want({"text-1", 2, "cpu"});
  AwaitLaunch("text-1");
  EXPECT_TRUE(HasWorkersFor(1));

  supply_->Unwant("text-1");
  supply_->Unwant("text-1");

  EXPECT_TRUE(HasWorkersFor(0));
}

TEST_P(WorkerSupplyTest, JobsAreKeptApart) {
  supply_->Want({"text-1", 2, "cpu"});
  supply_->Want({"text-2", 2, "cpu"});
  EXPECT_TRUE(HasWorkersFor(2));

  supply_->Unwant("text-1");

  EXPECT_TRUE(HasWorkersFor(1));
}

TEST_P(WorkerSupplyTest, EndLeavesTheWorkersAndSaysNothingAfterwards) {
  supply_->Want({"text-1", 2, "cpu"});
  AwaitLaunch("text-1");

  supply_->End();
  supply_->End();
  const int num_before = num_notices();
  api_->FailNext(500, 1000);

  EXPECT_TRUE(HasWorkersFor(1));
  EXPECT_EQ(num_notices(), num_before);
}

TEST_P(WorkerSupplyTest, HintSpeaksOfTheJob) {
  EXPECT_THAT(supply_->Hint("text-1"), HasSubstr("text-1"));
}

INSTANTIATE_TEST_SUITE_P(All, WorkerSupplyTest,
                         ::testing::Values("fake", "kubernetes"));

}  // namespace
}  // namespace deltapipe
