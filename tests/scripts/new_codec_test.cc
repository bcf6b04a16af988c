// scripts/new_codec in a copy of the folders that it writes to.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

std::string Contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class NewCodecTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("TEST_TMPDIR");
    root_ = fs::path(folder != nullptr ? folder : ::testing::TempDir()) /
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    for (const char* part : {"base", "compression", "docs", "scripts"}) {
      CopyFiles(part);
    }
    fs::copy_file(".clang-format", root_ / ".clang-format");
  }

  // Runs a command in the copy; what it prints is in output_.
  int Run(const std::string& command) {
    const fs::path output = root_.string() + ".output";
    const int status =
        std::system(absl::StrCat("cd '", root_.string(), "' && ", command,
                                 " > '", output.string(), "' 2>&1")
                        .c_str());
    output_ = Contents(output);
    return status;
  }

  // By path relative to the copy.
  std::map<std::string, std::string> AllFiles() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(root_)) {
      if (!entry.is_regular_file()) continue;
      files[fs::relative(entry.path(), root_).string()] =
          Contents(entry.path());
    }
    return files;
  }

  fs::path root_;
  std::string output_;

 private:
  // The files themselves, where the test's are links to them.
  void CopyFiles(const fs::path& part) {
    for (const auto& entry : fs::recursive_directory_iterator(
             part, fs::directory_options::follow_directory_symlink)) {
      if (!fs::is_regular_file(entry.path())) continue;
      const fs::path copy = root_ / entry.path();
      fs::create_directories(copy.parent_path());
      fs::copy_file(entry.path(), copy);
      fs::permissions(copy, fs::perms::owner_write, fs::perm_options::add);
    }
  }
};

TEST_F(NewCodecTest, ItsFilesAreFormattedAndCompile) {
  for (const char* tool : {"clang-format-14", "g++"}) {
    if (Run(absl::StrCat("command -v ", tool)) != 0) {
      GTEST_SKIP() << tool << " is missing";
    }
  }
  // A long name, so that lines must break.
  ASSERT_EQ(Run("python3 scripts/new_codec new_codec_with_a_rather_long_name"),
            0)
      << output_;

  EXPECT_EQ(Run("clang-format-14 --style=file --dry-run -Werror "
                "compression/*.cc compression/codecs/new_codec_*"),
            0)
      << output_;
  EXPECT_EQ(Run("g++ -std=c++17 -Wall -Wextra -Wno-unused-parameter -Werror "
                "-Wno-sign-compare -fsyntax-only -I. "
                "compression/codecs/new_codec_with_a_rather_long_name.cc "
                "compression/codec_registry.cc"),
            0)
      << output_;
}

TEST_F(NewCodecTest, AddsTheCodecWhereverCodecsAreListed) {
  const std::map<std::string, std::string> before = AllFiles();

  ASSERT_EQ(Run("python3 scripts/new_codec half_tone"), 0) << output_;

  const std::map<std::string, std::string> after = AllFiles();
  std::vector<std::string> changed;
  for (const auto& [path, text] : after) {
    const auto former = before.find(path);
    if (former == before.end() || former->second != text) {
      changed.push_back(path);
      EXPECT_THAT(text, HasSubstr("half_tone")) << path;
    }
  }
  EXPECT_THAT(
      changed,
      UnorderedElementsAre(
          "compression/BUILD", "compression/codec_conformance_test.cc",
          "compression/codecs.def", "compression/codecs/BUILD",
          "compression/codecs/half_tone.cc", "compression/codecs/half_tone.h",
          "compression/codecs/half_tone_test.cc", "compression/golden_test.cc",
          "docs/papers.md", "scripts/bench"));
  EXPECT_THAT(after.at("compression/codecs.def"),
              HasSubstr("DELTAPIPE_CODEC(HalfTone, \"half_tone\","));
  EXPECT_THAT(after.at("compression/BUILD"),
              HasSubstr("\"//compression/codecs:fp\",\n"
                        "        \"//compression/codecs:hadamard\",\n"
                        "        \"//compression/codecs:half_tone\",\n"));
  EXPECT_THAT(after.at("docs/papers.md"), HasSubstr("\n| `half_tone` | "));
  EXPECT_THAT(after.at("compression/codecs/half_tone.h"),
              HasSubstr("MakeHalfToneCodec("));
}

TEST_F(NewCodecTest, RefusesABadOrTakenNameAndChangesNothing) {
  const std::map<std::string, std::string> before = AllFiles();
  const auto expect = [&](const std::string& arguments,
                          const std::string& text) {
    EXPECT_NE(Run("python3 scripts/new_codec " + arguments), 0) << arguments;
    EXPECT_THAT(output_, HasSubstr(text)) << arguments;
    EXPECT_THAT(output_, Not(HasSubstr("Traceback"))) << arguments;
    EXPECT_TRUE(AllFiles() == before) << arguments;
  };

  expect("", "Usage: scripts/new_codec NAME");
  expect("a b", "Usage: scripts/new_codec NAME");
  for (const char* name : {"HalfTone", "4bit", "half-tone", "half__tone",
                           "_half", "half_", "../half", "''"}) {
    expect(name, "cannot be a codec's name");
  }
  expect("int", "'int' is taken");
  expect("delta", "'delta' is taken");
  expect("auto", "'auto' is taken");
  expect("parameters", "'parameters' is taken");
  expect("top_k", "too close to 'topk'");
}

TEST_F(NewCodecTest, ASecondTimeTheNameIsTaken) {
  ASSERT_EQ(Run("python3 scripts/new_codec half_tone"), 0) << output_;
  const std::map<std::string, std::string> before = AllFiles();

  EXPECT_NE(Run("python3 scripts/new_codec half_tone"), 0);

  EXPECT_THAT(output_, HasSubstr("'half_tone' is taken"));
  EXPECT_TRUE(AllFiles() == before);
}

TEST_F(NewCodecTest, AFileThatHasNoPlaceForItIsNamedAndNothingIsWritten) {
  std::ofstream(root_ / "docs/papers.md") << "no table\n";
  const std::map<std::string, std::string> before = AllFiles();

  EXPECT_NE(Run("python3 scripts/new_codec half_tone"), 0);

  EXPECT_THAT(output_, HasSubstr("docs/papers.md has no single place"));
  EXPECT_TRUE(AllFiles() == before);
}

}  // namespace
}  // namespace deltapipe
