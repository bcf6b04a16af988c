#include "worker/control/assignment_paths.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

/// data/text.txt and runs/ are open; secret.txt and elsewhere/ are not.
class AssignmentPathsTest : public ::testing::Test {
 protected:
  AssignmentPathsTest() {
    std::string made = ::testing::TempDir() + "/paths-XXXXXX";
    EXPECT_NE(mkdtemp(&made[0]), nullptr);
    char real[PATH_MAX];
    EXPECT_NE(realpath(made.c_str(), real), nullptr);
    folder_ = real;
    for (const char* each : {"/data", "/runs", "/elsewhere"}) {
      EXPECT_EQ(mkdir((folder_ + each).c_str(), 0755), 0);
    }
    for (const char* each : {"/data/text.txt", "/secret.txt"}) {
      EXPECT_TRUE(WriteFileAtomically(folder_ + each, "x").ok());
    }
    roots_.reads = PathRoots::Beneath({folder_ + "/data"}, "--data-root");
    roots_.writes = PathRoots::Beneath({folder_ + "/runs"}, "--write-root");
    assignment_.mutable_spec()->mutable_model()->set_kind("gpt");
    data().set_kind("bytes");
    data().set_path(folder_ + "/data/text.txt");
    assignment_.set_run_folder(folder_ + "/runs/job-1");
  }

  v1::DataSpec& data() { return *assignment_.mutable_spec()->mutable_data(); }
  void Link(const std::string& to, const std::string& name) {
    ASSERT_EQ(symlink((folder_ + to).c_str(), (folder_ + name).c_str()), 0);
  }
  /// "" if the assignment is taken, else the refusal.
  std::string Refusal() {
    const absl::Status status = ConfinePaths(roots_, &assignment_);
    if (status.ok()) return "";
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    return std::string(status.message());
  }

  std::string folder_;
  WorkerRoots roots_;
  v1::Assignment assignment_;
};

TEST_F(AssignmentPathsTest, PathsBeneathBecomeWhereTheyLead) {
  data().set_path(folder_ + "/data/../data/text.txt");

  EXPECT_EQ(Refusal(), "");

  EXPECT_EQ(data().path(), folder_ + "/data/text.txt");
  EXPECT_EQ(assignment_.run_folder(), folder_ + "/runs/job-1");
  EXPECT_EQ(assignment_.checkpoint_folder(),
            folder_ + "/runs/job-1/checkpoints");
}

TEST_F(AssignmentPathsTest, DataElsewhereIsRefused) {
  data().set_path(folder_ + "/data/../secret.txt");

  EXPECT_THAT(Refusal(), HasSubstr("data.path '" + folder_ +
                                   "/data/../secret.txt' leads out of what "
                                   "--data-root opens to jobs"));
}

TEST_F(AssignmentPathsTest, WhatIsWrittenIsNotReadAsData) {
  data().set_path(folder_ + "/runs/coordinator.security/authority.key");

  EXPECT_THAT(Refusal(), HasSubstr("data.path"));
}

TEST_F(AssignmentPathsTest, ARunFolderElsewhereIsRefused) {
  assignment_.set_run_folder(folder_ + "/runs/../elsewhere");

  EXPECT_THAT(Refusal(), HasSubstr("the run folder '"));
}

TEST_F(AssignmentPathsTest, AFolderOfCheckpointsElsewhereIsRefused) {
  assignment_.set_checkpoint_folder(folder_ + "/elsewhere");

  EXPECT_THAT(Refusal(), HasSubstr("checkpoint.folder '"));
}

TEST_F(AssignmentPathsTest, ALinkForTheCheckpointsOfARunFolderIsFollowed) {
  ASSERT_EQ(mkdir((folder_ + "/runs/job-1").c_str(), 0755), 0);
  Link("/elsewhere", "/runs/job-1/checkpoints");

  EXPECT_THAT(Refusal(), HasSubstr("the folder of checkpoints '"));
}

TEST_F(AssignmentPathsTest, ImagesThatAreLinksOutAreRefused) {
  data().set_kind("fashion_mnist");
  data().set_path(folder_ + "/data");
  Link("/secret.txt", "/data/t10k-labels-idx1-ubyte.gz");

  EXPECT_THAT(Refusal(), HasSubstr("t10k-labels-idx1-ubyte.gz' leads out"));
}

TEST_F(AssignmentPathsTest, SyntheticModelsReadNothing) {
  assignment_.mutable_spec()->mutable_model()->set_kind("synthetic");
  data().set_path("/etc/passwd");

  EXPECT_EQ(Refusal(), "");
}

TEST_F(AssignmentPathsTest, WithoutRootsNothingIsChanged) {
  roots_ = WorkerRoots();
  data().set_path("../a");
  assignment_.set_run_folder("runs/job-1");
  const std::string former = assignment_.SerializeAsString();

  EXPECT_EQ(Refusal(), "");

  EXPECT_EQ(assignment_.SerializeAsString(), former);
}

}  // namespace
}  // namespace deltapipe
