// deltapipe checkpoint ..., as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/checkpoint/manifest.h"
#include "base/checkpoint/testing_checkpoints.h"
#include "base/file.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Outcome {
  int exit_code = -1;
  std::string output;
  std::string errors;
};

class CheckpointCommandTest : public ::testing::Test {
 protected:
  CheckpointCommandTest() {
    root_ = ::testing::TempDir() + "/checkpoint_command_test_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_);
    folder_ = root_ + "/runs/text/checkpoints";
  }
  ~CheckpointCommandTest() override { fs::remove_all(root_); }

  /// Runs `deltapipe checkpoint ARGUMENTS`, in shell syntax, from root_.
  Outcome Checkpoint(const std::string& arguments) {
    const std::string program =
        fs::current_path().string() + "/coordinator/cli/deltapipe";
    const std::string command =
        absl::StrCat("cd ", root_, " && ", program, " checkpoint ", arguments,
                     " >out 2>err </dev/null");
    const int status = std::system(command.c_str());
    Outcome outcome;
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    outcome.output = ReadFile(root_ + "/out").value_or("");
    outcome.errors = ReadFile(root_ + "/err").value_or("");
    return outcome;
  }

  static std::vector<nlohmann::json> Objects(const std::string& output) {
    std::vector<nlohmann::json> objects;
    for (const auto line : absl::StrSplit(output, '\n', absl::SkipEmpty())) {
      objects.push_back(nlohmann::json::parse(line));
    }
    return objects;
  }

  void Flip(const std::string& path) {
    std::string text = ReadFile(path).value();
    text.back() ^= 1;
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
  }

  std::string root_;
  std::string folder_;
};

TEST_F(CheckpointCommandTest, HelpOfEveryVerbHasExamples) {
  for (const std::string verb : {"ls", "describe", "verify", "export", "rm"}) {
    const Outcome outcome = Checkpoint(verb + " --help");

    EXPECT_EQ(outcome.exit_code, 0) << verb;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("Examples:"),
                                      HasSubstr("deltapipe checkpoint " + verb),
                                      HasSubstr("--json")));
  }
}

TEST_F(CheckpointCommandTest, MistakesAreUsageErrors) {
  for (const std::string arguments :
       {"", "list", "ls", "export text", "verify text --step x",
        "export text out --max-shard 5"}) {
    EXPECT_EQ(Checkpoint(arguments).exit_code, 2) << arguments;
  }
}

TEST_F(CheckpointCommandTest, WhatIsNotThereHasCodeThree) {
  for (const std::string verb : {"ls", "describe", "verify", "rm --yes"}) {
    const Outcome outcome = Checkpoint(verb + " text");

    EXPECT_EQ(outcome.exit_code, 3) << verb;
    EXPECT_THAT(outcome.errors, HasSubstr("no run 'text' below runs"));
    EXPECT_THAT(outcome.output, IsEmpty());
  }
}

TEST_F(CheckpointCommandTest, ListIsATableOfTheNewestFirst) {
  MakeTestingCheckpoint(folder_, 50);
  const std::string damaged = MakeTestingCheckpoint(folder_, 100, 2);
  fs::resize_file(damaged + "/rank-0.safetensors", 1);

  const Outcome outcome = Checkpoint("ls text");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              ContainsRegex("STEP +GENERATION +AGE +SIZE +FILES +STATE\n"
                            " *100 +2 +[0-9,]+ days +[0-9]+ B +3/3 +damaged\n"
                            " *50 +1 +[0-9,]+ days +[0-9]+ B +3/3 +ok\n"));
  EXPECT_THAT(outcome.errors, HasSubstr("rank-0.safetensors is damaged"));
}

TEST_F(CheckpointCommandTest, ListAsJson) {
  MakeTestingCheckpoint(folder_, 50);
  fs::create_directories(folder_ + "/" + CheckpointFolderName(100, 1));

  const Outcome outcome = Checkpoint("ls text --json");

  const auto objects = Objects(outcome.output);
  ASSERT_EQ(objects.size(), 2);
  EXPECT_EQ(objects[0]["schema"], "deltapipe.cli.Checkpoint");
  EXPECT_EQ(objects[0]["state"], "unfinished");
  EXPECT_EQ(objects[1]["step"], 50);
  EXPECT_EQ(objects[1]["num_files"], 3);
  EXPECT_EQ(objects[1]["state"], "ok");
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST_F(CheckpointCommandTest, DescribeShowsWhatItIsOf) {
  MakeTestingCheckpoint(folder_, 50);

  const Outcome outcome = Checkpoint("describe text");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(
      outcome.output,
      AllOf(ContainsRegex("spec +text\n"),
            ContainsRegex("shape +2 stages x 1 replica\n"),
            ContainsRegex("samples +1,600 applied, 0 dropped\n"),
            ContainsRegex("tuning +[{]\"revision\":3[}]\n"),
            ContainsRegex("rank-0.safetensors +[0-9]+ B +[0-9a-f]{16}\n")));
}

TEST_F(CheckpointCommandTest, DescribeAsJsonHasSpecAndTuningAsObjects) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);

  const auto objects = Objects(Checkpoint("describe --json " + path).output);

  ASSERT_EQ(objects.size(), 1);
  EXPECT_EQ(objects[0]["schema"], "deltapipe.cli.CheckpointDetails");
  EXPECT_EQ(objects[0]["spec"]["name"], "text");
  EXPECT_EQ(objects[0]["tuning"]["revision"], 3);
  EXPECT_EQ(objects[0]["files"].size(), 3);
}

TEST_F(CheckpointCommandTest, VerifyOfGoodOnesIsZero) {
  MakeTestingCheckpoint(folder_, 50);
  MakeTestingCheckpoint(folder_, 100);

  const Outcome outcome = Checkpoint("verify text");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("step-000000100-g1: ok, 3 files"),
                    HasSubstr("step-000000050-g1: ok, 3 files")));
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST_F(CheckpointCommandTest, VerifyNamesEveryDefectAndIsOne) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  Flip(path + "/stage-0.safetensors");
  Flip(path + "/rank-0.safetensors");

  const Outcome outcome = Checkpoint("verify text");
  const auto objects = Objects(Checkpoint("verify --json text").output);

  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("step-000000050-g1: 2 defects"));
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("stage-0.safetensors is damaged"),
                    HasSubstr("rank-0.safetensors is damaged")));
  ASSERT_EQ(objects.size(), 1);
  EXPECT_EQ(objects[0]["ok"], false);
  EXPECT_EQ(objects[0]["defects"].size(), 2);
}

TEST_F(CheckpointCommandTest, VerifyOfATornManifestIsOne) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  fs::resize_file(path + "/manifest.json", 100);

  const Outcome outcome = Checkpoint("verify " + path);

  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, HasSubstr("torn"));
}

TEST_F(CheckpointCommandTest, FilesOfOtherHostsMayBeMissing) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  fs::remove(path + "/stage-1.safetensors");

  EXPECT_EQ(Checkpoint("verify text").exit_code, 1);
  EXPECT_EQ(Checkpoint("verify text --this-host").exit_code, 0);
}

TEST_F(CheckpointCommandTest, ExportWritesTheModelAndPrintsItsName) {
  MakeTestingCheckpoint(folder_, 50);

  const Outcome outcome = Checkpoint("export text model.safetensors");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.output, "model.safetensors\n");
  EXPECT_THAT(outcome.errors, HasSubstr("step 50: 4 tensors, 64 B"));
  EXPECT_TRUE(SafetensorsFile::Read(root_ + "/model.safetensors").ok());
  EXPECT_EQ(Checkpoint("export text model.safetensors").exit_code, 4);
  EXPECT_EQ(Checkpoint("export text model.safetensors --force").exit_code, 0);
}

TEST_F(CheckpointCommandTest, ExportInShardsAsJson) {
  MakeTestingCheckpoint(folder_, 50);

  const Outcome outcome =
      Checkpoint("export text model.safetensors --max-shard 36B --json");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  const auto objects = Objects(outcome.output);
  ASSERT_EQ(objects.size(), 1);
  EXPECT_EQ(objects[0]["files"].size(), 3);
  EXPECT_EQ(objects[0]["num_tensors"], 4);
}

TEST_F(CheckpointCommandTest, RemovesTheOneThatIsNamed) {
  MakeTestingCheckpoint(folder_, 50);
  MakeTestingCheckpoint(folder_, 100);

  EXPECT_EQ(Checkpoint("rm text --yes").exit_code, 2) << "which one?";
  EXPECT_EQ(Checkpoint("rm text --step 50").exit_code, 2) << "nobody to ask";
  EXPECT_EQ(Checkpoint("rm text --step 50 --yes").exit_code, 0);

  EXPECT_FALSE(fs::exists(folder_ + "/" + CheckpointFolderName(50, 1)));
  EXPECT_TRUE(fs::exists(folder_ + "/" + CheckpointFolderName(100, 1)));
}

TEST_F(CheckpointCommandTest, TheOnlyGoodOneNeedsForce) {
  const std::string damaged = MakeTestingCheckpoint(folder_, 100);
  Flip(damaged + "/stage-0.safetensors");
  const std::string good = MakeTestingCheckpoint(folder_, 50);

  const Outcome refused = Checkpoint("rm --yes " + good);
  EXPECT_EQ(refused.exit_code, 4);
  EXPECT_THAT(refused.errors, HasSubstr("only good checkpoint"));
  EXPECT_EQ(Checkpoint("verify " + good).exit_code, 0);

  const auto removed = Objects(Checkpoint("rm --yes --json " + damaged).output);
  ASSERT_EQ(removed.size(), 1) << "a damaged one may go";
  EXPECT_EQ(removed[0]["schema"], "deltapipe.cli.RemovedCheckpoint");

  EXPECT_EQ(Checkpoint("rm --yes --force " + good).exit_code, 0);
  EXPECT_FALSE(fs::exists(good));
}

}  // namespace
}  // namespace deltapipe
