// Peaks of stages whose policy has a budget (compression.saved_activations:
// auto).
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr int64_t kSamples = 4;
constexpr double kBytesPerMiB = 1 << 20;

v1::JobSpec Spec(const std::string& policy, const std::string& kind) {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(kind == "resnet" ? 16 : 64);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(32);
  spec.mutable_model()->set_norm("batch");
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_activations(policy);
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

/// Forward passes of `in_flight` micro-batches of a whole model, then their
/// backward passes.
void RunStep(Stage* stage, const v1::JobSpec& spec, int in_flight,
             int64_t step) {
  const SampleInput sample(spec.model(), kSamples);
  StageInput input = sample.input();
  input.step = step;
  for (int mb = 0; mb < in_flight; ++mb) {
    input.microbatch = mb;
    StageOutput output;
    const absl::Status status = stage->Forward(input, &output);
    ASSERT_TRUE(status.ok()) << status;
  }
  for (int mb = 0; mb < in_flight; ++mb) {
    const auto result = stage->Backward(mb, TensorRef());
    ASSERT_TRUE(result.ok()) << result.status();
  }
  const absl::Status status = stage->WeightsChanged();
  ASSERT_TRUE(status.ok()) << status;
}

/// Of the second step, the one after the first plan.
SavedBytes BytesAsPlanned(const v1::JobSpec& spec, int in_flight) {
  const int layers = spec.model().layers();
  const auto stage = MakeTorchStage(spec, 0, layers, "cpu").value();
  SavedActivations* const saved = stage->saved_activations();
  saved->SetInFlight(in_flight);
  RunStep(stage.get(), spec, in_flight, 0);
  saved->TakeBytes();
  RunStep(stage.get(), spec, in_flight, 1);
  EXPECT_EQ(saved->live_bytes(), 0);
  return saved->TakeBytes();
}

// What a layer saves when it is computed again is part of the budget.
TEST(SavedBudgetTest, HasRoomForTheLayerThatIsComputedAgain) {
  for (const char* kind : {"gpt", "mlp", "image_mlp", "resnet"}) {
    const auto raw = static_cast<double>(
        BytesAsPlanned(Spec("fixed(none)", kind), 1).live_peak);
    int num_recomputed = 0;
    for (const int in_flight : {1, 2, 4}) {
      for (const double share : {0.35, 0.5, 0.7}) {
        const double budget = raw * share * in_flight / kBytesPerMiB;
        const std::string policy =
            absl::StrCat("auto(", budget, ",slowdown=0.33)");
        SCOPED_TRACE(absl::StrCat(kind, ", ", in_flight, ", ", policy));

        const SavedBytes bytes = BytesAsPlanned(Spec(policy, kind), in_flight);

        const auto peak = static_cast<double>(bytes.live_peak - bytes.metadata);
        EXPECT_LE(peak, budget * kBytesPerMiB);
        num_recomputed += bytes.recomputed_peak > 0 ? 1 : 0;
        RecordProperty(absl::StrCat(kind, "_", in_flight, "_", share),
                       absl::StrCat(peak / budget / kBytesPerMiB, " ",
                                    bytes.recomputed_peak / raw));
      }
    }
    // A layer of the image MLP saves little beside its input.
    EXPECT_GT(num_recomputed, kind == std::string("image_mlp") ? -1 : 3)
        << kind;
  }
}

}  // namespace
}  // namespace deltapipe
