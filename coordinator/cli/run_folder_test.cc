#include "coordinator/cli/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/file.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
 protected:
  RunFolderTest() {
    const char* folder = std::getenv("TEST_TMPDIR");
    runs_ = std::string(folder != nullptr ? folder : "/tmp") + "/" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name() +
            std::to_string(getpid());
  }
  std::string runs_;
};

TEST_F(RunFolderTest, EachRunOfANameHasItsOwnFolder) {
  EXPECT_EQ(*CreateRunFolder(runs_, "text"), runs_ + "/text");
  EXPECT_EQ(*CreateRunFolder(runs_, "text"), runs_ + "/text-2");
  EXPECT_EQ(*CreateRunFolder(runs_, "text"), runs_ + "/text-3");
}

TEST_F(RunFolderTest, AFileInTheWayIsNamed) {
  ASSERT_TRUE(WriteFileAtomically(runs_, "in the way").ok());

  const auto folder = CreateRunFolder(runs_, "text");

  EXPECT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr(runs_));
}

TEST_F(RunFolderTest, FindsByNameAndByPathWhatHasAModel) {
  const std::string folder = *CreateRunFolder(runs_, "text");
  EXPECT_EQ(FindRunFolder(runs_, "text").status().code(),
            absl::StatusCode::kNotFound);

  ASSERT_TRUE(WriteFileAtomically(folder + "/model.safetensors", "x").ok());

  EXPECT_EQ(*FindRunFolder(runs_, "text"), folder);
  EXPECT_EQ(*FindRunFolder("elsewhere", folder), folder);
}

TEST_F(RunFolderTest, WhatAKilledWriterLeftIsRemovedAndTheModelIsNot) {
  const std::string folder = *CreateRunFolder(runs_, "text");
  const std::string model = folder + "/model.safetensors";
  ASSERT_TRUE(WriteFileAtomically(model, "x").ok());
  ASSERT_TRUE(WriteFileAtomically(model + ".tmp-12-0", "half").ok());

  RemoveModelTemporaries(folder);

  EXPECT_EQ(access((model + ".tmp-12-0").c_str(), F_OK), -1);
  EXPECT_EQ(access(model.c_str(), F_OK), 0);
}

TEST_F(RunFolderTest, AFolderThatIsNotUtf8IsRefused) {
  const auto folder = CreateRunFolder(runs_ + "\xff", "text");

  EXPECT_EQ(folder.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr("\\xff"));
}

TEST_F(RunFolderTest, NamesTheNearestRun) {
  const std::string folder = *CreateRunFolder(runs_, "text");
  ASSERT_TRUE(WriteFileAtomically(folder + "/model.safetensors", "x").ok());

  EXPECT_THAT(std::string(FindRunFolder(runs_, "txet").status().message()),
              HasSubstr("did you mean 'text'?"));
  EXPECT_THAT(std::string(FindRunFolder(runs_, "zzzzzzzz").status().message()),
              HasSubstr("(there are: text)"));
}

TEST_F(RunFolderTest, PathsAreShortBelowTheCurrentFolderOnly) {
  EXPECT_EQ(ShortPath(AbsolutePath("runs/text")), "runs/text");
  EXPECT_EQ(ShortPath("/"), "/");
  EXPECT_EQ(AbsolutePath("/a/../b"), "/b");
  EXPECT_EQ(BaseName("/runs/text-2"), "text-2");
  EXPECT_EQ(BaseName("/runs/text-2/"), "text-2");
}

}  // namespace
}  // namespace deltapipe
