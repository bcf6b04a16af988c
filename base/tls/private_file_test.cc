#include "base/tls/private_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string TestFolder() {
  std::string folder = ::testing::TempDir() + "/private-XXXXXX";
  EXPECT_NE(mkdtemp(&folder[0]), nullptr);
  return folder;
}

TEST(PrivateFileTest, OnlyItsOwnerReadsIt) {
  const std::string path = TestFolder() + "/secret";
  umask(0);

  ASSERT_TRUE(WritePrivateFile(path, "first").ok());
  ASSERT_TRUE(WritePrivateFile(path, "second").ok());

  struct stat status = {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(ReadPrivateFile(path).value(), "second");
}

TEST(PrivateFileTest, ASecretThatOthersCanReadIsNotUsed) {
  const std::string path = TestFolder() + "/secret";
  ASSERT_TRUE(WritePrivateFile(path, "text").ok());
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);

  const auto text = ReadPrivateFile(path);

  EXPECT_EQ(text.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(text.status().message()),
              HasSubstr("mode 644, expected 600"));
}

TEST(PrivateFileTest, FoldersAreMadeForTheirOwnerAlone) {
  const std::string folder = TestFolder() + "/above/below";
  umask(0);

  ASSERT_TRUE(MakePrivateFolder(folder).ok());
  ASSERT_TRUE(MakePrivateFolder(folder).ok());

  struct stat status = {};
  ASSERT_EQ(stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST(PrivateFileTest, AMissingFileIsNotFound) {
  EXPECT_EQ(ReadPrivateFile(TestFolder() + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(WritePrivateFile(TestFolder() + "/no/where", "x").ok());
}

}  // namespace
}  // namespace deltapipe
