#include "coordinator/background/checkpoint_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CheckpointBookShape TwoRanks() {
  CheckpointBookShape shape;
  shape.job_id = "text-1";
  shape.generation = 7;
  shape.num_stages = 2;
  shape.keep = 2;
  shape.spec_json = "{}";
  return shape;
}

v1::CheckpointShards Part(int rank, int64_t step) {
  v1::CheckpointShards part;
  part.set_step(step);
  part.set_time_millis(1000 + step);
  part.set_samples_applied(step * 32);
  part.set_seconds(rank + 1);
  v1::CheckpointFile* file = part.add_files();
  file->set_name(absl::StrCat("rank-", rank, ".safetensors"));
  file->set_bytes(100);
  file->set_digest("00000000000000ff");
  return part;
}

v1::CheckpointStored Stored(int64_t step) {
  v1::CheckpointStored stored;
  stored.set_step(step);
  return stored;
}

/// Both ranks' parts and answers.
std::optional<CompleteCheckpoint> Complete(CheckpointBook* book, int64_t step) {
  book->AddPart(0, Part(0, step), "");
  book->AddPart(1, Part(1, step), "");
  book->AddStored(0, Stored(step));
  return book->AddStored(1, Stored(step));
}

TEST(CheckpointBookTest, ManifestNamesAllPartsOnceAllHaveTold) {
  CheckpointBook book(TwoRanks());

  EXPECT_FALSE(book.AddPart(1, Part(1, 50), "{\"revision\":3}").has_value());
  const auto commit = book.AddPart(0, Part(0, 50), "{\"revision\":3}");

  ASSERT_TRUE(commit.has_value());
  EXPECT_THAT(commit->kept_folders(), ElementsAre("step-000000050-g7"));
  const auto manifest = ParseManifest(commit->manifest(), "test");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->step, 50);
  EXPECT_EQ(manifest->generation, 7u);
  EXPECT_EQ(manifest->samples_applied, 1600);
  EXPECT_EQ(manifest->tuning_json, "{\"revision\":3}");
  ASSERT_EQ(manifest->files.size(), 2u);
  EXPECT_EQ(manifest->files[1].name, "rank-1.safetensors");
  EXPECT_EQ(manifest->files[1].digest, 255u);
}

TEST(CheckpointBookTest, IsCompleteWhenAllHaveStoredIt) {
  CheckpointBook book(TwoRanks());
  book.AddPart(0, Part(0, 50), "");
  book.AddPart(1, Part(1, 50), "");

  EXPECT_FALSE(book.AddStored(0, Stored(50)).has_value());
  EXPECT_FALSE(book.AddStored(0, Stored(50)).has_value());
  const auto complete = book.AddStored(1, Stored(50));

  ASSERT_TRUE(complete.has_value());
  EXPECT_EQ(complete->folder.bytes(), 200);
  EXPECT_EQ(complete->seconds, 2);
  EXPECT_EQ(book.kept().size(), 1u);
}

TEST(CheckpointBookTest, KeepsTheNewestAndTellsWhich) {
  CheckpointBook book(TwoRanks());
  Complete(&book, 50);
  Complete(&book, 100);
  book.AddPart(0, Part(0, 150), "");

  const auto commit = book.AddPart(1, Part(1, 150), "");

  EXPECT_THAT(commit->kept_folders(),
              ElementsAre("step-000000100-g7", "step-000000150-g7"));
  // Those of before stay known until this one is complete.
  EXPECT_EQ(book.kept().front().step(), 50);
}

TEST(CheckpointBookTest, OneErrorMakesNoneAndIsTold) {
  CheckpointBook book(TwoRanks());
  v1::CheckpointShards failed = Part(0, 50);
  failed.clear_files();
  failed.set_error("cannot write: No space left on device");
  book.AddPart(0, failed, "");

  const auto commit = book.AddPart(1, Part(1, 50), "");

  ASSERT_TRUE(commit.has_value());
  EXPECT_EQ(commit->manifest(), "");
  EXPECT_THAT(book.TakeErrors(), HasSubstr("step 50: cannot write: No space"));
  EXPECT_EQ(book.TakeErrors(), "");
  EXPECT_TRUE(Complete(&book, 100).has_value());
}

TEST(CheckpointBookTest, ASuccessorMakesTheSameManifest) {
  CheckpointBook book(TwoRanks());
  Complete(&book, 50);
  book.AddPart(1, Part(1, 100), "");
  v1::JobProgress progress;
  book.Save(&progress);
  const auto expected = book.AddPart(0, Part(0, 100), "");
  v1::JobProgress later;
  book.Save(&later);

  CheckpointBook before(TwoRanks());
  EXPECT_TRUE(before.Load(progress, "").empty());
  const auto commit = before.AddPart(0, Part(0, 100), "");
  CheckpointBook after(TwoRanks());
  const auto again = after.Load(later, "");

  ASSERT_TRUE(commit.has_value());
  EXPECT_EQ(commit->SerializeAsString(), expected->SerializeAsString());
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].SerializeAsString(), expected->SerializeAsString());
}

}  // namespace
}  // namespace deltapipe
