#include "base/temporary_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/file.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

TEST(TemporaryFolderTest, GoesAwayWithAllThatIsInIt) {
  std::string path;
  {
    const auto folder = TemporaryFolder::Create("test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    path = folder->path();
    EXPECT_THAT(path, HasSubstr("/deltapipe-test-"));
    ASSERT_TRUE(MakeDirectories(folder->File("a/b")).ok());
    ASSERT_TRUE(WriteFileAtomically(folder->File("a/b/c"), "text").ok());
    EXPECT_TRUE(std::filesystem::exists(path + "/a/b/c"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TemporaryFolderTest, BelongsToTheLastThatItWasMovedTo) {
  auto made = TemporaryFolder::Create("test");
  ASSERT_TRUE(made.ok()) << made.status();
  const std::string path = made->path();
  std::optional<TemporaryFolder> moved(*std::move(made));
  EXPECT_EQ(moved->path(), path);
  EXPECT_TRUE(std::filesystem::exists(path));

  moved.reset();

  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TemporaryFolderTest, CanGoBeforeTheObject) {
  const auto folder = TemporaryFolder::Create("test");
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE(WriteFileAtomically(folder->File("c"), "text").ok());

  folder->Remove();

  EXPECT_FALSE(std::filesystem::exists(folder->path()));
}

TEST(TemporaryFolderTest, AParentThatIsNotThereIsNamed) {
  const char* const former = getenv("TMPDIR");
  const std::string kept = former == nullptr ? "" : former;
  setenv("TMPDIR", "/nowhere/at/all", 1);

  const auto folder = TemporaryFolder::Create("test");

  if (former == nullptr) {
    unsetenv("TMPDIR");
  } else {
    setenv("TMPDIR", kept.c_str(), 1);
  }
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(folder.status().message()),
              HasSubstr("/nowhere/at/all/deltapipe-test-"));
}

}  // namespace
}  // namespace deltapipe
