// Gradients of LibTorch's stages that travel while the step's last backward
// still runs: of stages in 16 bits, and of stages with tied weights.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

/// A stage that may be told not to tell, and counts what it tells.
class ToldStage : public Stage {
 public:
  ToldStage(std::unique_ptr<Stage> stage, bool tells_early,
            std::atomic<int>* num_told)
      : stage_(std::move(stage)),
        tells_early_(tells_early),
        num_told_(num_told) {}

  const ParameterLayout& parameters() const override {
    return stage_->parameters();
  }
  absl::Span<float> weights() override { return stage_->weights(); }
  absl::Span<float> gradients() override { return stage_->gradients(); }
  absl::Status WeightsChanged() override { return stage_->WeightsChanged(); }
  BoundaryShape input_shape() const override { return stage_->input_shape(); }
  BoundaryShape output_shape() const override { return stage_->output_shape(); }
  absl::Status Forward(const StageInput& input, StageOutput* output) override {
    return stage_->Forward(input, output);
  }
  absl::StatusOr<TensorRef> Backward(int microbatch,
                                     const TensorRef& gradient) override {
    return stage_->Backward(microbatch, gradient);
  }
  std::vector<ElementRange> gradient_order() const override {
    return stage_->gradient_order();
  }
  bool WatchNextBackward(
      std::function<void(int64_t num_final)> on_final) override {
    if (!tells_early_) return false;
    return stage_->WatchNextBackward(
        [this, on_final = std::move(on_final)](int64_t num_final) {
          ++*num_told_;
          on_final(num_final);
        });
  }
  SavedActivations* saved_activations() override {
    return stage_->saved_activations();
  }

 private:
  const std::unique_ptr<Stage> stage_;
  const bool tells_early_;
  std::atomic<int>* const num_told_;
};

struct EarlyRun {
  RunResult result;
  std::atomic<int> num_told{0};
  std::atomic<int> num_early{0};  // synchronisations that steps traced
};

/// 2 stages x 2 replicas, two micro-batches of each, 4 steps, all but the first
/// of which are traced. A stage has more than two buckets of the fp32 ring.
void RunJob(const std::vector<std::string>& overrides, bool tells_early,
            EarlyRun* run) {
  SetComputeThreads(1);
  std::vector<std::string> all = {
      "model.context=4",      "train.batch=4",
      "train.microbatch=1",   "train.steps=4",
      "train.verify_every=1", "train.optimizer.kind=adamw",
      "data.validation=0.02", "train.optimizer.learning_rate=0.001"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  Job job(2, 2, all);
  job.takes_checkpoints = true;
  job.make_stage =
      [&](const v1::JobSpec& spec,
          const v1::StagePlan& plan) -> absl::StatusOr<std::unique_ptr<Stage>> {
    auto stage =
        MakeTorchStage(spec, plan.first_layer(), plan.end_layer(), "cpu");
    if (!stage.ok()) return stage.status();
    return {std::make_unique<ToldStage>(*std::move(stage), tells_early,
                                        &run->num_told)};
  };
  job.after_step = [](int, int64_t step, Training* training) {
    if (step == 0) training->RequestTrace(3);
  };
  job.on_trace = [run](int, const v1::StepTrace& trace) {
    for (const v1::TraceSpan& span : trace.spans()) {
      if (span.name() == "synchronise") ++run->num_early;
    }
  };
  run->result = job.Run();
}

class EarlyStagesTest
    : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(EarlyStagesTest, AJobHasTheBitsOfOneThatWaitsForItsLastBackward) {
  EarlyRun early;
  EarlyRun late;

  RunJob(GetParam(), true, &early);
  RunJob(GetParam(), false, &late);

  ExpectSuccess(early.result);
  ExpectSuccess(late.result);
  EXPECT_EQ(early.num_early, 4 * 3);
  EXPECT_GE(early.num_told, 4 * 4 * 2);
  EXPECT_EQ(late.num_early, 0);
  EXPECT_EQ(early.result.losses, late.result.losses);
  EXPECT_TRUE(early.result.weights == late.result.weights);
  for (const auto& [rank, reports] : early.result.reports) {
    const std::vector<v1::StepReport>& others = late.result.reports.at(rank);
    for (size_t i = 0; i < reports.size(); ++i) {
      EXPECT_EQ(reports[i].gradient_norm(), others[i].gradient_norm());
      EXPECT_EQ(reports[i].weights_hash(), others[i].weights_hash());
      EXPECT_EQ(reports[i].skipped_steps(), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, EarlyStagesTest,
    ::testing::Values(
        std::vector<std::string>{"model.kind=mlp", "model.width=432",
                                 "train.precision=bf16"},
        std::vector<std::string>{"model.kind=mlp", "model.width=432",
                                 "train.precision=fp16",
                                 "train.loss_scale=1000"},
        std::vector<std::string>{"model.kind=gpt", "model.width=320",
                                 "model.heads=4", "model.tied=on"},
        std::vector<std::string>{"model.kind=gpt", "model.width=320",
                                 "model.heads=4", "model.tied=on",
                                 "train.precision=fp16"}),
    [](const auto& info) { return absl::StrCat("Case", info.index); });

}  // namespace
}  // namespace deltapipe
