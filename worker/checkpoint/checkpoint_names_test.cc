// What a checkpoint's writer makes of names that the coordinator sends. How
// checkpoints are written and read is tested with whole jobs:
// tests/integration/checkpoint_test.cc.
#include <filesystem>
#include <string>
#include <vector>

#include "base/checkpoint/manifest.h"
#include "base/file.h"
#include "base/log.h"
#include "base/temporary_folder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/checkpoint/checkpoint_writer.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// FOLDER/checkpoints, where the writer writes, and FOLDER/outside.
class CheckpointNamesTest : public ::testing::Test {
 protected:
  CheckpointNamesTest()
      : temporary_(TemporaryFolder::Create("writer").value()),
        folder_(temporary_.File("checkpoints")),
        outside_(temporary_.File("outside")) {
    fs::create_directories(folder_ + "/" + CheckpointFolderName(10, 1));
    fs::create_directories(outside_);
    EXPECT_TRUE(WriteFileAtomically(outside_ + "/mine", "mine").ok());
    manifest_.job_id = "text-1";
    manifest_.generation = 1;
    manifest_.step = 10;
    manifest_.num_stages = 1;
    manifest_.num_replicas = 1;
    manifest_.spec_json = "{}";
    manifest_.tuning_json = "{}";
  }

  /// What the writer says to a commit that keeps these folders.
  v1::CheckpointStored Commit(const std::vector<std::string>& kept) {
    v1::CheckpointStored told;
    SetLogSink(
        [this](LogLevel, const std::string& text) { lines_.push_back(text); });
    {
      CheckpointWriterOptions options;
      options.folder = folder_;
      options.job_id = "text-1";
      options.generation = 1;
      options.send = [&](v1::WorkerMessage message) {
        told = message.stored();
      };
      CheckpointWriter writer(std::move(options));
      v1::CommitCheckpoint commit;
      commit.set_job_id("text-1");
      commit.set_generation(1);
      commit.set_step(10);
      commit.set_manifest(FormatManifest(manifest_));
      for (const std::string& name : kept) commit.add_kept_folders(name);
      writer.Commit(commit);
      writer.WaitForCommit(10, Deadline::After(std::chrono::seconds(30)))
          .IgnoreError();  // what was told says it, too
    }
    SetLogSink(nullptr);
    return told;
  }

  const TemporaryFolder temporary_;
  const std::string folder_, outside_;
  CheckpointManifest manifest_;
  std::vector<std::string> lines_;
};

TEST_F(CheckpointNamesTest, AKeptFolderElsewhereIsRefusedAndLogged) {
  EXPECT_EQ(Commit({"../outside"}).error(), "");

  EXPECT_THAT(lines_, ElementsAre(HasSubstr("old checkpoints stay: ")));
  EXPECT_THAT(lines_[0], HasSubstr("../outside"));
  EXPECT_TRUE(fs::exists(outside_ + "/mine"));
}

TEST_F(CheckpointNamesTest, AManifestThatNamesAFileElsewhereIsRefusedAndTold) {
  manifest_.files.push_back({"../../outside/mine", 4, 7});

  EXPECT_THAT(Commit({}).error(), HasSubstr("../../outside/mine"));

  EXPECT_TRUE(fs::is_empty(fs::path(folder_) / CheckpointFolderName(10, 1)));
}

}  // namespace
}  // namespace deltapipe
