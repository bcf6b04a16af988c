#include "worker/stage/compare_saved.h"

#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

v1::JobSpec Spec(const std::string& kind, int width, int context,
                 int microbatch) {
  v1::JobSpec spec;
  spec.set_seed(17);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(3);
  spec.mutable_model()->set_width(width);
  spec.mutable_model()->set_heads(1);
  spec.mutable_model()->set_context(context);
  spec.mutable_model()->set_norm("batch");
  spec.mutable_train()->set_microbatch(microbatch);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

/// Kind, width, context and micro-batch of a model.
using Small = std::tuple<std::string, int, int, int>;

class SmallModelTest : public ::testing::TestWithParam<Small> {};

// Where tensors have a few bytes each, what keeps track of them must not weigh
// more than what packing spares.
TEST_P(SmallModelTest, NoPolicyKeepsMoreThanNone) {
  const auto& [kind, width, context, microbatch] = GetParam();
  SavedComparisonOptions options;
  options.repeats = 1;
  options.policies = {
      "fixed(none)",
      "fixed(int(4,block=256,round=stochastic,levels=affine,scale=bf16))",
      "fixed(cast(bf16))",
      "actnn(bits=2)",
      "gact(bits=4,every=2)",
      "comet(target=0.01)",
      "division(high=4)",
      "mesa(bits=8)",
      "recompute(every=1)",
      "recompute(every=2,codec=int(8))",
      "auto(0.5)",
      "auto(4,slowdown=0.17)",
      "lean(none)",
      "lean(fixed(int(2)))"};

  const auto rows =
      CompareSaved(Spec(kind, width, context, microbatch), options);

  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), options.policies.size() + 1);
  for (const SavedComparison& row : *rows) {
    EXPECT_LE(row.kept_ratio, 1.0) << row.policy;
    EXPECT_GE(row.kept_ratio, 0.0) << row.policy;
  }
}

// A second row of it would keep nothing and hold any batch: without a policy
// nothing is counted.
TEST(CompareSavedTest, NoneIsTheFirstRowOnlyAlsoWhenNamed) {
  SavedComparisonOptions options;
  options.repeats = 1;
  options.policies = {"none", "fixed(cast(bf16))", "none"};

  const auto rows = CompareSaved(Spec("mlp", 4, 4, 1), options);

  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].policy, "none");
  EXPECT_EQ((*rows)[0].kept_ratio, 1.0);
  EXPECT_EQ((*rows)[1].policy, "fixed(cast(bf16))");
}

INSTANTIATE_TEST_SUITE_P(
    Models, SmallModelTest,
    ::testing::Values(Small{"mlp", 4, 4, 1}, Small{"mlp", 16, 5, 3},
                      Small{"mlp", 33, 7, 5}, Small{"gpt", 4, 4, 1},
                      Small{"gpt", 17, 9, 3}, Small{"image_mlp", 5, 1, 1},
                      Small{"resnet", 4, 1, 1}),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param),
                          "_", std::get<2>(info.param), "_",
                          std::get<3>(info.param));
    });

}  // namespace
}  // namespace deltapipe
