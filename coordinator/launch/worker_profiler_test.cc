#include "coordinator/launch/worker_profiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/thread.h"
#include "coordinator/launch/find_worker_binary.h"
#include "coordinator/launch/launch_token.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// A worker that is a shell script; it counts its runs in the file `runs`.
class WorkerProfilerTest : public ::testing::Test {
 protected:
  WorkerProfilerTest() {
    const char* const base = getenv("TEST_TMPDIR");
    folder_ = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    spec_.mutable_model()->set_kind("gpt");
    spec_.mutable_model()->set_layers(4);
  }
  std::unique_ptr<WorkerProfiler> ProfilerOf(
      const std::string& body, bool has_cache = false,
      std::chrono::milliseconds patience = std::chrono::seconds(60)) {
    WorkerProfilerOptions options;
    options.worker_binary = absl::StrCat(folder_, "/worker.sh");
    EXPECT_TRUE(
        WriteFileAtomically(options.worker_binary,
                            absl::StrCat("#!/bin/sh\necho x >> ", folder_,
                                         "/runs\n", body, "\n"))
            .ok());
    EXPECT_EQ(chmod(options.worker_binary.c_str(), 0755), 0);
    if (has_cache) options.cache_folder = absl::StrCat(folder_, "/cache");
    options.patience = patience;
    return *WorkerProfiler::Create(options);
  }
  size_t NumRuns() {
    const auto runs = ReadFile(absl::StrCat(folder_, "/runs"));
    return runs.ok() ? runs->size() / 2 : 0;
  }

  static constexpr char kPrintsProfile[] =
      "echo '{\"device\":\"cpu\",\"layers\":[{\"name\":\"block\","
      "\"forwardSeconds\":0.25}]}'";
  std::string folder_;
  v1::JobSpec spec_;
};

TEST_F(WorkerProfilerTest, ProfileIsWhatTheWorkerPrints) {
  const auto profile = ProfilerOf(kPrintsProfile)->Profile(spec_);

  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->layers_size(), 1);
  EXPECT_EQ(profile->layers(0).name(), "block");
  EXPECT_EQ(profile->layers(0).forward_seconds(), 0.25);
}

TEST_F(WorkerProfilerTest, WorkerIsGivenTheSpecAsJson) {
  const auto profiler =
      ProfilerOf(absl::StrCat("[ \"$1\" = --profile ] && cp \"$2\" ", folder_,
                              "/seen\n", kPrintsProfile));

  ASSERT_TRUE(profiler->Profile(spec_).ok());

  EXPECT_THAT(*ReadFile(absl::StrCat(folder_, "/seen")),
              AllOf(HasSubstr("\"kind\":\"gpt\""), HasSubstr("\"layers\":4")));
}

TEST_F(WorkerProfilerTest, WorkerMeasuresWithTheSpecsDeviceAndThreads) {
  const auto profiler = ProfilerOf(absl::StrCat(
      "echo \"$3 $4 $5 $6\" > ", folder_, "/seen\n", kPrintsProfile));
  spec_.mutable_parallel()->set_device("cpu");
  spec_.mutable_parallel()->set_threads(3);

  ASSERT_TRUE(profiler->Profile(spec_).ok());

  EXPECT_EQ(*ReadFile(absl::StrCat(folder_, "/seen")),
            "--device cpu --threads 3\n");
}

TEST_F(WorkerProfilerTest, ThreadsAreTheCoresOverTheWorkersUnlessWritten) {
  const auto profiler = ProfilerOf(absl::StrCat(
      "echo \"$3 $4 $5 $6\" > ", folder_, "/seen\n", kPrintsProfile));
  spec_.mutable_parallel()->set_stages(1024);
  spec_.mutable_parallel()->set_replicas(1024);

  ASSERT_TRUE(profiler->Profile(spec_).ok());

  EXPECT_EQ(*ReadFile(absl::StrCat(folder_, "/seen")),
            "--device auto --threads 1\n");
}

TEST_F(WorkerProfilerTest, OtherDeviceOrThreadsAreMeasuredAnew) {
  const auto profiler = ProfilerOf(kPrintsProfile, /*has_cache=*/true);
  spec_.mutable_parallel()->set_threads(1);
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 1u);

  spec_.mutable_parallel()->set_threads(2);
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 2u);
  spec_.mutable_parallel()->set_device("cuda");
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 3u);
}

TEST_F(WorkerProfilerTest, ProfileOfAutoServesTheDeviceThatItMeant) {
  const auto profiler = ProfilerOf(kPrintsProfile);
  ASSERT_TRUE(profiler->Profile(spec_).ok());

  spec_.mutable_parallel()->set_device("cpu");
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 1u);
  spec_.mutable_parallel()->set_device("cuda");
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 2u);
}

TEST_F(WorkerProfilerTest, SameModelIsMeasuredOnce) {
  const auto profiler = ProfilerOf(kPrintsProfile);

  ASSERT_TRUE(profiler->Profile(spec_).ok());
  spec_.set_name("another-name");
  spec_.mutable_train()->set_steps(7);
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 1u);
  spec_.mutable_model()->set_layers(5);
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 2u);
}

TEST_F(WorkerProfilerTest, CacheFolderServesTheNextProcess) {
  auto profiler = ProfilerOf(kPrintsProfile, /*has_cache=*/true);
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  WorkerProfilerOptions options;
  options.worker_binary = absl::StrCat(folder_, "/worker.sh");
  options.cache_folder = absl::StrCat(folder_, "/cache");

  profiler = *WorkerProfiler::Create(options);
  const auto profile = profiler->Profile(spec_);

  ASSERT_TRUE(profile.ok());
  EXPECT_EQ(profile->layers(0).name(), "block");
  EXPECT_EQ(NumRuns(), 1u);
}

TEST_F(WorkerProfilerTest, FailureQuotesTheWorkersLastWords) {
  const auto profile =
      ProfilerOf("echo 'heads must divide width' >&2; exit 2")->Profile(spec_);

  EXPECT_EQ(profile.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(profile.status().message()),
      AllOf(HasSubstr("exit code 2"), HasSubstr("heads must divide width")));
}

TEST_F(WorkerProfilerTest, FailureIsNotRemembered) {
  const auto profiler = ProfilerOf(
      absl::StrCat("[ -e ", folder_, "/healed ] || exit 1\n", kPrintsProfile));
  EXPECT_FALSE(profiler->Profile(spec_).ok());
  ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder_, "/healed"), "x").ok());

  EXPECT_TRUE(profiler->Profile(spec_).ok());
}

TEST_F(WorkerProfilerTest, NonsenseIsQuoted) {
  const auto profile = ProfilerOf("echo hello")->Profile(spec_);

  EXPECT_EQ(profile.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(profile.status().message()), HasSubstr("hello"));
}

TEST_F(WorkerProfilerTest, HangingWorkerIsGivenUp) {
  const auto profiler =
      ProfilerOf("sleep 600", false, std::chrono::milliseconds(50));

  EXPECT_EQ(profiler->Profile(spec_).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(WorkerProfilerTest, CancelEndsAMeasurementAndRefusesLaterOnes) {
  const auto profiler = ProfilerOf("sleep 600");
  absl::Status status;
  Thread measuring("measuring",
                   [&] { status = profiler->Profile(spec_).status(); });

  profiler->Cancel();
  measuring.Join();

  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(profiler->Profile(spec_).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(WorkerProfilerTest, OneShotProfilerWorksAlone) {
  ProfilerOf(kPrintsProfile);

  EXPECT_TRUE(RunProfiler(absl::StrCat(folder_, "/worker.sh"), spec_).ok());
}

TEST_F(WorkerProfilerTest, WorkerBinaryIsFoundByItsVariable) {
  ProfilerOf(kPrintsProfile);
  const std::string path = absl::StrCat(folder_, "/worker.sh");

  setenv("DELTAPIPE_WORKER", path.c_str(), 1);
  const auto found = FindWorkerBinary();
  setenv("DELTAPIPE_WORKER", "/nowhere", 1);
  const auto wrong = FindWorkerBinary();
  unsetenv("DELTAPIPE_WORKER");
  const auto missing = FindWorkerBinary();

  EXPECT_EQ(*found, path);
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("/nowhere"));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr("deltapipe-worker"));
}

TEST(LaunchTokenTest, TokensAreLongAndDiffer) {
  const std::string first = *MakeLaunchToken();

  EXPECT_EQ(first.size(), 32u);
  EXPECT_NE(first, *MakeLaunchToken());
}

TEST_F(WorkerProfilerTest, OtherPolicyForSavedActivationsIsMeasuredAnew) {
  const auto profiler = ProfilerOf(kPrintsProfile, /*has_cache=*/true);
  ASSERT_TRUE(profiler->Profile(spec_).ok());

  spec_.mutable_compression()->set_saved_activations("fixed(int(4))");
  spec_.mutable_compression()->set_activations("int(4)");  // between stages
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 2u);
  spec_.mutable_compression()->set_saved_activations("fixed(int(8))");
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 3u);
  spec_.mutable_compression()->set_activations("int(8)");
  ASSERT_TRUE(profiler->Profile(spec_).ok());
  EXPECT_EQ(NumRuns(), 3u);
}

}  // namespace
}  // namespace deltapipe
