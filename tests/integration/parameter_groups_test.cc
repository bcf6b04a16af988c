// Parameter groups in the engine as a whole: however a model is cut, the same
// parameters belong to them, and a group of none is an error of all workers.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ParameterGroupsJobTest, EveryPartitionLearnsTheSame) {
  for (const char* kind : {"sgd", "adamw", "lamb"}) {
    const std::vector<std::string> overrides = {
        absl::StrCat("train.optimizer.kind=", kind),
        "train.optimizer.groups=[{match: 'layers.0.*', learning_rate_scale: 0},"
        " {match: '*.gain', weight_decay: 0.5, learning_rate_scale: 0.5},"
        " {match: 'layers.3.shift', learning_rate_scale: 2}]"};
    const std::vector<std::string> without = {overrides[0]};

    Job job(1, 1, overrides);
    const RunResult whole = job.Run();
    const RunResult split = Job(2, 2, overrides).Run();
    const RunResult plain = Job(1, 1, without).Run();

    ExpectSuccess(whole);
    ExpectSuccess(split);
    EXPECT_NE(whole.losses.back(), plain.losses.back());
    for (int64_t step = 0; step < 20; ++step) {
      EXPECT_NEAR(split.Mean(step), whole.Mean(step), 1e-5 * whole.Mean(step))
          << kind << ", step " << step;
    }
    // layers.0 comes first and is frozen.
    ElementwiseStage fresh(job.assignment().spec(), 0, 4);
    const std::vector<float>& weights = whole.weights.at(0);
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_EQ(weights[i] == fresh.weights()[i], i < 16) << kind << " " << i;
    }
  }
}

TEST(ParameterGroupsJobTest, AGroupMayCountOnAnyStage) {
  ExpectSuccess(Job(4, 1,
                    {"train.optimizer.groups=[{match: 'layers.3.*', "
                     "learning_rate_scale: 2}]"})
                    .Run());
}

TEST(ParameterGroupsJobTest, AGroupOfNoParameterFailsEveryWorkerAtTheStart) {
  const RunResult result =
      Job(2, 2,
          {"train.optimizer.groups=[{match: 'layers.0.*'}, {match: "
           "'*.bias'}]"})
          .Run();

  EXPECT_EQ(result.done.size(), 4);
  for (const auto& [rank, done] : result.done) {
    EXPECT_EQ(done.error_code(),
              static_cast<int>(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(done.error_message(),
                AllOf(HasSubstr("train.optimizer.groups[1]: '*.bias' matches "
                                "no parameter of the model"),
                      HasSubstr(rank < 2 ? "layers.0.gain" : "layers.2.gain")))
        << "rank " << rank;
  }
  EXPECT_TRUE(result.reports.empty());
}

}  // namespace
}  // namespace deltapipe
