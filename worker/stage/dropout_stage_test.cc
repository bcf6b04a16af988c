// Dropout in whole models (model.dropout): what is dropped does not depend on
// how a step is computed.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"
#include "worker/stage/testing/stage_pipeline.h"

namespace deltapipe {
namespace {

constexpr int64_t kSamples = 4;

v1::JobSpec Spec(const std::string& kind, double dropout,
                 const std::string& policy = "none") {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(3);
  // Less than 1,024 elements of a tensor are not packed.
  spec.mutable_model()->set_width(kind == "image_mlp" ? 512 : 64);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(32);
  spec.mutable_model()->set_dropout(dropout);
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_activations(policy);
  return spec;
}

/// What one forward and backward pass gives.
struct Outcome {
  double loss = 0;
  std::vector<float> gradients;
};

/// Runs samples [begin, begin + count) of `sample` through stages.
class Pipeline {
 public:
  Pipeline(const v1::JobSpec& spec, int num_stages) : model_(spec.model()) {
    const int layers = spec.model().layers();
    for (int s = 0; s < num_stages; ++s) {
      auto stage = MakeTorchStage(spec, s * layers / num_stages,
                                  (s + 1) * layers / num_stages, "cpu");
      EXPECT_TRUE(stage.ok()) << stage.status();
      stages_.push_back(*std::move(stage));
    }
  }

  /// `order` are the micro-batch's samples.
  double Run(const std::vector<int64_t>& order, int64_t step = 1,
             bool trains = true, float loss_scale = 1) {
    const SampleInput all(model_, kSamples);
    const StageInput whole = all.input();
    std::vector<uint8_t> tokens, targets;
    std::vector<uint64_t> keys;
    const auto copy = [](absl::Span<const uint8_t> from, int64_t sample,
                         std::vector<uint8_t>* to) {
      const size_t size = from.size() / kSamples;
      const auto part = from.subspan(static_cast<size_t>(sample) * size, size);
      to->insert(to->end(), part.begin(), part.end());
    };
    for (const int64_t sample : order) {
      copy(whole.tokens, sample, &tokens);
      copy(whole.targets, sample, &targets);
      keys.push_back(whole.sample_keys[static_cast<size_t>(sample)]);
    }
    StageInput input;
    input.step = step;
    input.num_samples = static_cast<int64_t>(order.size());
    input.sample_keys = keys;
    input.tokens = tokens;
    input.targets = targets;
    input.needs_backward = trains;
    input.loss_scale = loss_scale;
    StageOutput output;
    for (auto& stage : stages_) {
      EXPECT_TRUE(stage->Forward(input, &output).ok());
      input.activation = output.activation;
    }
    TensorRef gradient;
    for (auto stage = stages_.rbegin(); trains && stage != stages_.rend();
         ++stage) {
      auto result = (*stage)->Backward(0, gradient);
      EXPECT_TRUE(result.ok()) << result.status();
      gradient = *result;
    }
    return output.loss;
  }

  std::vector<float> Gradients() {
    std::vector<float> all;
    for (auto& stage : stages_) {
      const absl::Span<float> own = stage->gradients();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }
  void Forget() {
    for (auto& stage : stages_) EXPECT_TRUE(stage->WeightsChanged().ok());
  }
  SavedActivations* saved() { return stages_[0]->saved_activations(); }

 private:
  const v1::ModelSpec model_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

const std::vector<int64_t> kAll = {0, 1, 2, 3};

Outcome RunOne(const v1::JobSpec& spec, int num_stages = 1, int64_t step = 1) {
  Pipeline pipeline(spec, num_stages);
  Outcome outcome;
  outcome.loss = pipeline.Run(kAll, step);
  outcome.gradients = pipeline.Gradients();
  // Stages sort their parameters by name: the same values in another order.
  std::sort(outcome.gradients.begin(), outcome.gradients.end());
  return outcome;
}

class DropoutStageTest : public ::testing::TestWithParam<std::string> {};

TEST_P(DropoutStageTest, AnyCutDropsTheSame) {
  const Outcome whole = RunOne(Spec(GetParam(), 0.2), 1);
  for (const int stages : {2, 3}) {
    const Outcome cut = RunOne(Spec(GetParam(), 0.2), stages);

    EXPECT_EQ(cut.loss, whole.loss) << stages;
    EXPECT_EQ(cut.gradients, whole.gradients) << stages;
  }
  EXPECT_NE(RunOne(Spec(GetParam(), 0)).loss, whole.loss);
}

TEST_P(DropoutStageTest, OrderAndSizeOfMicrobatchesDoNotMatter) {
  Pipeline together(Spec(GetParam(), 0.2), 1);
  const double loss = together.Run(kAll);
  const std::vector<float> expected = together.Gradients();
  Pipeline apart(Spec(GetParam(), 0.2), 1);

  const double mean = apart.Run({3}, 1, true, 0.25f) / 4 +
                      apart.Run({1, 0}, 1, true, 0.5f) / 2 +
                      apart.Run({2}, 1, true, 0.25f) / 4;

  // Sums in another order; other masks move them by a tenth.
  EXPECT_NEAR(mean, loss, 1e-5);
  EXPECT_LT(RelativeDifference(apart.Gradients(), expected), 1e-5);
}

TEST_P(DropoutStageTest, StepsDifferAndEvaluationHasNone) {
  const Outcome first = RunOne(Spec(GetParam(), 0.2), 1, 1);

  EXPECT_NE(RunOne(Spec(GetParam(), 0.2), 1, 2).loss, first.loss);
  EXPECT_EQ(RunOne(Spec(GetParam(), 0.2), 1, 1).gradients, first.gradients);
  EXPECT_EQ(Pipeline(Spec(GetParam(), 0.2), 1).Run(kAll, 1, false),
            Pipeline(Spec(GetParam(), 0), 1).Run(kAll, 1, false));
}

TEST_P(DropoutStageTest, RecomputingDropsTheSame) {
  const Outcome plain = RunOne(Spec(GetParam(), 0.2));
  for (const char* policy : {"recompute(every=1)", "recompute(every=2)"}) {
    const Outcome again = RunOne(Spec(GetParam(), 0.2, policy));

    EXPECT_EQ(again.loss, plain.loss) << policy;
    EXPECT_EQ(again.gradients, plain.gradients) << policy;
  }
}

TEST_P(DropoutStageTest, LossIsTheSameWhateverIsPacked) {
  const Outcome plain = RunOne(Spec(GetParam(), 0.2));
  for (const char* policy :
       {"fixed(int(2))", "fixed(int(8))", "actnn(bits=4)"}) {
    const Outcome packed = RunOne(Spec(GetParam(), 0.2, policy));

    EXPECT_EQ(packed.loss, plain.loss) << policy;
    EXPECT_NE(packed.gradients, plain.gradients) << policy;
  }
}

// A probe that drew anew would find an error of the order of 1.
TEST_P(DropoutStageTest, ProbesDropTheSame) {
  v1::JobSpec spec = Spec(GetParam(), 0.2, "fixed(int(8))");
  spec.mutable_compression()->set_saved_probe_every(1);
  spec.mutable_compression()->set_saved_error_limit(0.1);
  Pipeline pipeline(spec, 1);
  pipeline.Run(kAll);

  const SavedFindings findings = pipeline.saved()->TakeFindings();

  EXPECT_FALSE(findings.errors.empty());
  EXPECT_TRUE(findings.changes.empty());
}

// What is listed is what the model saves without dropout, and results of
// dropout in the place of what they were made of.
TEST_P(DropoutStageTest, NoMaskIsKept) {
  Pipeline without(Spec(GetParam(), 0, "fixed(none)"), 1);
  Pipeline with(Spec(GetParam(), 0.2, "fixed(none)"), 1);
  without.Run(kAll);
  with.Run(kAll);
  const auto kept = [](const std::vector<SavedTensorReport>& tensors) {
    int64_t bytes = 0;
    for (const SavedTensorReport& tensor : tensors) {
      EXPECT_NE(tensor.tensor_class, "mask") << tensor.name;
      bytes += tensor.raw_bytes;
    }
    return bytes;
  };

  EXPECT_EQ(with.saved()->LastForward().size(),
            without.saved()->LastForward().size());
  EXPECT_EQ(kept(with.saved()->LastForward()),
            kept(without.saved()->LastForward()));
}

INSTANTIATE_TEST_SUITE_P(Models, DropoutStageTest,
                         ::testing::Values("gpt", "mlp", "image_mlp"));

// A plan chooses layers to compute again, after step 0.
TEST(DropoutStage, LayersThatAPlanComputesAgainDropTheSame) {
  Pipeline plain(Spec("gpt", 0.2), 1);
  Pipeline planned(Spec("gpt", 0.2, "auto(0.7,slowdown=0.17)"), 1);
  for (int64_t step = 0; step < 2; ++step) {
    EXPECT_EQ(planned.Run(kAll, step), plain.Run(kAll, step)) << step;
    EXPECT_LT(RelativeDifference(planned.Gradients(), plain.Gradients()), 0.3);
    planned.Forget();
    plain.Forget();
  }

  int num_again = 0;
  for (const SavedTensorReport& tensor : planned.saved()->LastForward()) {
    num_again += absl::EndsWith(tensor.name, "/input/0") ? 1 : 0;
  }
  EXPECT_GT(num_again, 0);
}

}  // namespace
}  // namespace deltapipe
