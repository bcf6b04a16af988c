#include "worker/optim/parameter_groups.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ParameterLayout Named(const std::vector<std::string>& names) {
  ParameterLayout layout;
  for (const std::string& name : names) {
    ParameterSegment segment;
    segment.name = name;
    segment.shape = {4};
    segment.offset = layout.num_elements;
    segment.num_elements = 4;
    layout.num_elements += 4;
    layout.segments.push_back(segment);
  }
  return layout;
}

TEST(ParameterGroupsTest, TheFirstGroupThatMatchesCounts) {
  ParameterLayout layout = Named({"a.bias", "a.weight", "b.bias"});

  const auto use =
      AssignParameterGroups({{"a.*", 0.5, {}}, {"*.bias", 2.0, 0.1}}, &layout);

  EXPECT_EQ(layout.segments[0].learning_rate_scale, 0.5);
  EXPECT_FALSE(layout.segments[0].weight_decay.has_value());
  EXPECT_EQ(layout.segments[1].learning_rate_scale, 0.5);
  EXPECT_EQ(layout.segments[2].learning_rate_scale, 2.0);
  EXPECT_EQ(layout.segments[2].weight_decay, 0.1);
  EXPECT_TRUE(use[0].counts && use[1].counts);
}

TEST(ParameterGroupsTest, AGroupWithoutParametersIsNamedWithThoseThereAre) {
  const std::vector<ParameterGroup> groups = {{"a.*", 1, {}},
                                              {"*.gain", 1, {}}};
  ParameterLayout layout = Named({"a.bias", "a.weight"});

  const auto use = AssignParameterGroups(groups, &layout);
  const absl::Status status = CheckGroupsAreUsed(groups, use, layout);

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("groups[1]: '*.gain'"),
                    HasSubstr("has parameters such as a.bias, a.weight")));
}

TEST(ParameterGroupsTest, AGroupBehindOneThatTakesAllOfItIsRefused) {
  const std::vector<ParameterGroup> groups = {{"*", 1, {}}, {"*.bias", 1, {}}};
  ParameterLayout layout = Named({"a.bias", "a.weight"});

  const auto use = AssignParameterGroups(groups, &layout);
  const absl::Status status = CheckGroupsAreUsed(groups, use, layout);

  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("groups[1]: '*.bias'"), HasSubstr("earlier")));
}

TEST(ParameterGroupsTest, AnErrorNamesFortyParametersAtMost) {
  std::vector<std::string> names;
  for (int i = 100; i < 150; ++i) names.push_back("p" + std::to_string(i));
  ParameterLayout layout = Named(names);
  const std::vector<ParameterGroup> groups = {{"q", 1, {}}};

  const auto use = AssignParameterGroups(groups, &layout);
  const absl::Status status = CheckGroupsAreUsed(groups, use, layout);

  EXPECT_THAT(status.message(), HasSubstr("p139 and 10 more"));
}

}  // namespace
}  // namespace deltapipe
