#include "coordinator/service/coordinator.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest() {
    const char* const base = getenv("TEST_TMPDIR");
    folder_ = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    options_.store_path = absl::StrCat(folder_, "/jobs.db");
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    DIR* const folder = opendir(folder_.c_str());
    EXPECT_NE(folder, nullptr);
    while (const dirent* entry = readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    closedir(folder);
    return names;
  }

  std::string folder_;
  CoordinatorOptions options_;
};

TEST_F(CoordinatorTest, RefusedAddressLeavesNothingBehind) {
  options_.listen = "0.0.0.0:0";
  EXPECT_EQ(Coordinator::Start(options_).status().code(),
            absl::StatusCode::kPermissionDenied);
  options_.listen = "nowhere";
  EXPECT_EQ(Coordinator::Start(options_).status().code(),
            absl::StatusCode::kInvalidArgument);

  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CoordinatorTest, PortInUseLeavesNothingBehind) {
  CoordinatorOptions first_options = options_;
  first_options.store_path = absl::StrCat(folder_, "-first.db");
  const auto first = Coordinator::Start(first_options);
  ASSERT_TRUE(first.ok()) << first.status();
  options_.listen = (*first)->address();

  const auto second = Coordinator::Start(options_);

  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("the port is in use"));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CoordinatorTest, StoreThatIsAFolderIsBadInput) {
  options_.store_path = folder_;

  const auto coordinator = Coordinator::Start(options_);

  EXPECT_EQ(coordinator.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(coordinator.status().message()),
              HasSubstr("is a folder"));
}

}  // namespace
}  // namespace deltapipe
