// Stages that pack what waits for their backward passes
// (compression.saved_activations).
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compression/bit_plan/saved_policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/explain_saved.h"
#include "worker/stage/stage.h"
#include "worker/stage/testing/stage_pipeline.h"

namespace deltapipe {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kSamples = 4;

v1::JobSpec Spec(const std::string& policy, const std::string& kind = "gpt") {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(64);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(32);
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_activations(policy);
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

/// Gradients of one micro-batch, and its loss.
struct Outcome {
  double loss = 0;
  std::vector<float> gradients;
};

Outcome RunOne(const v1::JobSpec& spec, int num_stages) {
  StagePipeline pipeline(spec, num_stages, "cpu", kSamples);
  Outcome outcome;
  outcome.loss = pipeline.Run(7);
  outcome.gradients = pipeline.Gradients();
  for (size_t i = 0; i < pipeline.size(); ++i) {
    EXPECT_EQ(pipeline.stage(i).saved_activations()->live_bytes(), 0);
  }
  return outcome;
}

class SavedStageTest : public ::testing::TestWithParam<std::string> {};

TEST_P(SavedStageTest, LossIsThatWithoutAndGradientsAreNear) {
  for (const int stages : {1, 2}) {
    SCOPED_TRACE(stages);
    const Outcome plain = RunOne(Spec("none"), stages);

    const Outcome packed = RunOne(Spec(GetParam()), stages);

    EXPECT_EQ(packed.loss, plain.loss);
    EXPECT_LT(RelativeDifference(packed.gradients, plain.gradients), 0.3);
  }
}

TEST_P(SavedStageTest, SameSeedGivesTheSameRun) {
  const auto run = [&] {
    v1::JobSpec spec = Spec(GetParam());
    spec.mutable_compression()->set_saved_probe_every(2);
    StagePipeline pipeline(spec, 2, "cpu", kSamples);
    std::vector<float> all;
    for (int64_t step = 0; step < 3; ++step) {
      for (int64_t offset : {3, 9}) pipeline.Run(offset, 1, 1, step);
      const std::vector<float> gradients = pipeline.Gradients();
      all.insert(all.end(), gradients.begin(), gradients.end());
      pipeline.Forget();
    }
    return all;
  };

  EXPECT_EQ(run(), run());
}

TEST_P(SavedStageTest, ProbesLeaveGradientsAsTheyAre) {
  v1::JobSpec spec = Spec(GetParam());
  const Outcome without = RunOne(spec, 2);
  spec.mutable_compression()->set_saved_probe_every(1);
  spec.mutable_compression()->set_saved_error_limit(1000);

  const Outcome with = RunOne(spec, 2);

  EXPECT_EQ(with.gradients, without.gradients);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, SavedStageTest,
    ::testing::Values("fixed(int(8))", "fixed(int(4,round=stochastic))",
                      "actnn(bits=4)", "gact(bits=4,every=2)",
                      "comet(target=0.01)", "mesa(bits=8)", "division(high=4)",
                      "recompute(every=1)", "recompute(every=2,codec=int(8))",
                      "lean(none)", "lean(fixed(int(4,round=stochastic)))",
                      "lean(actnn(bits=4))", "lean(gact(bits=4,every=2))",
                      "lean(recompute(every=2,codec=int(8)))"),
    [](const auto& info) {
      std::string name = info.param;
      for (char& c : name) {
        if (!isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

TEST(SavedStage, RecomputingHasTheSameGradients) {
  for (const char* kind : {"gpt", "mlp"}) {
    const Outcome plain = RunOne(Spec("none", kind), 2);

    const Outcome recomputed = RunOne(Spec("recompute(every=1)", kind), 2);

    EXPECT_EQ(recomputed.gradients, plain.gradients) << kind;
  }
}

TEST(SavedStage, LeanKeepsDerivativesAndNoInputsOfNorms) {
  auto plain = ExplainSaved(Spec("fixed(int(4))"), 0, 4, "cpu");
  auto lean = ExplainSaved(Spec("lean(fixed(int(4)))"), 0, 4, "cpu");
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(lean.ok()) << lean.status();

  int derivatives = 0;
  int64_t lean_bytes = 0;
  int64_t plain_bytes = 0;
  for (const SavedTensorReport& tensor : lean->tensors) {
    lean_bytes += tensor.stored_bytes;
    if (absl::StrContains(tensor.reason, "derivative, int(2,")) {
      ++derivatives;
      EXPECT_LT(tensor.stored_bytes, tensor.raw_bytes / 14) << tensor.name;
    }
  }
  for (const SavedTensorReport& tensor : plain->tensors) {
    plain_bytes += tensor.stored_bytes;
  }
  EXPECT_EQ(derivatives, 4);
  // Not the inputs and the means of two norms a layer and of that of the head,
  // whose result is listed twice: the head wants it as it is.
  EXPECT_EQ(lean->tensors.size(), plain->tensors.size() - 2 * (2 * 4 + 1) + 1);
  EXPECT_LT(lean_bytes, plain_bytes * 0.9);
}

TEST(SavedStage, LeanOfNothingIsExactButForTheDerivative) {
  const Outcome plain = RunOne(Spec("none"), 2);

  const double at_two = RelativeDifference(
      RunOne(Spec("lean(none)"), 2).gradients, plain.gradients);
  const double at_eight = RelativeDifference(
      RunOne(Spec("lean(none,derivative=8)"), 2).gradients, plain.gradients);

  EXPECT_LT(at_eight, 0.003);
  EXPECT_GT(at_two, 10 * at_eight);
  EXPECT_LT(at_two, 0.3);
}

TEST(SavedStage, ProbesSeeDerivativesAndRaiseThem) {
  v1::JobSpec spec = Spec("lean(none,derivative=1)");
  spec.mutable_compression()->set_saved_probe_every(1);
  spec.mutable_compression()->set_saved_error_limit(0.001);
  StagePipeline pipeline(spec, 1, "cpu", kSamples);
  SavedActivations* const saved = pipeline.stage(0).saved_activations();
  pipeline.Run(7, 1, 1, 0);

  const SavedFindings findings = saved->TakeFindings();

  ASSERT_EQ(findings.errors.size(), 1u);
  EXPECT_EQ(findings.errors[0].op, "add");  // a matrix product and its bias
  EXPECT_GT(findings.errors[0].relative_error, 0.001);
  EXPECT_THAT(findings.changes,
              Contains(HasSubstr("add: from derivatives of 1 bit to those of "
                                 "2 bits")));
  pipeline.Run(7, 1, 1, 1);
  bool has_finer = false;
  for (const SavedTensorReport& report : saved->LastForward()) {
    has_finer |= absl::StrContains(report.reason, "derivative, int(2,");
  }
  EXPECT_TRUE(has_finer);
}

TEST(SavedStage, PacksAlsoWhereLayersComputeIn16Bits) {
  for (const char* precision : {"bf16", "fp16"}) {
    v1::JobSpec plain = Spec("none");
    plain.mutable_train()->set_precision(precision);
    v1::JobSpec packed = Spec("fixed(int(8))");
    packed.mutable_train()->set_precision(precision);

    const Outcome expected = RunOne(plain, 2);
    const Outcome outcome = RunOne(packed, 2);

    EXPECT_EQ(outcome.loss, expected.loss) << precision;
    EXPECT_LT(RelativeDifference(outcome.gradients, expected.gradients), 0.1)
        << precision;
  }
}

TEST(SavedStage, ProbeNamesOperatorsAndKeepsFinerWhatIsTooCoarse) {
  v1::JobSpec spec = Spec("fixed(int(1))");
  spec.mutable_compression()->set_saved_probe_every(5);
  spec.mutable_compression()->set_saved_error_limit(0.05);
  StagePipeline pipeline(spec, 1, "cpu", kSamples);
  SavedActivations* const saved = pipeline.stage(0).saved_activations();

  pipeline.Run(7, 1, 1, 0);
  const SavedFindings first = saved->TakeFindings();
  pipeline.Forget();
  pipeline.Run(7, 1, 1, 1);
  const SavedFindings between = saved->TakeFindings();
  pipeline.Forget();

  std::vector<std::string> ops;
  for (const auto& error : first.errors) {
    ops.push_back(error.op);
    EXPECT_GT(error.relative_error, 0) << error.op;
  }
  EXPECT_THAT(ops, Contains("gelu"));
  EXPECT_THAT(ops, Contains("native_layer_norm"));
  EXPECT_THAT(first.changes,
              Contains(HasSubstr("more than compression.saved_error_limit")));
  EXPECT_TRUE(between.errors.empty());
  // What was raised is kept at more than one bit in the next step.
  bool has_finer = false;
  std::string reasons;
  for (const SavedTensorReport& report : saved->LastForward()) {
    has_finer |= absl::EndsWith(report.reason, "raised to 2 bits");
    reasons += report.name + ": " + report.reason + "\n";
  }
  EXPECT_TRUE(has_finer) << reasons << first.changes[0];
}

TEST(SavedStage, StepThatIsNotFiniteKeepsEverythingFiner) {
  StagePipeline pipeline(Spec("fixed(int(2))"), 1, "cpu", kSamples);
  SavedActivations* const saved = pipeline.stage(0).saved_activations();
  pipeline.Run(7, 1, 1, 0);

  saved->NoteNotFinite(0);

  EXPECT_THAT(saved->TakeFindings().changes,
              Contains(HasSubstr("was not finite")));
  pipeline.Run(7, 1, 1, 1);
  for (const SavedTensorReport& report : saved->LastForward()) {
    EXPECT_THAT(report.reason, Not(HasSubstr("int(2"))) << report.name;
  }
}

TEST(SavedStage, PolicyChangesBetweenStepsAndBadOnesAreRefused) {
  StagePipeline pipeline(Spec("none"), 1, "cpu", kSamples);
  SavedActivations* const saved = pipeline.stage(0).saved_activations();
  pipeline.Run(7);
  EXPECT_EQ(saved->TakeBytes().num_tensors, 0);

  ASSERT_TRUE(saved->SetPolicy("fixed(int(4))").ok());
  pipeline.Run(7);
  const SavedBytes packed = saved->TakeBytes();
  EXPECT_GT(packed.num_tensors, 0);
  EXPECT_LT(packed.packed + packed.passed, packed.unique / 2);

  EXPECT_EQ(saved->SetPolicy("fixd(int(4))").code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status offload = saved->CheckPolicy("offload(int(4))");
  EXPECT_EQ(offload.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(offload.message()), HasSubstr("a cpu worker"));
  ASSERT_TRUE(saved->SetPolicy("none").ok());
  pipeline.Run(7);
  EXPECT_EQ(saved->TakeBytes().num_tensors, 0);
}

TEST(SavedStage, StateOfPolicyAndCodecsGoesOn) {
  for (const char* policy : {"mesa(bits=8)", "actnn(bits=2)"}) {
    SCOPED_TRACE(policy);
    StagePipeline first(Spec(policy), 1, "cpu", kSamples);
    first.Run(3, 1, 1, 0);
    first.Forget();
    const std::string state = first.stage(0).saved_activations()->Save();
    first.Run(9, 1, 1, 1);

    StagePipeline second(Spec(policy), 1, "cpu", kSamples);
    ASSERT_TRUE(second.stage(0).saved_activations()->Restore(state).ok());
    second.Run(9, 1, 1, 1);

    EXPECT_EQ(second.Gradients(), first.Gradients());
    EXPECT_EQ(second.stage(0)
                      .saved_activations()
                      ->Restore(state.substr(0, state.size() / 2))
                      .code() == absl::StatusCode::kOk,
              false);
  }
}

// What these do to a training run: docs/saved_activations.md.
TEST(SavedStage, TheHeadIsNeverPackedAndExponentsKeepEightBits) {
  auto explained = ExplainSaved(Spec("fixed(int(4))"), 0, 4, "cpu");
  ASSERT_TRUE(explained.ok()) << explained.status();

  int heads = 0;
  int exponents = 0;
  for (const SavedTensorReport& tensor : explained->tensors) {
    if (tensor.tensor_class == "head") {
      ++heads;
      EXPECT_EQ(tensor.stored_bytes, tensor.raw_bytes) << tensor.name;
    }
    if (absl::StrContains(tensor.reason, "of an attention: 8 bits")) {
      ++exponents;
      EXPECT_THAT(tensor.reason, HasSubstr("int(8")) << tensor.name;
    } else if (tensor.tensor_class == "activation") {
      EXPECT_LT(tensor.stored_bytes, tensor.raw_bytes / 5) << tensor.name;
    }
    EXPECT_NE(tensor.tensor_class, "weight") << tensor.name;
  }
  EXPECT_EQ(heads, 2);          // the last matrix' input and log-softmax
  EXPECT_EQ(exponents, 2 * 4);  // queries and keys
}

TEST(SavedStage, ExplanationListsTheLargestTensorsAndErrors) {
  auto explained = ExplainSaved(Spec("fixed(int(4))"), 2, 4, "cpu");
  ASSERT_TRUE(explained.ok()) << explained.status();

  const std::string text = ExplanationText(*explained, 5);

  EXPECT_THAT(text, HasSubstr("Layers 2 to 3, fixed(int(4)), one micro-batch"));
  EXPECT_THAT(text, HasSubstr("blocks.2/gelu/0"));
  EXPECT_THAT(text, HasSubstr("4x32x256"));
  EXPECT_THAT(text, HasSubstr("How far the stage's gradient moves"));
  EXPECT_THAT(ExplanationJson(*explained),
              HasSubstr("\"schema\":\"deltapipe.lab.SavedSums\""));
}

}  // namespace
}  // namespace deltapipe
