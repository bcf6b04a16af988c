#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

class FileTest : public testing::Test {
 protected:
  FileTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/file_test_" + test->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~FileTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) { return folder_ + "/" + name; }
  int NumFiles() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      static_cast<void>(entry);
      ++count;
    }
    return count;
  }

  std::string folder_;
};

TEST_F(FileTest, WritesAndReadsBack) {
  const std::string text("a\0b\n", 4);

  ASSERT_TRUE(WriteFileAtomically(Path("f"), text).ok());

  EXPECT_EQ(ReadFile(Path("f")).value(), text);
  EXPECT_EQ(NumFiles(), 1) << "no temporary file stays";
}

TEST_F(FileTest, WritesPiecesBackToBack) {
  const std::vector<uint8_t> a = {1, 2};
  const std::vector<uint8_t> b = {3};

  ASSERT_TRUE(WriteFileAtomically(Path("f"), {a, {}, b}).ok());

  EXPECT_THAT(ReadFileBytes(Path("f")).value(), testing::ElementsAre(1, 2, 3));
}

TEST_F(FileTest, ReplacesAFile) {
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "long former content").ok());
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "short").ok());

  EXPECT_EQ(ReadFile(Path("f")).value(), "short");
}

TEST_F(FileTest, ReadsEmptyFilesAndFilesWithoutASize) {
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "").ok());

  EXPECT_EQ(ReadFile(Path("f")).value(), "");
  EXPECT_THAT(ReadFile("/proc/self/status").value(), HasSubstr("Name:"));
}

TEST_F(FileTest, ReadRefusesMoreThanTheLimit) {
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "12345").ok());

  EXPECT_TRUE(ReadFile(Path("f"), 5).ok());
  EXPECT_EQ(ReadFile(Path("f"), 4).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile("/proc/self/status", 10).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(FileTest, MissingFileIsNotFoundWithThePath) {
  const absl::Status status = ReadFile(Path("none")).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("cannot read"), HasSubstr(Path("none"))));
}

TEST_F(FileTest, MissingFolderIsNotFoundAndNothingIsLeft) {
  EXPECT_EQ(WriteFileAtomically(Path("none/f"), "x").code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(NumFiles(), 0);
}

TEST_F(FileTest, AFolderIsNoFile) {
  EXPECT_EQ(ReadFile(folder_).status().code(),
            absl::StatusCode::kFailedPrecondition);

  const absl::Status status = WriteFileAtomically(folder_, "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("expected a file"));
}

TEST_F(FileTest, FailedWriteLeavesTheFormerFileWhole) {
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "former").ok());
  // A limit on file sizes fails the write half-way, as a full disk does.
  struct rlimit former_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former_limit), 0);
  auto* former_handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = former_limit;
  limit.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);

  const absl::Status status =
      WriteFileAtomically(Path("f"), std::string(5000, 'x'));

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &former_limit), 0);
  signal(SIGXFSZ, former_handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile(Path("f")).value(), "former");
  EXPECT_EQ(NumFiles(), 1) << "the temporary file is removed";
}

TEST_F(FileTest, ALinkStaysOneAndItsTargetIsReplaced) {
  const std::string target = folder_ + "/target";
  const std::string link = folder_ + "/link";
  ASSERT_TRUE(WriteFileAtomically(target, "before").ok());
  ASSERT_EQ(symlink("target", link.c_str()), 0);

  ASSERT_TRUE(WriteFileAtomically(link, "after").ok());

  EXPECT_EQ(ReadFile(target).value(), "after");
  struct stat info;
  ASSERT_EQ(lstat(link.c_str(), &info), 0);
  EXPECT_TRUE(S_ISLNK(info.st_mode));
}

TEST_F(FileTest, WhatIsNoFileIsNotReplaced) {
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);

  const absl::Status status = WriteFileAtomically(pipe, "text");

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(pipe));
  struct stat info;
  ASSERT_EQ(lstat(pipe.c_str(), &info), 0);
  EXPECT_TRUE(S_ISFIFO(info.st_mode));
}

TEST_F(FileTest, MakeDirectoriesMakesAllAndIsIdempotent) {
  EXPECT_TRUE(MakeDirectories(Path("a/b/c")).ok());
  EXPECT_TRUE(MakeDirectories(Path("a/b/c")).ok());
  EXPECT_TRUE(MakeDirectories(Path("a/b//c/")).ok());
  EXPECT_TRUE(MakeDirectories("/").ok());

  EXPECT_TRUE(std::filesystem::is_directory(Path("a/b/c")));
}

TEST_F(FileTest, MakeDirectoriesNamesTheFileInTheWay) {
  ASSERT_TRUE(WriteFileAtomically(Path("f"), "x").ok());

  const absl::Status status = MakeDirectories(Path("f/g"));

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr(Path("f") + ": "));
}

TEST(FileErrorTest, FullDiskIsResourceExhaustedWithARemedy) {
  const absl::Status status = FileError("write", "runs/7/m", ENOSPC);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("cannot write runs/7/m: No space left"),
                    HasSubstr("free some space")));
}

TEST(FileErrorTest, CodesFollowTheCause) {
  EXPECT_EQ(FileError("write", "f", EACCES).code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(FileError("write", "f", EROFS).code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(FileError("write", "f", EDQUOT).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(FileError("open", "f", EMFILE).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(FileError("read", "f", EIO).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(FileError("read", "f", ESTALE).code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace deltapipe
