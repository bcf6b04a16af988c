#include "base/layer_partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(LayerPartitionTest, WordsAndLayers) {
  EXPECT_EQ(ParseLayerPartition("")->kind, LayerPartition::Kind::kMeasured);
  EXPECT_EQ(ParseLayerPartition("auto")->kind, LayerPartition::Kind::kMeasured);
  EXPECT_EQ(ParseLayerPartition("even")->kind, LayerPartition::Kind::kEven);
  EXPECT_THAT(ParseLayerPartition("even")->layers, IsEmpty());

  const auto given = ParseLayerPartition("3, 1,2");
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->kind, LayerPartition::Kind::kGiven);
  EXPECT_THAT(given->layers, ElementsAre(3, 1, 2));
  EXPECT_THAT(ParseLayerPartition("4")->layers, ElementsAre(4));
}

TEST(LayerPartitionTest, WhatIsNoPartitionIsToldTheForms) {
  for (const char* text : {"odd", "3,", ",", "0,4", "-1,5", "2;2", "1.5,2.5",
                           "3,1,x", "99999999999,1", " "}) {
    const auto parsed = ParseLayerPartition(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status()));
    EXPECT_THAT(std::string(parsed.status().message()),
                HasSubstr("expected auto, even or the layers of each stage, at "
                          "least 1 each, such as \"3,1\"; got '"));
  }
}

}  // namespace
}  // namespace deltapipe
