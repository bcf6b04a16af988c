// The counts are those that `deltapipe-worker --profile` printed for the same
// models.
#include "coordinator/launch/estimate_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

v1::JobSpec Spec(const std::string& kind, int width, int context,
                 int microbatch) {
  v1::JobSpec spec;
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(width);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(context);
  spec.mutable_train()->set_microbatch(microbatch);
  return spec;
}

std::vector<int64_t> Parameters(const v1::StageProfile& profile) {
  std::vector<int64_t> parameters;
  for (const auto& layer : profile.layers()) {
    parameters.push_back(layer.parameters());
  }
  return parameters;
}

TEST(EstimateProfileTest, CountsOfAGptAreTheWorkers) {
  const v1::StageProfile profile = EstimateProfile(Spec("gpt", 128, 128, 4));

  EXPECT_THAT(Parameters(profile), ElementsAre(247424, 198272, 198272, 231296));
  EXPECT_EQ(profile.layers(1).output_elements(), 16384);
  EXPECT_EQ(profile.layers(1).saved_bytes(), 4472832);
  EXPECT_EQ(profile.layers(3).name(), "gpt.3");
}

TEST(EstimateProfileTest, CountsOfATiedGptAreTheWorkers) {
  v1::JobSpec spec = Spec("gpt", 128, 128, 4);
  spec.mutable_model()->set_tied("on");
  const v1::StageProfile profile = EstimateProfile(spec);
  spec.mutable_model()->set_layers(1);
  const v1::StageProfile alone = EstimateProfile(spec);

  // Each end has the matrix; one layer alone has it once.
  EXPECT_THAT(Parameters(profile), ElementsAre(247424, 198272, 198272, 231296));
  EXPECT_EQ(profile.layers(0).tied_parameters(), 32768);
  EXPECT_EQ(profile.layers(1).tied_parameters(), 0);
  EXPECT_EQ(profile.layers(3).tied_parameters(), 32768);
  EXPECT_THAT(Parameters(alone), ElementsAre(247680));
  EXPECT_EQ(alone.layers(0).tied_parameters(), 0);
}

TEST(EstimateProfileTest, CountsOfAPerceptronAreTheWorkers) {
  const v1::StageProfile profile = EstimateProfile(Spec("mlp", 64, 32, 8));

  EXPECT_THAT(Parameters(profile), ElementsAre(41152, 24768, 24768, 41408));
  EXPECT_EQ(profile.layers(1).output_elements(), 2048);
  EXPECT_EQ(profile.layers(1).saved_bytes(), 458752);
}

// (1 * 9 + 2) * 8 of the stem, 9 * (8 * 8 + 8 * 8) + 4 * 8 of a block, 10 * 33
// of the head.
TEST(EstimateProfileTest, CountsOfAResidualNetAreTheWorkers) {
  v1::JobSpec spec = Spec("resnet", 8, 0, 4);
  const v1::StageProfile batch = EstimateProfile(spec);
  spec.mutable_model()->set_norm("fixup");
  const v1::StageProfile fixup = EstimateProfile(spec);

  EXPECT_THAT(Parameters(batch), ElementsAre(1272, 1184, 3520, 14282));
  EXPECT_THAT(Parameters(fixup), ElementsAre(1230, 1157, 3461, 14160));
  EXPECT_EQ(batch.layers(1).output_elements(), 8 * 784);
  EXPECT_EQ(batch.layers(2).output_elements(), 16 * 196);
  EXPECT_EQ(batch.layers(3).output_elements(), 32 * 49);
  EXPECT_EQ(batch.layers(2).saved_bytes(), 4 * 4 * 4 * 16 * 196);
  EXPECT_EQ(fixup.layers(2).saved_bytes(), 4 * 4 * (8 * 784 + 4 * 16 * 196));
}

TEST(EstimateProfileTest, CountsOfAPerceptronOverImagesAreTheWorkers) {
  const v1::StageProfile profile = EstimateProfile(Spec("image_mlp", 64, 0, 8));

  EXPECT_THAT(Parameters(profile), ElementsAre(50240, 4160, 4160, 4810));
  EXPECT_EQ(profile.layers(1).output_elements(), 64);
}

TEST(EstimateProfileTest, InnerLayersCostTheSameAndTheHeadMore) {
  const v1::StageProfile profile = EstimateProfile(Spec("gpt", 128, 128, 4));

  const double inner = profile.layers(1).forward_seconds();
  EXPECT_GT(inner, 0);
  EXPECT_EQ(profile.layers(2).forward_seconds(), inner);
  EXPECT_GT(profile.layers(3).forward_seconds(), inner);
  EXPECT_EQ(profile.layers(1).backward_seconds(), 2 * inner);
}

TEST(EstimateProfileTest, ThreadsAndGpusTakeLess) {
  v1::JobSpec spec = Spec("gpt", 128, 128, 4);
  const double one = EstimateProfile(spec).layers(1).forward_seconds();

  spec.mutable_parallel()->set_threads(4);
  const double four = EstimateProfile(spec).layers(1).forward_seconds();
  spec.mutable_parallel()->set_device("cuda");
  const v1::StageProfile gpu = EstimateProfile(spec);

  EXPECT_DOUBLE_EQ(four, one / 4);
  EXPECT_DOUBLE_EQ(gpu.layers(1).forward_seconds(),
                   one * kAssumedCoreRate / kAssumedGpuRate);
  EXPECT_EQ(gpu.device(), "cuda");
}

TEST(EstimateProfileTest, SyntheticModelKeepsItsOwnCosts) {
  EXPECT_EQ(EstimateProfile(Spec("synthetic", 8, 8, 1)).layers_size(), 0);
}

}  // namespace
}  // namespace deltapipe
