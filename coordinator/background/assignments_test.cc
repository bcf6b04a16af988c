#include "coordinator/background/assignments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/path_roots.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

WorkerInfo WorkerOn(const std::string& host, int cores,
                    const std::string& device = "cpu") {
  WorkerInfo worker;
  worker.host = host;
  worker.cores = cores;
  worker.device = device;
  return worker;
}

v1::JobSpec SpecWithThreads(int threads) {
  v1::JobSpec spec;
  spec.mutable_parallel()->set_threads(threads);
  spec.mutable_parallel()->set_device("auto");
  return spec;
}

TEST(ThreadsOfWorkersTest, CoresAreSharedByTheWorkersOfAHost) {
  const std::vector<WorkerInfo> workers = {WorkerOn("a", 8), WorkerOn("a", 8),
                                           WorkerOn("b", 1)};

  EXPECT_THAT(ThreadsOfWorkers(SpecWithThreads(0), workers),
              ElementsAre(4, 4, 1));
  EXPECT_THAT(ThreadsOfWorkers(SpecWithThreads(3), workers),
              ElementsAre(3, 3, 3));
}

TEST(ComputeSlowdownTest, IsThreadsOverCoresOfTheOnlyHost) {
  const std::vector<WorkerInfo> four(4, WorkerOn("a", 2));

  EXPECT_DOUBLE_EQ(ComputeSlowdown(SpecWithThreads(0), four), 2);
  EXPECT_DOUBLE_EQ(ComputeSlowdown(SpecWithThreads(3), four), 6);
  EXPECT_DOUBLE_EQ(ComputeSlowdown(SpecWithThreads(1), {4, WorkerOn("a", 3)}),
                   4.0 / 3);
}

TEST(ComputeSlowdownTest, IsOneWhereNothingIsKnownToBeShared) {
  const v1::JobSpec spec = SpecWithThreads(1);

  EXPECT_EQ(ComputeSlowdown(spec, {4, WorkerOn("a", 64)}), 1);
  EXPECT_EQ(ComputeSlowdown(spec, {4, WorkerOn("a", 0)}), 1);
  EXPECT_EQ(ComputeSlowdown(spec, {4, WorkerOn("a", 2, "cuda:0")}), 1);
  EXPECT_EQ(ComputeSlowdown(
                spec, {WorkerOn("a", 1), WorkerOn("a", 1), WorkerOn("b", 1)}),
            1);
  EXPECT_EQ(ComputeSlowdown(spec, {}), 1);
}

TEST(ComputeSlowdownTest, CpuJobOnGpuWorkersSharesTheCores) {
  v1::JobSpec spec = SpecWithThreads(1);
  spec.mutable_parallel()->set_device("cpu");

  EXPECT_EQ(ComputeSlowdown(spec, {4, WorkerOn("a", 2, "cuda:0")}), 2);
}

TEST(DeviceToProfileTest, IsThatOfTheWorkersHere) {
  v1::JobSpec spec = SpecWithThreads(1);
  const std::vector<WorkerInfo> workers = {WorkerOn("a", 2),
                                           WorkerOn("b", 2, "cuda:0")};

  EXPECT_EQ(DeviceToProfile(spec, workers, "a"), "cpu");
  EXPECT_EQ(DeviceToProfile(spec, workers, "b"), "cuda");
  EXPECT_EQ(DeviceToProfile(spec, workers, "c"), "auto");
  spec.mutable_parallel()->set_device("cuda");
  EXPECT_EQ(DeviceToProfile(spec, workers, "a"), "cuda");
}

TEST(EstimateTrainSamplesTest, OfDataBeneathTheRootsOnly) {
  const std::string folder = ::testing::TempDir();
  ASSERT_TRUE(WriteFileAtomically(folder + "/corpus.txt",
                                  absl::string_view(std::string(1000, 'a')))
                  .ok());
  v1::JobSpec spec;
  spec.mutable_model()->set_kind("gpt");
  spec.mutable_model()->set_context(10);
  spec.mutable_data()->set_kind("bytes");
  spec.mutable_data()->set_limit("all");
  spec.mutable_data()->set_path(folder + "/corpus.txt");

  EXPECT_EQ(EstimateTrainSamples(spec), 100);
  EXPECT_EQ(
      EstimateTrainSamples(spec, PathRoots::Beneath({folder}, "--data-root")),
      100);
  EXPECT_EQ(EstimateTrainSamples(spec, PathRoots::Beneath({}, "--data-root")),
            0);
}

}  // namespace
}  // namespace deltapipe
