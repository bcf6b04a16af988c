// The conformance suite of Launcher, over all of them, and what only real
// children can show. Workers are shell scripts; those on Kubernetes are what a
// fake API server says.
#include "coordinator/launch/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/mutex.h"
#include "coordinator/launch/fake_launcher.h"
#include "coordinator/launch/kubernetes/fake_kube_api.h"
#include "coordinator/launch/kubernetes/kubernetes_launcher.h"
#include "coordinator/launch/local_launcher.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string FreshFolder() {
  const char* const base = getenv("TEST_TMPDIR");
  std::string path = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return path;
}

/// An executable shell script.
std::string Script(const std::string& folder, const std::string& body) {
  const std::string path = absl::StrCat(folder, "/worker.sh");
  EXPECT_TRUE(
      WriteFileAtomically(path, absl::StrCat("#!/bin/sh\n", body, "\n")).ok());
  EXPECT_EQ(chmod(path.c_str(), 0755), 0);
  return path;
}

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
    changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(30)),
                       [&] { return exits_.size() >= count; });
    return exits_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<WorkerExit> exits_ DP_GUARDED_BY(mutex_);
};

std::unique_ptr<LocalLauncher> LocalWith(const std::string& folder,
                                         const std::string& script,
                                         Exits* exits) {
  LocalLauncherOptions options;
  options.worker_binary = script;
  options.coordinator_address = "127.0.0.1:5";
  options.launch_token = "secret";
  options.log_folder = absl::StrCat(folder, "/logs");
  options.on_exit = exits->callback();
  auto launcher = LocalLauncher::Create(options);
  EXPECT_TRUE(launcher.ok()) << launcher.status();
  return *std::move(launcher);
}

/// Whether the process runs (a zombie does not).
bool Runs(pid_t pid) {
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  if (!stat.ok()) return false;
  const size_t state = stat->rfind(')') + 2;
  return (*stat)[state] != 'Z' && (*stat)[state] != 'X';
}

/// The pid that a script has written to `path`, once it has.
pid_t AwaitPid(const std::string& path) {
  const Deadline deadline = Deadline::After(std::chrono::seconds(30));
  while (!deadline.has_passed()) {
    const auto text = ReadFile(path);
    int pid = 0;
    if (text.ok() && !text->empty() && text->back() == '\n' &&
        absl::SimpleAtoi(*text, &pid)) {
      return pid;
    }
    usleep(2000);  // another process cannot be waited for otherwise
  }
  ADD_FAILURE() << "no pid in " << path;
  return 0;
}

class LauncherTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "local") {
      folder_ = FreshFolder();
      // Ends with the code that is sent to its pipe.
      launcher_ = LocalWith(
          folder_,
          Script(folder_,
                 absl::StrCat("read code < ", folder_, "/code; exit $code")),
          &exits_);
      ASSERT_EQ(mkfifo(absl::StrCat(folder_, "/code").c_str(), 0600), 0);
    } else if (std::string(GetParam()) == "kubernetes") {
      kube_api_ = FakeKubeApi::Start();
      KubeClientOptions client_options;
      client_options.server = kube_api_->url();
      client_options.namespace_name = "deltapipe";
      auto client = KubeClient::Create(client_options);
      ASSERT_TRUE(client.ok()) << client.status();
      KubernetesLauncherOptions options;
      options.job = "job";
      options.on_exit = exits_.callback();
      auto launcher = KubernetesLauncher::Create(*std::move(client), options);
      ASSERT_TRUE(launcher.ok()) << launcher.status();
      launcher_ = *std::move(launcher);
    } else {
      auto fake = std::make_unique<FakeLauncher>(exits_.callback());
      fake_ = fake.get();
      launcher_ = std::move(fake);
    }
  }
  void EndFirst(int code) {
    if (fake_ != nullptr) {
      ChildExit exit;
      exit.code = code;
      fake_->EndWorker(0, exit);
    } else if (kube_api_ != nullptr) {
      kube_api_->EndPod("deltapipe-job", 0, code, /*replace=*/false);
    } else {
      FILE* const pipe = fopen(absl::StrCat(folder_, "/code").c_str(), "w");
      ASSERT_NE(pipe, nullptr);
      fprintf(pipe, "%d\n", code);
      fclose(pipe);
    }
  }

  std::string folder_;
  Exits exits_;
  std::unique_ptr<FakeKubeApi> kube_api_;  // outlives the launcher
  std::unique_ptr<Launcher> launcher_;
  FakeLauncher* fake_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Launchers, LauncherTest,
                         ::testing::Values("fake", "local", "kubernetes"));

TEST_P(LauncherTest, LaunchedWorkersRunUntilStop) {
  ASSERT_TRUE(launcher_->Launch(2).ok());
  ASSERT_TRUE(launcher_->Launch(1).ok());
  EXPECT_EQ(launcher_->NumRunning(), 3);

  launcher_->Stop();

  EXPECT_EQ(launcher_->NumRunning(), 0);
  EXPECT_TRUE(exits_.Await(0).empty());
  launcher_->Stop();
}

TEST_P(LauncherTest, EndOfAWorkerIsReportedWithItsCode) {
  ASSERT_TRUE(launcher_->Launch(1).ok());

  EndFirst(3);

  const auto exits = exits_.Await(1);
  ASSERT_EQ(exits.size(), 1u);
  EXPECT_EQ(exits[0].index, 0);
  EXPECT_EQ(exits[0].exit.code, 3);
  EXPECT_EQ(exits[0].exit.signal, 0);
  EXPECT_EQ(launcher_->NumRunning(), 0);
}

TEST_P(LauncherTest, NothingIsLaunchedAfterStop) {
  launcher_->Stop();

  EXPECT_EQ(launcher_->Launch(1).code(), absl::StatusCode::kFailedPrecondition);
}

// The log worker-0.log could belong to worker-3 of the job.
TEST(LocalLauncherTest, WorkerGetsItsArgumentsAndTheLogOfItsName) {
  const std::string folder = FreshFolder();
  Exits exits;
  const auto launcher = LocalWith(
      folder, Script(folder, "echo \"$@\"; echo trouble >&2"), &exits);

  ASSERT_TRUE(launcher->Launch(2).ok());

  const auto ended = exits.Await(2);
  ASSERT_EQ(ended.size(), 2u);
  for (const char* name : {"worker-1", "worker-2"}) {
    EXPECT_EQ(*ReadFile(absl::StrCat(folder, "/logs/", name, ".log")),
              absl::StrCat("--coordinator 127.0.0.1:5 --listen 127.0.0.1:0 "
                           "--name ",
                           name, " --launch-token secret\ntrouble\n"));
  }
}

TEST(LocalLauncherTest, SignalThatKilledAWorkerIsNamed) {
  const std::string folder = FreshFolder();
  Exits exits;
  const auto launcher = LocalWith(folder, Script(folder, "kill -9 $$"), &exits);

  ASSERT_TRUE(launcher->Launch(1).ok());

  const auto ended = exits.Await(1);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].exit.signal, SIGKILL);
  EXPECT_THAT(ended[0].exit.ToString(), HasSubstr("signal 9 (Killed)"));
}

TEST(LocalLauncherTest, WorkersThatIgnoreSigtermAreKilledWithinTwoSeconds) {
  const std::string folder = FreshFolder();
  Exits exits;
  const auto launcher = LocalWith(
      folder,
      Script(folder, absl::StrCat("trap '' TERM\necho $$ > ", folder,
                                  "/pid\nwhile :; do sleep 60; done")),
      &exits);
  ASSERT_TRUE(launcher->Launch(1).ok());
  const pid_t pid = AwaitPid(absl::StrCat(folder, "/pid"));

  const auto start = std::chrono::steady_clock::now();
  launcher->Stop();

  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  EXPECT_FALSE(Runs(pid));
}

TEST(LocalLauncherTest, ProgramThatCannotRunIsNamed) {
  const std::string folder = FreshFolder();
  Exits exits;
  const auto missing = LocalWith(folder, absl::StrCat(folder, "/none"), &exits);
  const std::string text = absl::StrCat(folder, "/text");
  ASSERT_TRUE(WriteFileAtomically(text, "no program").ok());
  const auto no_program = LocalWith(folder, text, &exits);

  const absl::Status not_found = missing->Launch(2);
  const absl::Status refused = no_program->Launch(1);

  EXPECT_EQ(not_found.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(not_found.message()),
              HasSubstr(absl::StrCat(folder, "/none")));
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(missing->NumRunning(), 0);
}

TEST(LocalLauncherTest, KilledParentLeavesNoOrphan) {
  const std::string folder = FreshFolder();
  const std::string pid_path = absl::StrCat(folder, "/pid");
  const std::string script =
      Script(folder, absl::StrCat("echo $$ > ", pid_path, "\nexec sleep 600"));
  // The parent is a process of its own, which is then killed the hard way. A
  // fork has one thread, so the child may use the launcher.
  const pid_t parent = fork();
  if (parent == 0) {
    Exits exits;
    const auto launcher = LocalWith(folder, script, &exits);
    if (!launcher->Launch(1).ok()) _exit(1);
    pause();
    _exit(0);
  }
  const pid_t worker = AwaitPid(pid_path);
  ASSERT_GT(worker, 0);
  EXPECT_TRUE(Runs(worker));

  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);

  const Deadline deadline = Deadline::After(std::chrono::seconds(10));
  while (Runs(worker) && !deadline.has_passed()) {
    usleep(2000);  // another process cannot be waited for otherwise
  }
  EXPECT_FALSE(Runs(worker));
}

TEST(LocalLauncherTest, WorkersAreOutOfReachOfTheTerminalsCtrlC) {
  const std::string folder = FreshFolder();
  Exits exits;
  const auto launcher = LocalWith(
      folder,
      Script(folder,
             absl::StrCat("echo $$ > ", folder, "/pid\nexec sleep 600")),
      &exits);

  ASSERT_TRUE(launcher->Launch(1).ok());

  const pid_t pid = AwaitPid(absl::StrCat(folder, "/pid"));
  EXPECT_EQ(getpgid(pid), pid);
  EXPECT_NE(getpgid(pid), getpgrp());
}

}  // namespace
}  // namespace deltapipe
