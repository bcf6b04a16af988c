// KubeClient against a server that fails in every way we know.
#include "coordinator/launch/kubernetes/kube_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/http_exchange.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string FreshFolder() {
  const char* const base = std::getenv("TEST_TMPDIR");
  std::string path = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return path;
}

Deadline Soon() { return Deadline::After(seconds(30)); }

KubernetesObject JobCalled(const std::string& name, int count = 1) {
  WorkerGroup group;
  group.name = name;
  group.num_workers = count;
  return RenderWorkerJob(group, ManifestOptions());
}

class KubeClientTest : public ::testing::Test {
 protected:
  void SetUp() override { Connect(""); }
  void Connect(const std::string& token_path) {
    KubeClientOptions options;
    options.server = api_->url();
    options.namespace_name = "deltapipe";
    options.token_path = token_path;
    options.first_pause = milliseconds(1);
    options.longest_pause = milliseconds(2);
    auto client = KubeClient::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    cancel_ = *CancelSignal::Create();
  }

  const std::unique_ptr<FakeKubeApi> api_ = FakeKubeApi::Start();
  std::unique_ptr<KubeClient> client_;
  std::unique_ptr<CancelSignal> cancel_;
};

TEST_F(KubeClientTest, JobIsCreatedFoundAndDeleted) {
  EXPECT_TRUE(client_->CreateJob(JobCalled("a"), Soon(), nullptr).ok());
  const auto job = client_->GetJob("a", Soon(), nullptr);
  const absl::Status deleted = client_->DeleteJob("a", Soon(), nullptr);

  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(TextAt(*job, {"metadata", "name"}), "a");
  EXPECT_TRUE(deleted.ok()) << deleted;
  EXPECT_THAT(api_->job_names(), IsEmpty());
}

TEST_F(KubeClientTest, WhatIsNotThereIsNotFound) {
  const auto job = client_->GetJob("none", Soon(), nullptr);
  const absl::Status deleted = client_->DeleteJob("none", Soon(), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(job.status().message()),
              AllOf(HasSubstr("/namespaces/deltapipe/jobs/none"),
                    HasSubstr("404"), HasSubstr("not found")));
  EXPECT_EQ(deleted.code(), absl::StatusCode::kNotFound);
}

TEST_F(KubeClientTest, SecondJobOfANameAlreadyExists) {
  ASSERT_TRUE(client_->CreateJob(JobCalled("a"), Soon(), nullptr).ok());

  const absl::Status again =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_EQ(again.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(api_->num_requests("POST"), 2);
}

TEST_F(KubeClientTest, FaultOfTheServerIsTriedAgain) {
  api_->FailNext(500, 3);

  const absl::Status created =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_TRUE(created.ok()) << created;
  EXPECT_EQ(api_->num_requests("POST"), 4);
}

TEST_F(KubeClientTest, RefusalIsNotTriedAgain) {
  api_->FailNext(403, 1);

  const absl::Status created =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_EQ(created.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(created.message()),
              AllOf(HasSubstr("403"), HasSubstr("ordered by the test"),
                    HasSubstr("the Role of deploy/kubernetes/components")));
  EXPECT_EQ(api_->num_requests("POST"), 1);
}

TEST_F(KubeClientTest, QuotaThatIsUsedUpIsNoMatterOfRoles) {
  api_->FailNext(403, 1, "jobs.batch \"a\" is forbidden: exceeded quota: pool");

  const absl::Status created =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_EQ(created.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(created.message()),
              AllOf(HasSubstr("exceeded quota: pool"),
                    HasSubstr("raise that ResourceQuota")));
}

TEST_F(KubeClientTest, AllJobsAreListed) {
  ASSERT_TRUE(client_->CreateJob(JobCalled("a"), Soon(), nullptr).ok());
  ASSERT_TRUE(client_->CreateJob(JobCalled("b"), Soon(), nullptr).ok());

  const auto jobs = client_->ListJobs("app=x", Soon(), nullptr);

  ASSERT_TRUE(jobs.ok()) << jobs.status();
  ASSERT_EQ(jobs->size(), 2u);
  EXPECT_EQ(TextAt(jobs->back(), {"metadata", "name"}), "b");
}

TEST_F(KubeClientTest, LostAnswerToACreateTurnsUpAsAlreadyExists) {
  api_->LoseNextAnswer();

  const absl::Status created =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_EQ(created.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(api_->job_names(), ElementsAre("a"));
}

TEST_F(KubeClientTest, FaultThatStaysIsNamedAtTheDeadline) {
  api_->FailNext(503, 1000000);

  const auto job =
      client_->GetJob("a", Deadline::After(milliseconds(50)), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("503"));
}

TEST_F(KubeClientTest, SilentServerMeetsTheDeadline) {
  api_->Freeze();

  const auto job =
      client_->GetJob("a", Deadline::After(milliseconds(50)), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("had no answer in time"));
}

TEST_F(KubeClientTest, CancelEndsACallThatWaits) {
  api_->Freeze();
  Thread canceller("cancel", [this] { cancel_->Cancel(); });

  const auto job = client_->GetJob("a", Deadline::Infinite(), cancel_.get());

  EXPECT_EQ(job.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(KubeClientTest, CancelEndsAPauseBetweenAttempts) {
  api_->FailNext(503, 1000000);
  Thread canceller("cancel", [this] { cancel_->Cancel(); });

  const auto job = client_->GetJob("a", Deadline::Infinite(), cancel_.get());

  EXPECT_EQ(job.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(KubeClientTest, NobodyThereIsUnavailable) {
  KubeClientOptions options = client_->options();
  options.server = "http://127.0.0.1:1";
  const auto client = KubeClient::Create(options);

  const auto job =
      (*client)->GetJob("a", Deadline::After(milliseconds(20)), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("127.0.0.1:1"));
}

TEST_F(KubeClientTest, TokenIsReadAgainForEachRequest) {
  const std::string path = absl::StrCat(FreshFolder(), "/token");
  ASSERT_TRUE(WriteFileAtomically(path, "first\n").ok());
  Connect(path);
  api_->RequireToken("first", nullptr);
  ASSERT_TRUE(client_->CreateJob(JobCalled("a"), Soon(), nullptr).ok());

  api_->RequireToken("second", nullptr);
  ASSERT_TRUE(WriteFileAtomically(path, "second\n").ok());
  const auto job = client_->GetJob("a", Soon(), nullptr);

  EXPECT_TRUE(job.ok()) << job.status();
}

TEST_F(KubeClientTest, TokenRotatedWhileItWasRefusedIsTried) {
  const std::string path = absl::StrCat(FreshFolder(), "/token");
  ASSERT_TRUE(WriteFileAtomically(path, "expired").ok());
  Connect(path);
  api_->RequireToken("fresh", [path] {
    EXPECT_TRUE(WriteFileAtomically(path, "fresh").ok());
  });

  const absl::Status created =
      client_->CreateJob(JobCalled("a"), Soon(), nullptr);

  EXPECT_TRUE(created.ok()) << created;
  EXPECT_EQ(api_->num_requests("POST"), 2);
}

TEST_F(KubeClientTest, WrongTokenIsUnauthenticatedAndNotRepeated) {
  const std::string path = absl::StrCat(FreshFolder(), "/token");
  ASSERT_TRUE(WriteFileAtomically(path, "wrong-secret").ok());
  Connect(path);
  api_->RequireToken("right", nullptr);

  const auto job = client_->GetJob("a", Soon(), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("token of the service account"));
  EXPECT_EQ(std::string(job.status().message()).find("wrong-secret"),
            std::string::npos);
  EXPECT_EQ(api_->num_requests("GET"), 1);
}

TEST_F(KubeClientTest, TokenThatWouldAddHeadersIsRefused) {
  const std::string path = absl::StrCat(FreshFolder(), "/token");
  ASSERT_TRUE(WriteFileAtomically(path, "a\r\nX-Evil: b").ok());
  Connect(path);

  const auto job = client_->GetJob("a", Soon(), nullptr);

  EXPECT_EQ(job.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(api_->num_requests("GET"), 0);
}

TEST(KubeClientOptionsTest, TokenIsNotSentInPlainTextOffLoopback) {
  KubeClientOptions options;
  options.server = "http://10.0.0.1:80";

  const auto client = KubeClient::Create(options);

  EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(client.status().message()),
              HasSubstr("expected https://HOST:PORT"));
}

TEST(KubeClientOptionsTest, PodsFolderAndEnvironmentAreRead) {
  const std::string folder = FreshFolder();
  for (const char* name : {"token", "ca.crt"}) {
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder, "/", name), "x").ok());
  }
  ASSERT_TRUE(
      WriteFileAtomically(absl::StrCat(folder, "/namespace"), "team-a").ok());
  setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  setenv("KUBERNETES_SERVICE_PORT", "443", 1);

  const auto options = InClusterKubeOptions(folder);

  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->server, "https://[fd00::1]:443");
  EXPECT_EQ(options->namespace_name, "team-a");
  EXPECT_EQ(options->ca_path, absl::StrCat(folder, "/ca.crt"));
}

TEST(KubeClientOptionsTest, OutsideOfAPodTheRemedyIsNamed) {
  unsetenv("KUBERNETES_SERVICE_HOST");

  const auto options = InClusterKubeOptions();

  EXPECT_EQ(options.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(options.status().message()),
              HasSubstr("deltapipe render SPEC | kubectl apply"));
}

/// What a watch saw, in words: "list 2", "end a-0", "gone a-0".
class Diary {
 public:
  PodWatcher watcher() {
    PodWatcher watcher;
    watcher.on_list = [this](const auto& pods) {
      Note(absl::StrCat("list ", pods.size()));
    };
    watcher.on_change = [this](const KubernetesObject& pod, bool is_deleted) {
      Note(is_deleted ? "gone" : TextAt(pod, {"status", "phase"}));
    };
    return watcher;
  }
  std::vector<std::string> Await(size_t count) {
    MutexLock lock(&mutex_);
    changed_.WaitUntil(lock, Soon(), [&] { return lines_.size() >= count; });
    return lines_;
  }

 private:
  void Note(const std::string& line) {
    MutexLock lock(&mutex_);
    lines_.push_back(line);
    changed_.NotifyAll();
  }
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> lines_ DP_GUARDED_BY(mutex_);
};

class KubeWatchTest : public KubeClientTest {
 protected:
  void SetUp() override {
    KubeClientTest::SetUp();
    api_->AddJob(JobCalled("a", 2));
    watching_ = Thread("watch", [this] {
      ended_ = client_->WatchPods("deltapipe.io/job=a", diary_.watcher(),
                                  Deadline::Infinite(), cancel_.get());
    });
    ASSERT_TRUE(api_->AwaitWatches(1));
  }
  void TearDown() override {
    cancel_->Cancel();
    watching_.Join();
    EXPECT_EQ(ended_.code(), absl::StatusCode::kCancelled);
  }

  Diary diary_;
  absl::Status ended_;
  Thread watching_;
};

TEST_F(KubeWatchTest, ChangesFollowTheListInOrder) {
  api_->EndPod("a", 0, 0, /*replace=*/false);
  api_->RemovePod("a", 1);

  EXPECT_THAT(diary_.Await(3), ElementsAre("list 2", "Succeeded", "gone"));
}

TEST_F(KubeWatchTest, CutConnectionLosesAndRepeatsNothing) {
  api_->EndPod("a", 0, 0, /*replace=*/false);
  diary_.Await(2);

  api_->CutWatches();
  ASSERT_TRUE(api_->AwaitWatches(2));
  api_->EndPod("a", 1, 3, /*replace=*/false);

  EXPECT_THAT(diary_.Await(3), ElementsAre("list 2", "Succeeded", "Failed"));
}

TEST_F(KubeWatchTest, VersionThatIsGoneMakesItListAnew) {
  api_->Forget(/*as_answer=*/false);
  ASSERT_TRUE(api_->AwaitWatches(2));
  api_->EndPod("a", 1, 3, /*replace=*/false);

  EXPECT_THAT(diary_.Await(3), ElementsAre("list 2", "list 2", "Failed"));
}

TEST_F(KubeWatchTest, GoneAsAnAnswerMakesItListAnew) {
  api_->CutWatches();
  api_->Forget(/*as_answer=*/true);
  diary_.Await(2);
  api_->EndPod("a", 1, 3, /*replace=*/false);

  EXPECT_THAT(diary_.Await(3), ElementsAre("list 2", "list 2", "Failed"));
}

TEST_F(KubeWatchTest, ServersFaultsAreOutlasted) {
  api_->FailNext(500, 3);
  api_->CutWatches();
  ASSERT_TRUE(api_->AwaitWatches(2));
  api_->EndPod("a", 1, 3, /*replace=*/false);

  EXPECT_THAT(diary_.Await(2), ElementsAre("list 2", "Failed"));
}

TEST_F(KubeClientTest, WatchThatIsNotAllowedReturns) {
  api_->FailNext(403, 1);
  Diary diary;

  const absl::Status ended = client_->WatchPods(
      "a=b", diary.watcher(), Deadline::Infinite(), cancel_.get());

  EXPECT_EQ(ended.code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(KubeClientTest, AnswerBeyondItsBoundIsRefused) {
  api_->AddJob(JobCalled("a", 50));
  HttpRequest request;
  request.url = absl::StrCat(api_->url(), "/api/v1/namespaces/x/pods");
  request.max_response_bytes = 1000;

  const auto response = ExchangeHttp(request, Soon(), nullptr);

  EXPECT_EQ(response.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(response.status().message()),
              HasSubstr("more than 1000 bytes"));
}

}  // namespace
}  // namespace deltapipe
