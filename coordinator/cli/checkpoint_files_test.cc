// Finding, verifying and exporting checkpoints on the disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"
#include "base/checkpoint/testing_checkpoints.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/checkpoint_listing.h"
#include "coordinator/cli/checkpoint_verify.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class CheckpointFilesTest : public ::testing::Test {
 protected:
  CheckpointFilesTest() {
    root_ = ::testing::TempDir() + "/checkpoint_files_test_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_);
    choice_.runs = root_ + "/runs";
    choice_.job = "text";
    folder_ = choice_.runs + "/text/checkpoints";
  }
  ~CheckpointFilesTest() override { fs::remove_all(root_); }

  std::vector<int64_t> Steps() {
    std::vector<int64_t> steps;
    const auto found = FindCheckpoints(choice_);
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) return steps;
    for (const ListedCheckpoint& listed : *found) steps.push_back(listed.step);
    return steps;
  }

  ListedCheckpoint Newest() {
    auto listed = FindCheckpointToRead(choice_);
    EXPECT_TRUE(listed.ok()) << listed.status();
    return listed.value_or(ListedCheckpoint{});
  }

  std::vector<std::string> Names(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::string root_;
  std::string folder_;
  CheckpointChoice choice_;
};

TEST_F(CheckpointFilesTest, ARunsNameAndEveryFolderMeanTheCheckpoints) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  MakeTestingCheckpoint(folder_, 100);

  for (const std::string& job :
       {std::string("text"), std::string("text/"), choice_.runs + "/text",
        folder_, folder_ + "/"}) {
    choice_.job = job;
    EXPECT_THAT(Steps(), ElementsAre(100, 50)) << job;
  }
  for (const std::string& job :
       {path, path + "/",
        absl::StrCat("text/checkpoints/", CheckpointFolderName(50, 1))}) {
    choice_.job = job;
    EXPECT_THAT(Steps(), ElementsAre(50)) << job;
  }
}

TEST_F(CheckpointFilesTest, StepAndGenerationChoose) {
  MakeTestingCheckpoint(folder_, 50, 1);
  MakeTestingCheckpoint(folder_, 50, 2);
  MakeTestingCheckpoint(folder_, 100, 2);

  choice_.step = 50;
  EXPECT_THAT(Steps(), ElementsAre(50, 50));
  choice_.generation = 1;
  EXPECT_EQ(Newest().generation, 1);
  choice_.step = 60;
  EXPECT_THAT(std::string(FindCheckpoints(choice_).status().message()),
              AllOf(HasSubstr("no checkpoint of step 60 of generation 1"),
                    HasSubstr("step-000000100-g2")));
}

TEST_F(CheckpointFilesTest, NothingThereIsNotFoundWithTheReason) {
  fs::create_directories(choice_.runs + "/bare");

  const absl::Status none = FindCheckpoints(choice_).status();
  choice_.job = "bare";
  const absl::Status bare = FindCheckpoints(choice_).status();

  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr("no run 'text' below"));
  EXPECT_EQ(bare.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(bare.message()), HasSubstr("checkpoint.every"));
}

TEST_F(CheckpointFilesTest, StatesSayWhatIsWrong) {
  MakeTestingCheckpoint(folder_, 10);
  const std::string incomplete = MakeTestingCheckpoint(folder_, 20);
  fs::remove(incomplete + "/rank-0.safetensors");
  const std::string damaged = MakeTestingCheckpoint(folder_, 30);
  fs::resize_file(damaged + "/stage-0.safetensors", 10);
  const std::string torn = MakeTestingCheckpoint(folder_, 40);
  fs::resize_file(torn + "/manifest.json", 10);
  fs::create_directories(folder_ + "/" + CheckpointFolderName(50, 1));

  const auto all = FindCheckpoints(choice_).value();

  std::vector<std::string> states;
  for (const ListedCheckpoint& listed : all) states.push_back(listed.state);
  EXPECT_THAT(states, ElementsAre("unfinished", "damaged", "damaged",
                                  "incomplete", "ok"));
  EXPECT_THAT(all[0].problem, HasSubstr("has no manifest.json"));
  EXPECT_THAT(all[1].problem, HasSubstr("torn"));
  EXPECT_THAT(all[2].problem, HasSubstr("bytes, got 10"));
  EXPECT_THAT(all[3].problem, HasSubstr("rank-0.safetensors is not there"));
  EXPECT_EQ(all[3].num_files_here, 2);
  EXPECT_EQ(Newest().step, 30) << "the newest with a manifest";
}

TEST_F(CheckpointFilesTest, NoManifestAtAllIsDataLoss) {
  fs::create_directories(folder_ + "/" + CheckpointFolderName(50, 1));

  EXPECT_EQ(FindCheckpointToRead(choice_).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointFilesTest, AGoodOneHasNoDefects) {
  MakeTestingCheckpoint(folder_, 50);

  const CheckpointVerdict verdict = VerifyCheckpoint(Newest(), false);

  EXPECT_THAT(verdict.defects, IsEmpty());
  EXPECT_EQ(verdict.num_files, 3);
  EXPECT_EQ(verdict.num_bytes, Newest().num_bytes());
}

TEST_F(CheckpointFilesTest, EveryDefectIsNamed) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  std::string text = ReadFile(path + "/stage-0.safetensors").value();
  text.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path + "/stage-0.safetensors", text).ok());
  fs::resize_file(path + "/stage-1.safetensors", 20);
  fs::remove(path + "/rank-0.safetensors");

  const CheckpointVerdict verdict = VerifyCheckpoint(Newest(), false);

  EXPECT_THAT(verdict.defects,
              UnorderedElementsAre(
                  AllOf(HasSubstr("stage-0"), HasSubstr("digest")),
                  AllOf(HasSubstr("stage-1"), HasSubstr("got 20")),
                  AllOf(HasSubstr("rank-0"), HasSubstr("No such file"))));
}

TEST_F(CheckpointFilesTest, FilesOfOtherHostsMayBeMissing) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  fs::remove(path + "/stage-1.safetensors");

  EXPECT_THAT(VerifyCheckpoint(Newest(), true).defects, IsEmpty());

  fs::remove(path + "/stage-0.safetensors");
  fs::remove(path + "/rank-0.safetensors");
  EXPECT_EQ(VerifyCheckpoint(Newest(), true).defects.size(), 3)
      << "nothing is left to verify";
}

TEST_F(CheckpointFilesTest,
       AFileThatIsNoSafetensorsAndAMissingStageAreDefects) {
  const std::string path = folder_ + "/" + CheckpointFolderName(50, 1);
  fs::create_directories(path);
  ASSERT_TRUE(WriteFileAtomically(path + "/stage-0.safetensors", "no").ok());
  CheckpointManifest manifest;
  manifest.generation = 1;
  manifest.step = 50;
  manifest.num_stages = 2;
  manifest.num_replicas = 1;
  manifest.files = {DigestFile(path, "stage-0.safetensors").value()};
  ASSERT_TRUE(StoreManifest(path, FormatManifest(manifest)).ok());

  EXPECT_THAT(VerifyCheckpoint(Newest(), false).defects,
              ElementsAre(HasSubstr("is not valid safetensors"),
                          HasSubstr("names no stage-1.safetensors")));
}

TEST_F(CheckpointFilesTest, ExportIsTheModelFile) {
  MakeTestingCheckpoint(folder_, 50);
  const std::string path = root_ + "/model.safetensors";

  const auto model = ExportCheckpoint(Newest(), {path});

  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->files, ElementsAre(path));
  EXPECT_EQ(model->num_tensors, 4);
  EXPECT_EQ(model->num_bytes, 64);
  const auto file = SafetensorsFile::Read(path);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<std::string> tensors;
  for (const auto& entry : file->entries()) {
    tensors.push_back(absl::StrCat(entry.name, " ", ShapeString(entry.shape),
                                   " ",
                                   file->FloatValues(entry.name)->front()));
  }
  EXPECT_THAT(tensors,
              ElementsAre("block0.weight 2x3 50", "block0.bias 3 150",
                          "head.scale scalar 250", "head.weight 3x2 350"));
  EXPECT_EQ(file->metadata().at("format"), "deltapipe");
  EXPECT_EQ(file->metadata().at("step"), "50");
  EXPECT_EQ(file->metadata().at("spec"), "{\"name\":\"text\"}");
}

TEST_F(CheckpointFilesTest, ExportSpreadsOverFilesWithAnIndex) {
  MakeTestingCheckpoint(folder_, 50);
  fs::create_directories(root_ + "/out");
  ExportOptions options = {root_ + "/out/model.safetensors"};
  options.max_shard_bytes = 36;

  const auto model = ExportCheckpoint(Newest(), options);

  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(Names(root_ + "/out"),
              UnorderedElementsAre("model-00001-of-00002.safetensors",
                                   "model-00002-of-00002.safetensors",
                                   "model.safetensors.index.json"));
  const auto index = nlohmann::json::parse(
      ReadFile(root_ + "/out/model.safetensors.index.json").value());
  EXPECT_EQ(index["metadata"]["total_size"], 64);
  EXPECT_EQ(index["weight_map"].size(), 4);
  for (const auto& [name, file] : index["weight_map"].items()) {
    EXPECT_TRUE(SafetensorsFile::Read(root_ + "/out/" + file.get<std::string>())
                    ->Tensor(name)
                    .ok())
        << name;
  }
}

TEST_F(CheckpointFilesTest, ATensorLargerThanAShardHasItsOwn) {
  MakeTestingCheckpoint(folder_, 50);
  ExportOptions options = {root_ + "/model.safetensors"};
  options.max_shard_bytes = 1;

  EXPECT_EQ(ExportCheckpoint(Newest(), options)->files.size(), 5);
}

TEST_F(CheckpointFilesTest, ExportReplacesNothingUnasked) {
  MakeTestingCheckpoint(folder_, 50);
  ExportOptions options = {root_ + "/model.safetensors"};
  ASSERT_TRUE(WriteFileAtomically(options.output, "mine").ok());

  EXPECT_EQ(ExportCheckpoint(Newest(), options).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadFile(options.output).value(), "mine");

  options.may_replace = true;
  EXPECT_TRUE(ExportCheckpoint(Newest(), options).ok());
}

TEST_F(CheckpointFilesTest, ExportNeverWritesIntoTheCheckpoint) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  ExportOptions options = {path + "/stage-0.safetensors"};
  options.may_replace = true;

  EXPECT_EQ(ExportCheckpoint(Newest(), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(VerifyCheckpoint(Newest(), false).defects, IsEmpty());
}

TEST_F(CheckpointFilesTest, ExportOfADamagedShardIsRefused) {
  const std::string path = MakeTestingCheckpoint(folder_, 50);
  std::string text = ReadFile(path + "/stage-1.safetensors").value();
  text.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path + "/stage-1.safetensors", text).ok());

  EXPECT_EQ(ExportCheckpoint(Newest(), {root_ + "/m"}).status().code(),
            absl::StatusCode::kDataLoss);
  fs::remove(path + "/stage-1.safetensors");
  EXPECT_EQ(ExportCheckpoint(Newest(), {root_ + "/m"}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(root_ + "/m"));
}

TEST_F(CheckpointFilesTest, AFullDiskLeavesNoPartOfAnExport) {
  MakeTestingCheckpoint(folder_, 50);
  fs::create_directories(root_ + "/out");
  ExportOptions options = {root_ + "/out/model.safetensors"};
  options.max_shard_bytes = 24;
  // The first part has one tensor, the second has two and is longer: a limit
  // on file sizes fails that one, as a full disk does.
  struct rlimit former_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former_limit), 0);
  auto* former_handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = former_limit;
  limit.rlim_cur = 220;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);

  const absl::Status status = ExportCheckpoint(Newest(), options).status();

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &former_limit), 0);
  signal(SIGXFSZ, former_handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Names(root_ + "/out"), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
