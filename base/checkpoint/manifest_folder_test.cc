// Checkpoints on the disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/thread.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

class CheckpointFolderTest : public testing::Test {
 protected:
  CheckpointFolderTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/manifest_folder_test_" + test->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CheckpointFolderTest() override { fs::remove_all(folder_); }

  std::string Path(int64_t step, uint64_t generation = 1) {
    return folder_ + "/" + CheckpointFolderName(step, generation);
  }

  CheckpointManifest Manifest(int64_t step, uint64_t generation = 1) {
    CheckpointManifest manifest;
    manifest.step = step;
    manifest.generation = generation;
    manifest.num_stages = manifest.num_replicas = 1;
    return manifest;
  }

  /// A checkpoint with one file; returns its manifest.
  CheckpointManifest Make(int64_t step, uint64_t generation = 1) {
    const std::string path = Path(step, generation);
    fs::create_directories(path);
    Write(path + "/stage-0.safetensors", absl::StrCat("weights ", step));
    CheckpointManifest manifest = Manifest(step, generation);
    manifest.files = {DigestFile(path, "stage-0.safetensors").value()};
    const absl::Status status = StoreManifest(path, FormatManifest(manifest));
    EXPECT_TRUE(status.ok()) << status;
    return manifest;
  }

  static void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(path, text).ok());
  }

  std::vector<int64_t> Steps() {
    std::vector<int64_t> steps;
    const CheckpointScan scan = ScanCheckpoints(folder_).value();
    for (const FoundCheckpoint& found : scan.checkpoints) {
      steps.push_back(found.manifest.step);
    }
    return steps;
  }

  static std::vector<std::string> Names(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::string folder_;
};

TEST_F(CheckpointFolderTest, ScanGivesTheNewestFirst) {
  Make(50, 2);
  Make(100, 1);
  Make(50, 10);

  const CheckpointScan scan = ScanCheckpoints(folder_ + "/").value();

  ASSERT_EQ(scan.checkpoints.size(), 3);
  EXPECT_EQ(scan.checkpoints[0].path, Path(100, 1));
  EXPECT_EQ(scan.checkpoints[1].path, Path(50, 10));
  EXPECT_EQ(scan.checkpoints[2].path, Path(50, 2));
  EXPECT_THAT(scan.refused, IsEmpty());
}

TEST_F(CheckpointFolderTest, ScanOfNoFolderIsEmpty) {
  EXPECT_THAT(ScanCheckpoints(folder_ + "/none").value().checkpoints,
              IsEmpty());
}

TEST_F(CheckpointFolderTest, ScanOfAFileIsAnError) {
  Write(folder_ + "/file", "");

  EXPECT_EQ(ScanCheckpoints(folder_ + "/file").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(CheckpointFolderTest, ScanLeavesOutWhatIsBeingWrittenAndStrangers) {
  fs::create_directories(Path(150));
  fs::create_directories(folder_ + "/notes");
  Write(folder_ + "/README", "");

  const CheckpointScan scan = ScanCheckpoints(folder_).value();

  EXPECT_THAT(scan.checkpoints, IsEmpty());
  EXPECT_THAT(scan.refused, IsEmpty());
}

TEST_F(CheckpointFolderTest, ScanRefusesATornManifestAndKeepsTheOlder) {
  Make(50);
  Make(100);
  fs::resize_file(Path(100) + "/manifest.json", 100);

  const CheckpointScan scan = ScanCheckpoints(folder_).value();

  EXPECT_THAT(Steps(), ElementsAre(50));
  EXPECT_THAT(scan.refused,
              ElementsAre(AllOf(HasSubstr(Path(100) + "/manifest.json"),
                                HasSubstr("torn"))));
}

TEST_F(CheckpointFolderTest, ScanRefusesAManifestOfAnotherStep) {
  Make(50);
  fs::create_directories(Path(100));
  fs::copy_file(Path(50) + "/manifest.json", Path(100) + "/manifest.json");

  EXPECT_THAT(ScanCheckpoints(folder_).value().refused,
              ElementsAre(HasSubstr("that of step-000000050-g1")));
}

TEST_F(CheckpointFolderTest, ScanRefusesLinksFilesAndPipes) {
  Make(50);
  fs::create_directory_symlink(Path(50), Path(50, 2));
  Write(Path(60), "");
  fs::create_directories(Path(70));
  fs::create_symlink(Path(50) + "/manifest.json", Path(70) + "/manifest.json");
  fs::create_directories(Path(80));
  ASSERT_EQ(mkfifo((Path(80) + "/manifest.json").c_str(), 0600), 0);

  const CheckpointScan scan = ScanCheckpoints(folder_).value();

  EXPECT_THAT(Steps(), ElementsAre(50));
  EXPECT_THAT(scan.refused,
              UnorderedElementsAre(
                  AllOf(HasSubstr(Path(50, 2)), HasSubstr("link")),
                  AllOf(HasSubstr(Path(60)), HasSubstr("no folder")),
                  AllOf(HasSubstr(Path(70)), HasSubstr("expected a file")),
                  AllOf(HasSubstr(Path(80)), HasSubstr("expected a file"))));
}

TEST_F(CheckpointFolderTest, DigestIsThatOfTheBytes) {
  const std::string text(3000000, 'x');
  Write(folder_ + "/f", text);

  const ManifestFile file = DigestFile(folder_, "f").value();

  EXPECT_EQ(file.name, "f");
  EXPECT_EQ(file.bytes, 3000000);
  EXPECT_EQ(
      file.digest,
      Checksum({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
}

TEST_F(CheckpointFolderTest, DigestRefusesOtherFolders) {
  EXPECT_EQ(DigestFile(folder_, "../f").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointFolderTest, VerifyTellsWholeFromDamagedAndMissing) {
  const ManifestFile file = Make(50).files[0];
  const std::string path = Path(50) + "/" + file.name;

  EXPECT_TRUE(VerifyCheckpointFile(Path(50), file).ok());

  Write(path, "weights 51");
  EXPECT_EQ(VerifyCheckpointFile(Path(50), file).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(VerifyCheckpointFile(Path(50), file)),
              AllOf(HasSubstr(path), HasSubstr("expected 10 bytes of digest")));

  Write(path, "weights");
  EXPECT_THAT(Message(VerifyCheckpointFile(Path(50), file)),
              HasSubstr("expected 10 bytes, got 7"));

  fs::remove(path);
  EXPECT_EQ(VerifyCheckpointFile(Path(50), file).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(CheckpointFolderTest, EveryTruncationAndBitFlipOfAFileIsFound) {
  const ManifestFile file = Make(50).files[0];
  const std::string path = Path(50) + "/" + file.name;
  const std::string whole = ReadFile(path).value();

  for (size_t size = 0; size < whole.size(); ++size) {
    Write(path, whole.substr(0, size));
    EXPECT_FALSE(VerifyCheckpointFile(Path(50), file).ok()) << size;
  }
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string changed = whole;
    changed[bit / 8] ^= static_cast<char>(1 << bit % 8);
    Write(path, changed);
    EXPECT_FALSE(VerifyCheckpointFile(Path(50), file).ok()) << bit;
  }
}

TEST_F(CheckpointFolderTest, VerifyFollowsNoLinkAndNoPath) {
  ManifestFile file = Make(50).files[0];
  const std::string path = Path(50) + "/" + file.name;
  fs::rename(path, folder_ + "/elsewhere");
  fs::create_symlink(folder_ + "/elsewhere", path);

  EXPECT_EQ(VerifyCheckpointFile(Path(50), file).code(),
            absl::StatusCode::kDataLoss);

  file.name = "../elsewhere";
  EXPECT_EQ(VerifyCheckpointFile(Path(50), file).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointFolderTest, StoringTheSameAgainIsFine) {
  const std::string text = FormatManifest(Make(50));

  EXPECT_TRUE(StoreManifest(Path(50) + "/", text).ok());
  EXPECT_THAT(Names(Path(50)),
              UnorderedElementsAre("manifest.json", "stage-0.safetensors"));
}

TEST_F(CheckpointFolderTest, StoringAnotherIsRefused) {
  CheckpointManifest manifest = Make(50);
  const std::string former = ReadFile(Path(50) + "/manifest.json").value();
  manifest.samples_applied = 1;

  const absl::Status status = StoreManifest(Path(50), FormatManifest(manifest));

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("another one already"));
  EXPECT_EQ(ReadFile(Path(50) + "/manifest.json").value(), former);
  EXPECT_EQ(Names(Path(50)).size(), 2) << "no temporary file stays";
}

TEST_F(CheckpointFolderTest, StoringWhatIsNoManifestOfTheFolderIsRefused) {
  fs::create_directories(Path(50));

  EXPECT_EQ(StoreManifest(Path(50), "{}").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(StoreManifest(Path(50), FormatManifest(Manifest(60)))),
              HasSubstr("that of step-000000060-g1"));
  EXPECT_THAT(Names(Path(50)), IsEmpty());
}

TEST_F(CheckpointFolderTest, StoringIntoALinkIsRefused) {
  fs::create_directories(folder_ + "/elsewhere");
  fs::create_directory_symlink(folder_ + "/elsewhere", Path(50));

  EXPECT_EQ(StoreManifest(Path(50) + "/", FormatManifest(Manifest(50))).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Names(folder_ + "/elsewhere"), IsEmpty());
}

TEST_F(CheckpointFolderTest, SeveralStoreTheSameAtTheSameTime) {
  fs::create_directories(Path(50));
  const std::string text = FormatManifest(Manifest(50));
  std::vector<absl::Status> results(8);
  {
    std::vector<Thread> threads;
    for (size_t i = 0; i < results.size(); ++i) {
      threads.emplace_back(
          "store", [&, i] { results[i] = StoreManifest(Path(50), text); });
    }
  }

  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(Names(Path(50)), ElementsAre("manifest.json"));
}

TEST_F(CheckpointFolderTest, AFullDiskLeavesNoManifestAndTheOlderCheckpoint) {
  Make(50);
  fs::create_directories(Path(100));
  CheckpointManifest manifest = Manifest(100);
  manifest.spec_json = std::string(5000, 'x');
  // A limit on file sizes fails the write half-way, as a full disk does.
  struct rlimit former_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former_limit), 0);
  auto* former_handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = former_limit;
  limit.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);

  const absl::Status status =
      StoreManifest(Path(100), FormatManifest(manifest));

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &former_limit), 0);
  signal(SIGXFSZ, former_handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr(Path(100) + "/manifest.json"));
  EXPECT_THAT(Names(Path(100)), IsEmpty());
  EXPECT_THAT(Steps(), ElementsAre(50));
}

TEST_F(CheckpointFolderTest, RemovesOlderOnesThatAreNotKept) {
  for (const int64_t step : {10, 20, 30, 40, 50}) Make(step);
  fs::create_directories(Path(15));  // was never finished
  Write(Path(15) + "/rank-3.safetensors", "half");
  Write(Path(15) + "/rank-0.safetensors.tmp-77-0", "half");
  fs::create_directories(Path(60));  // is being written

  ASSERT_TRUE(RemoveOldCheckpoints(folder_, {CheckpointFolderName(40, 1),
                                             CheckpointFolderName(20, 1)})
                  .ok());

  EXPECT_THAT(Steps(), ElementsAre(50, 40, 20));
  EXPECT_TRUE(fs::exists(Path(60)));
  EXPECT_FALSE(fs::exists(Path(15)));
  EXPECT_FALSE(fs::exists(Path(10)));
}

TEST_F(CheckpointFolderTest, OlderGenerationsOfAStepAreOlder) {
  Make(50, 1);
  Make(50, 2);

  ASSERT_TRUE(
      RemoveOldCheckpoints(folder_, {CheckpointFolderName(50, 2)}).ok());

  EXPECT_THAT(Names(folder_), ElementsAre(CheckpointFolderName(50, 2)));
}

TEST_F(CheckpointFolderTest, RemovesNothingIfNoneOfTheKeptIsThere) {
  Make(10);
  fs::create_directories(Path(50));

  const absl::Status status =
      RemoveOldCheckpoints(folder_, {CheckpointFolderName(50, 1)});

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("the old ones stay"));
  EXPECT_TRUE(RemoveOldCheckpoints(folder_, {}).ok());
  EXPECT_THAT(Steps(), ElementsAre(10));
}

TEST_F(CheckpointFolderTest, RemovalRefusesBadNames) {
  EXPECT_EQ(RemoveOldCheckpoints(folder_, {"../x"}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RemoveCheckpoint(folder_).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointFolderTest, RemovalNeverTouchesStrangersFiles) {
  Make(10);
  Make(50);
  Write(Path(10) + "/notes.txt", "mine");
  Write(Path(10) + "/mine.safetensors", "mine");
  fs::create_directories(Path(10) + "/rank-9.safetensors");
  Write(Path(10) + "/rank-9.safetensors/inside", "mine");
  Write(folder_ + "/elsewhere", "mine");
  fs::create_symlink(folder_ + "/elsewhere", Path(10) + "/rank-1.safetensors");
  fs::create_directories(folder_ + "/step-1-old");
  Write(folder_ + "/step-1-old/stage-0.safetensors", "mine");
  Write(Path(20), "a file");

  ASSERT_TRUE(
      RemoveOldCheckpoints(folder_, {CheckpointFolderName(50, 1)}).ok());

  EXPECT_THAT(Steps(), ElementsAre(50));
  EXPECT_THAT(Names(Path(10)),
              UnorderedElementsAre("notes.txt", "mine.safetensors",
                                   "rank-9.safetensors", "rank-1.safetensors"));
  EXPECT_EQ(ReadFile(folder_ + "/elsewhere").value(), "mine");
  EXPECT_TRUE(fs::exists(Path(10) + "/rank-9.safetensors/inside"));
  EXPECT_TRUE(fs::exists(folder_ + "/step-1-old/stage-0.safetensors"));
  EXPECT_TRUE(fs::exists(Path(20)));
}

TEST_F(CheckpointFolderTest, RemovalFollowsNoLinkInPlaceOfAFolder) {
  Make(50);
  const std::string elsewhere = folder_ + "/elsewhere";
  fs::create_directories(elsewhere);
  Write(elsewhere + "/stage-0.safetensors", "mine");
  fs::create_directory_symlink(elsewhere, Path(10));

  EXPECT_TRUE(
      RemoveOldCheckpoints(folder_, {CheckpointFolderName(50, 1)}).ok());
  EXPECT_EQ(RemoveCheckpoint(Path(10) + "/").code(),
            absl::StatusCode::kFailedPrecondition);

  EXPECT_TRUE(fs::exists(elsewhere + "/stage-0.safetensors"));
  EXPECT_TRUE(fs::is_symlink(Path(10)));
}

TEST_F(CheckpointFolderTest, RemovesOne) {
  Make(50);

  EXPECT_TRUE(RemoveCheckpoint(Path(50) + "/").ok());

  EXPECT_FALSE(fs::exists(Path(50)));
  EXPECT_EQ(RemoveCheckpoint(Path(50)).code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointFolderTest, SeveralRemoveTheSameAtTheSameTime) {
  for (int64_t step = 1; step <= 40; ++step) Make(step);
  std::vector<absl::Status> results(8);
  {
    std::vector<Thread> threads;
    for (absl::Status& result : results) {
      threads.emplace_back("remove", [&] {
        result = RemoveOldCheckpoints(folder_, {CheckpointFolderName(40, 1)});
      });
    }
  }

  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(Names(folder_), ElementsAre(CheckpointFolderName(40, 1)));
}

TEST_F(CheckpointFolderTest, AHostsFolderHasTheManifestAndItsOwnFiles) {
  // Two hosts, each with its disk: one manifest, other files.
  const std::string name = CheckpointFolderName(50, 1);
  CheckpointManifest manifest = Manifest(50);
  for (const char* host : {"a", "b"}) {
    const std::string path = absl::StrCat(folder_, "/", host, "/", name);
    const std::string file =
        absl::StrCat("rank-", host[0] - 'a', ".safetensors");
    fs::create_directories(path);
    Write(path + "/" + file, host);
    manifest.files.push_back(DigestFile(path, file).value());
  }
  for (const char* host : {"a", "b"}) {
    ASSERT_TRUE(StoreManifest(absl::StrCat(folder_, "/", host, "/", name),
                              FormatManifest(manifest))
                    .ok());
  }

  const auto on_b = ScanCheckpoints(folder_ + "/b").value().checkpoints;

  ASSERT_EQ(on_b.size(), 1);
  EXPECT_EQ(VerifyCheckpointFile(on_b[0].path, manifest.files[0]).code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(VerifyCheckpointFile(on_b[0].path, manifest.files[1]).ok());
}

}  // namespace
}  // namespace deltapipe
