// A job whose micro-batches are of mixed image sizes goes on from a checkpoint
// as if nothing had happened.
#include <stdlib.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"
#include "worker/data/testing_images.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr int64_t kSteps = 16;

struct Setting {
  const char* name;
  int stages;
  int replicas;
  std::vector<std::string> overrides;
};

class ResumedImagesTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { SetComputeThreads(1); }

  std::unique_ptr<Job> MakeJob(uint64_t generation) {
    std::vector<std::string> overrides = {
        "model.kind=resnet",
        "model.norm=batch",
        "data.kind=fashion_mnist",
        "data.path=" + WriteImages("resumed_images_test", 96, 40),
        "data.sizes=28:0.4,15:0.4,20:0.2",
        "train.optimizer.kind=adamw",
        "train.optimizer.learning_rate=0.01",
        "train.steps=" + std::to_string(kSteps),
        "checkpoint.every=4"};
    const Setting& setting = GetParam();
    overrides.insert(overrides.end(), setting.overrides.begin(),
                     setting.overrides.end());
    auto job =
        std::make_unique<Job>(setting.stages, setting.replicas, overrides);
    job->make_stage = [](const v1::JobSpec& spec, const v1::StagePlan& plan) {
      return MakeTorchStage(spec, plan.first_layer(), plan.end_layer(), "cpu");
    };
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder_);
    job->assignment().set_generation(generation);
    return job;
  }

  const TemporaryFolder temporary_ =
      TemporaryFolder::Create("checkpoints").value();
  const std::string folder_ = temporary_.path();
};

TEST_P(ResumedImagesTest, GoesOnBitForBit) {
  const auto undisturbed = MakeJob(3);
  const auto elsewhere = TemporaryFolder::Create("checkpoints");
  ASSERT_TRUE(elsewhere.ok()) << elsewhere.status();
  undisturbed->assignment().set_checkpoint_folder(elsewhere->path());
  const RunResult whole = undisturbed->Run();

  const auto broken = MakeJob(3);
  broken->after_step = [](int, int64_t step, Training* training) {
    if (step == 13) training->Cancel(absl::UnavailableError("broken"));
  };
  broken->Run();
  const auto resumed = MakeJob(4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const int64_t from = rest.ready.at(0).restored_step();
  // The last one may not have been complete when the job broke.
  EXPECT_GE(from, 4);
  EXPECT_LE(from, 13);
  for (int64_t step = from; step < kSteps; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
  }
  for (const auto& [rank, weights] : whole.weights) {
    EXPECT_EQ(rest.weights.at(rank), weights) << "rank " << rank;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Settings, ResumedImagesTest,
    ::testing::Values(Setting{"Whole", 1, 1, {}},
                      Setting{"StagesOfViewsInCodecs",
                              2,
                              1,
                              {"data.views=2",
                               "compression.activations=int(8,axis=column)",
                               "compression.activation_gradients=int(8)"}},
                      Setting{"ReplicasThatPack",
                              2,
                              2,
                              {"compression.saved_activations=fixed(int(4))"}}),
    [](const ::testing::TestParamInfo<Setting>& info) {
      return std::string(info.param.name);
    });

}  // namespace
}  // namespace deltapipe
