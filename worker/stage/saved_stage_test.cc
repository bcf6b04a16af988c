// Stages that pack what waits for their backward passes
// (compression.saved_activations).
#include <cmath>
#include <memory>
#include <set>
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

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

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
                      "lean(recompute(every=2,codec=int(8)))", "lean(auto(1))"),
    [](const auto& info) {
      std::string name = info.param;
      for (char& c : name) {
        if (!isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

bool IsInput(const SavedTensorReport& report) {
  return report.op == "input" && report.tensor_class == "activation";
}

/// The second half of a model, given an input that somebody may hold.
struct SecondHalf {
  explicit SecondHalf(const std::string& policy)
      : stage(MakeTorchStage(Spec(policy), 2, 4, "cpu").value()),
        values(static_cast<size_t>(kSamples * stage->input_elements())) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(0.37f * static_cast<float>(i * i % 1009));
    }
  }

  /// The gradient of the input.
  std::vector<float> Run(bool is_held) {
    const std::vector<uint8_t> targets = SomeText(kSamples * 32, 1);
    const std::vector<uint64_t> keys(kSamples, 3);
    auto memory = std::make_shared<std::vector<float>>(values);
    StageInput input;
    input.num_samples = kSamples;
    input.sample_keys = keys;
    input.targets = targets;
    input.activation = {*memory, memory, nullptr};
    if (is_held) {
      input.activation.read_again = [this](absl::Span<float> again) {
        ++num_reads;
        std::copy(values.begin(), values.end(), again.begin());
        return absl::OkStatus();
      };
    }
    StageOutput output;
    EXPECT_TRUE(stage->Forward(input, &output).ok());
    input.activation = {};
    is_released = memory.use_count() == 1;
    input_bytes = all_bytes = 0;
    for (const auto& report : stage->saved_activations()->LastForward()) {
      if (IsInput(report)) input_bytes += report.stored_bytes;
      all_bytes += report.stored_bytes;
    }
    const auto gradient = stage->Backward(0, {});
    EXPECT_TRUE(gradient.ok()) << gradient.status();
    return {gradient->values.begin(), gradient->values.end()};
  }

  const std::unique_ptr<Stage> stage;
  std::vector<float> values;
  int num_reads = 0;
  bool is_released = false;
  int64_t input_bytes = 0;
  int64_t all_bytes = 0;
};

// What the boundary's records hold anyway is not kept twice (AQ-SGD).
TEST(SavedStage, InputThatSomebodyHoldsTakesNoMemory) {
  SecondHalf half("fixed(int(2))");
  const std::vector<float> kept = half.Run(false);
  const int64_t input_bytes = half.input_bytes;
  const int64_t all_bytes = half.all_bytes;

  const std::vector<float> held = half.Run(true);

  EXPECT_GT(input_bytes, 0);
  EXPECT_EQ(half.input_bytes, 0);
  EXPECT_EQ(half.all_bytes, all_bytes - input_bytes);
  EXPECT_GE(half.num_reads, 1);
  EXPECT_TRUE(half.is_released);
  EXPECT_LT(RelativeDifference(held, kept), 1);
}

TEST(SavedStage, InputOfARecomputedGroupMayBeHeldBySomebody) {
  SecondHalf half("recompute(every=1)");
  const std::vector<float> kept = half.Run(false);
  EXPECT_FALSE(half.is_released);

  const std::vector<float> held = half.Run(true);

  EXPECT_TRUE(half.is_released);
  EXPECT_EQ(held, kept);
}

// auto(budget,slowdown): layers that are computed again are exact, the others
// have more room.
TEST(SavedStage, AutoComputesLayersAgainWithinItsBudgetAndTime) {
  const auto run = [](const std::string& policy, double* error,
                      int64_t* bytes) {
    const Outcome exact = RunOne(Spec("none"), 1);
    StagePipeline pipeline(Spec(policy), 1, "cpu", kSamples);
    // Step 0 measures, and step 1 has the plan.
    pipeline.Run(7);
    pipeline.Forget();
    SavedActivations* const saved = pipeline.stage(0).saved_activations();
    saved->TakeBytes();
    pipeline.Run(7, 1, 1, 1);
    const SavedBytes taken = saved->TakeBytes();
    *bytes = taken.packed + taken.passed;
    *error = RelativeDifference(pipeline.Gradients(), exact.gradients);
    EXPECT_EQ(saved->live_bytes(), 0);
    int num_inputs = 0;
    for (const SavedTensorReport& report : saved->LastForward()) {
      if (IsInput(report))
        num_inputs += report.stored_bytes == report.raw_bytes;
    }
    return num_inputs;
  };
  double packed_error = 0;
  double recomputed_error = 0;
  int64_t packed_bytes = 0;
  int64_t recomputed_bytes = 0;

  const int packed = run("auto(0.9)", &packed_error, &packed_bytes);
  const int recomputed =
      run("auto(0.9,slowdown=0.17)", &recomputed_error, &recomputed_bytes);

  EXPECT_EQ(packed, 0);
  EXPECT_EQ(recomputed, 2);  // half of four layers
  EXPECT_LE(packed_bytes, 0.9 * (1 << 20));
  EXPECT_LE(recomputed_bytes, 0.9 * (1 << 20));
  EXPECT_LT(recomputed_error, packed_error);
}

// Of GELU's input and its derivative the one that spares more variance.
TEST(SavedStage, AutoTakesWhatOperatorsCanDoWith) {
  StagePipeline pipeline(Spec("auto(0.45)"), 1, "cpu", kSamples);
  pipeline.Run(7);
  pipeline.Forget();
  SavedActivations* const saved = pipeline.stage(0).saved_activations();
  saved->TakeBytes();

  pipeline.Run(7, 1, 1, 1);

  const SavedBytes bytes = saved->TakeBytes();
  EXPECT_LE(bytes.packed + bytes.passed, 0.45 * (1 << 20));
  int num_derivatives = 0;
  for (const SavedTensorReport& report : saved->LastForward()) {
    if (absl::StartsWith(report.reason, "derivative")) ++num_derivatives;
  }
  EXPECT_EQ(num_derivatives, 4);
  const Outcome exact = RunOne(Spec("none"), 1);
  EXPECT_LT(RelativeDifference(pipeline.Gradients(), exact.gradients), 0.3);
}

// auto(budget): the first stage of a 1F1B pipeline holds four micro-batches
// where the last one holds one, and packs them so much more.
TEST(SavedStage, PeaksOfEqualStagesAreLevelWhateverIsInFlight) {
  constexpr int kStages = 4;
  constexpr double kBudgetMiB = 0.5;
  const v1::JobSpec spec = Spec(absl::StrCat("auto(", kBudgetMiB, ")"), "gpt");
  double least = 1e18;
  double most = 0;
  for (int s = 0; s < kStages; ++s) {
    auto stage = MakeTorchStage(spec, s, s + 1, "cpu").value();
    SavedActivations* const saved = stage->saved_activations();
    const int in_flight = kStages - s;
    saved->SetInFlight(in_flight);
    const std::vector<uint8_t> text = SomeText(kSamples * 32, 1);
    const std::vector<uint64_t> keys(kSamples, 3);
    auto values = std::make_shared<std::vector<float>>(
        static_cast<size_t>(kSamples * stage->output_elements()));
    for (size_t i = 0; i < values->size(); ++i) {
      (*values)[i] = std::sin(0.37f * static_cast<float>(i * i % 1009));
    }
    const TensorRef tensor{*values, values};
    const auto run = [&](int64_t step) {
      for (int mb = 0; mb < in_flight; ++mb) {
        StageInput input;
        input.step = step;
        input.microbatch = mb;
        input.num_samples = kSamples;
        input.sample_keys = keys;
        input.tokens = text;
        input.targets = text;
        if (s > 0) input.activation = tensor;
        StageOutput output;
        const absl::Status status = stage->Forward(input, &output);
        ASSERT_TRUE(status.ok()) << status;
      }
      for (int mb = 0; mb < in_flight; ++mb) {
        const auto result =
            stage->Backward(mb, s + 1 == kStages ? TensorRef() : tensor);
        ASSERT_TRUE(result.ok()) << result.status();
      }
      const absl::Status status = stage->WeightsChanged();
      ASSERT_TRUE(status.ok()) << status;
    };
    run(0);  // measures
    saved->TakeBytes();
    run(1);
    const SavedBytes bytes = saved->TakeBytes();
    const auto peak = static_cast<double>(bytes.live_peak);
    SCOPED_TRACE(absl::StrCat("stage ", s, ": ", peak, " bytes at most"));
    RecordProperty(absl::StrCat("peak_", s), absl::StrCat(peak));
    EXPECT_EQ(saved->live_bytes(), 0);
    EXPECT_LE(peak - static_cast<double>(bytes.metadata),
              kBudgetMiB * (1 << 20));
    least = std::min(least, peak);
    most = std::max(most, peak);
  }

  EXPECT_LE(most / least, 1.15);
}

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
  std::set<std::string> probed;
  for (const SavedTensorReport& report : saved->LastForward()) {
    if (absl::StartsWith(report.reason, "int(")) probed.insert(report.op);
  }
  pipeline.Forget();
  pipeline.Run(7, 1, 1, 1);
  const SavedFindings between = saved->TakeFindings();
  pipeline.Forget();

  // The last probe packed the tensors of one operator, and no others.
  EXPECT_THAT(probed, SizeIs(1));
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
  EXPECT_EQ(saved->CheckPolicy("auto(4,offload=1)").code(),
            absl::StatusCode::kUnimplemented);
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

// As where the policy was changed after a checkpoint from which a job goes on.
TEST(SavedStage, StateOfAnotherPolicyIsLeftOutAndToldOf) {
  for (const bool has_decided : {true, false}) {
    SCOPED_TRACE(has_decided);
    StagePipeline first(Spec("actnn(bits=2)"), 1, "cpu", kSamples);
    if (has_decided) first.Run(3, 1, 1, 0);
    first.Forget();
    const std::string state = first.stage(0).saved_activations()->Save();
    StagePipeline fresh(Spec("mesa(bits=8)"), 1, "cpu", kSamples);
    StagePipeline second(Spec("mesa(bits=8)"), 1, "cpu", kSamples);
    SavedActivations* const saved = second.stage(0).saved_activations();

    const absl::Status status = saved->Restore(state);

    ASSERT_TRUE(status.ok()) << status;
    const std::vector<std::string> changes = saved->TakeFindings().changes;
    if (has_decided) {
      EXPECT_THAT(changes, ElementsAre(AllOf(HasSubstr("what actnn had"),
                                             HasSubstr("policy is mesa"))));
    } else {
      EXPECT_THAT(changes, IsEmpty());
    }
    fresh.Run(9, 1, 1, 1);
    second.Run(9, 1, 1, 1);
    EXPECT_EQ(second.Gradients(), fresh.Gradients());
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
  EXPECT_THAT(text, HasSubstr("blocks.2 gelu/0 "));
  EXPECT_THAT(text, HasSubstr("4x32x256"));
  EXPECT_THAT(text, HasSubstr("How far the stage's gradient moves"));
  EXPECT_THAT(ExplanationJson(*explained),
              HasSubstr("\"schema\":\"deltapipe.lab.SavedSums\""));
}

}  // namespace
}  // namespace deltapipe
