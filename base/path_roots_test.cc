#include "base/path_roots.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// data/ (a root) with text.txt and sub/; data2/ and secret.txt beside it.
class PathRootsTest : public ::testing::Test {
 protected:
  PathRootsTest() {
    std::string made = ::testing::TempDir() + "/roots-XXXXXX";
    EXPECT_NE(mkdtemp(&made[0]), nullptr);
    char real[PATH_MAX];
    EXPECT_NE(realpath(made.c_str(), real), nullptr);
    folder_ = real;
    root_ = folder_ + "/data";
    for (const char* each : {"/data", "/data/sub", "/data2"}) {
      EXPECT_EQ(mkdir((folder_ + each).c_str(), 0755), 0);
    }
    for (const char* each : {"/data/text.txt", "/data2/a", "/secret.txt"}) {
      EXPECT_TRUE(WriteFileAtomically(folder_ + each, "x").ok());
    }
    roots_ = PathRoots::Beneath({root_}, "--data-root");
  }

  void Link(const std::string& to, const std::string& name) {
    ASSERT_EQ(symlink(to.c_str(), (folder_ + name).c_str()), 0);
  }
  /// Where the path leads, or the error's code.
  std::string Resolve(const std::string& path) {
    const auto resolved = roots_.Resolve("data.path", path);
    return resolved.ok() ? *resolved
                         : absl::StatusCodeToString(resolved.status().code());
  }

  std::string folder_, root_;
  PathRoots roots_;
};

constexpr char kRefused[] = "PERMISSION_DENIED";

TEST_F(PathRootsTest, WhatLiesBeneathIsTakenAndSoIsTheRootItself) {
  EXPECT_EQ(Resolve(root_ + "/text.txt"), root_ + "/text.txt");
  EXPECT_EQ(Resolve(root_ + "//sub/./"), root_ + "/sub");
  EXPECT_EQ(Resolve(root_), root_);
  EXPECT_EQ(Resolve(root_ + "/"), root_);
}

TEST_F(PathRootsTest, DotsCountForWhereTheyLead) {
  EXPECT_EQ(Resolve(root_ + "/sub/../text.txt"), root_ + "/text.txt");
  EXPECT_EQ(Resolve(root_ + "/../secret.txt"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/sub/../../secret.txt"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/.."), kRefused);
  EXPECT_EQ(Resolve("/../../.." + folder_ + "/secret.txt"), kRefused);
}

TEST_F(PathRootsTest, AFileThatIsNotThereYetIsJudgedByItsFolder) {
  EXPECT_EQ(Resolve(root_ + "/new/er/model"), root_ + "/new/er/model");
  EXPECT_EQ(Resolve(folder_ + "/new"), kRefused);
  // What is not there may become a link.
  EXPECT_EQ(Resolve(root_ + "/new/../text.txt"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/new/../../secret.txt"), kRefused);
}

TEST_F(PathRootsTest, ALookAlikeIsNotBeneath) {
  EXPECT_EQ(Resolve(folder_ + "/data2/a"), kRefused);
  EXPECT_EQ(Resolve(folder_ + "/data2"), kRefused);
  EXPECT_EQ(Resolve(folder_ + "/dat"), kRefused);
}

TEST_F(PathRootsTest, LinksCountForWhereTheyLead) {
  Link("../secret.txt", "/data/out");
  Link(folder_, "/data/up");
  Link("text.txt", "/data/same");
  Link(root_, "/elsewhere");

  EXPECT_EQ(Resolve(root_ + "/out"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/up/secret.txt"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/up/new/file"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/same"), root_ + "/text.txt");
  EXPECT_EQ(Resolve(folder_ + "/elsewhere/text.txt"), root_ + "/text.txt");
  // Up from where the link leads, not from where it stands.
  EXPECT_EQ(Resolve(folder_ + "/elsewhere/../secret.txt"), kRefused);
}

TEST_F(PathRootsTest, ALinkThatLeadsNowhereIsRefusedAlsoForWriting) {
  Link("../to_be_made", "/data/dangling");
  Link("loop", "/data/loop");

  EXPECT_EQ(Resolve(root_ + "/dangling"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/dangling/file"), kRefused);
  EXPECT_EQ(Resolve(root_ + "/loop"), kRefused);
}

TEST_F(PathRootsTest, ARootMayBeALinkAndMayComeLate) {
  Link(root_, "/alias");
  roots_ = PathRoots::Beneath({folder_ + "/alias", folder_ + "/late"},
                              "--data-root");

  EXPECT_EQ(Resolve(folder_ + "/alias/text.txt"), root_ + "/text.txt");
  EXPECT_EQ(Resolve(folder_ + "/late/a"), kRefused);
  ASSERT_EQ(mkdir((folder_ + "/late").c_str(), 0755), 0);
  EXPECT_EQ(Resolve(folder_ + "/late/a"), folder_ + "/late/a");
}

TEST_F(PathRootsTest, RelativePathsAndRootsAreTakenFromTheCurrentFolder) {
  ASSERT_EQ(chdir(folder_.c_str()), 0);
  roots_ = PathRoots::Beneath({"data"}, "--data-root");

  EXPECT_EQ(Resolve("data/text.txt"), root_ + "/text.txt");
  EXPECT_EQ(Resolve("text.txt"), kRefused);
  EXPECT_EQ(Resolve("data/../secret.txt"), kRefused);
  EXPECT_EQ(Resolve(""), kRefused);
  EXPECT_EQ(Resolve("."), kRefused);
  ASSERT_EQ(chdir("/"), 0);
}

TEST_F(PathRootsTest, TheFileSystemsRootHoldsEverything) {
  roots_ = PathRoots::Beneath({"/"}, "--data-root");

  EXPECT_EQ(Resolve(folder_ + "/secret.txt"), folder_ + "/secret.txt");
}

TEST_F(PathRootsTest, WhatNoDiskCanFollowIsRefused) {
  EXPECT_EQ(Resolve(root_ + std::string("/text.txt\0/../../..", 19)), kRefused);
  EXPECT_EQ(Resolve(root_ + "/" + std::string(2 * PATH_MAX, 'a')), kRefused);
  EXPECT_EQ(Resolve(root_ + "/text.txt/../../secret.txt"), kRefused);
}

TEST_F(PathRootsTest, ARefusalNamesPathRootsAndRemedyOnOneLine) {
  const auto outside = roots_.Resolve("data.path", "/etc/\nshadow");
  const auto none =
      PathRoots::Beneath({}, "--data-root").Resolve("data.path", root_);

  EXPECT_EQ(outside.status().message(),
            "data.path '/etc/\\nshadow' leads out of what --data-root opens to "
            "jobs (" +
                root_ +
                "): name a path beneath it, or start this "
                "program with --data-root DIR for another folder");
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("no folder was opened to jobs by --data-root"));
}

TEST_F(PathRootsTest, ARefusalDoesNotTellWhatExistsElsewhere) {
  Link("../data2", "/data/out");
  const auto refusal = [this](const std::string& path) {
    std::string text(roots_.Resolve("p", path).status().message());
    return text.substr(text.find("leads"));
  };

  EXPECT_EQ(refusal(folder_ + "/secret.txt"), refusal(folder_ + "/nothing"));
  EXPECT_EQ(refusal(root_ + "/out/a"), refusal(root_ + "/out/nothing"));
  EXPECT_THAT(refusal(root_ + "/out/a"), Not(HasSubstr("data2")));
}

TEST_F(PathRootsTest, UnrestrictedTakesEveryPathAsItIs) {
  roots_ = PathRoots();

  EXPECT_EQ(Resolve("../a"), "../a");
  EXPECT_FALSE(roots_.is_restricted());
  EXPECT_EQ(roots_.ToString(), "any folder");
}

}  // namespace
}  // namespace deltapipe
