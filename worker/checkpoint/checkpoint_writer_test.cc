// How much of a checkpoint is held beside training. The writer's thread is held
// up where it tells the coordinator of a part, which it still holds then.
#include "worker/checkpoint/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/temporary_folder.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A wait that is sure to be in vain while the writer is held up.
constexpr std::chrono::milliseconds kInVain{30};

class CheckpointWriterTest : public ::testing::Test {
 protected:
  void SetUp() override { bytes_ = StateBytes(*PartOf(1).stage_state); }
  ~CheckpointWriterTest() override { Release(); }

  static CheckpointPart PartOf(int64_t step, int num_elements = 1000) {
    CheckpointPart part;
    part.step = step;
    part.stage_state.emplace();
    part.stage_state->weights.resize(static_cast<size_t>(num_elements), 1.0f);
    part.begin = std::chrono::steady_clock::now();
    return part;
  }
  void Make(int64_t staging_bytes, int num_elements = 1000) {
    CheckpointWriterOptions options;
    options.folder = folder_.path() + "/checkpoints";
    options.job_id = "text-1";
    options.layout.segments.resize(1);
    options.layout.segments[0].name = "a";
    options.layout.segments[0].shape = {num_elements};
    options.layout.segments[0].num_elements = num_elements;
    options.layout.num_elements = num_elements;
    options.staging_bytes = staging_bytes;
    options.send = [this](const v1::WorkerMessage& message) {
      MutexLock lock(&mutex_);
      told_.push_back(message.shards());
      changed_.NotifyAll();
      changed_.Wait(lock, [this] { return !is_held_up_; });
    };
    writer_ = std::make_unique<CheckpointWriter>(std::move(options));
  }
  void HoldUp() {
    MutexLock lock(&mutex_);
    is_held_up_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    is_held_up_ = false;
    changed_.NotifyAll();
  }
  void AwaitTold(size_t count) {
    MutexLock lock(&mutex_);
    ASSERT_TRUE(changed_.WaitUntil(lock, Soon(),
                                   [&] { return told_.size() >= count; }));
  }
  std::vector<int64_t> StepsTold() {
    MutexLock lock(&mutex_);
    std::vector<int64_t> steps;
    for (const v1::CheckpointShards& shards : told_) {
      steps.push_back(shards.step());
    }
    return steps;
  }
  v1::CheckpointShards Told(size_t index) {
    MutexLock lock(&mutex_);
    return told_.at(index);
  }
  static Deadline Soon() { return Deadline::After(seconds(60)); }

  const TemporaryFolder folder_ =
      TemporaryFolder::Create("checkpoint_writer").value();
  int64_t bytes_ = 0;
  Mutex mutex_;
  CondVar changed_;
  bool is_held_up_ DP_GUARDED_BY(mutex_) = false;
  std::vector<v1::CheckpointShards> told_ DP_GUARDED_BY(mutex_);
  /// Destroyed first: it calls into the above.
  std::unique_ptr<CheckpointWriter> writer_;
};

TEST_F(CheckpointWriterTest, APartOfTheBoundIsWrittenBesideTraining) {
  Make(bytes_);
  HoldUp();

  ASSERT_TRUE(writer_->Write(PartOf(1), Soon()).ok());

  EXPECT_EQ(writer_->staged_bytes(), bytes_);
  Release();
  AwaitTold(1);
  EXPECT_TRUE(Told(0).error().empty()) << Told(0).error();
  EXPECT_LT(Told(0).stall_seconds(), Told(0).seconds());
}

TEST_F(CheckpointWriterTest, TheNextPartWaitsUntilTheFormerHasLeftMemory) {
  Make(bytes_);
  HoldUp();
  ASSERT_TRUE(writer_->Write(PartOf(1), Soon()).ok());
  AwaitTold(1);  // its files are written, its copy is still held

  const absl::Status late = writer_->Write(PartOf(2), Deadline::After(kInVain));

  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("(step 2)"));
  EXPECT_EQ(writer_->staged_bytes(), bytes_) << "both are held";
  Release();
  ASSERT_TRUE(writer_->Write(PartOf(3), Soon()).ok());
  AwaitTold(2);
  EXPECT_THAT(StepsTold(), ElementsAre(1, 3));
}

TEST_F(CheckpointWriterTest, APartAboveTheBoundGoesAloneWhileTrainingWaits) {
  Make(bytes_ - 1);

  ASSERT_TRUE(writer_->Write(PartOf(1), Soon()).ok());

  EXPECT_EQ(writer_->staged_bytes(), 0) << "training goes on with none held";
  EXPECT_THAT(StepsTold(), ElementsAre(1));
  EXPECT_TRUE(Told(0).error().empty()) << Told(0).error();
}

// The wait for the disk was left out.
TEST_F(CheckpointWriterTest, TheWaitForAPartAboveTheBoundIsTold) {
  Make(bytes_ - 1);

  ASSERT_TRUE(writer_->Write(PartOf(1), Soon()).ok());

  EXPECT_GT(Told(0).seconds(), 0);
  EXPECT_EQ(Told(0).stall_seconds(), Told(0).seconds());
}

TEST_F(CheckpointWriterTest, APartAboveTheBoundThatTheDiskDoesNotTakeIsLate) {
  Make(bytes_ - 1);
  HoldUp();

  const absl::Status late = writer_->Write(PartOf(1), Deadline::After(kInVain));

  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("(step 1)"));
}

TEST_F(CheckpointWriterTest, AnInterruptedWriterGivesItsBytesBack) {
  Make(bytes_ - 1);
  HoldUp();
  absl::Status answer;
  Thread training("training",
                  [&] { answer = writer_->Write(PartOf(1), Soon()); });
  AwaitTold(1);
  EXPECT_EQ(writer_->staged_bytes(), bytes_);

  writer_->Cancel(absl::CancelledError("the job was stopped"));
  training.Join();
  Release();

  EXPECT_EQ(answer.code(), absl::StatusCode::kCancelled);
  // What comes next is refused and not held.
  EXPECT_EQ(writer_->Write(PartOf(2), Soon()).code(),
            absl::StatusCode::kCancelled);
  const Deadline end = Soon();
  while (writer_->staged_bytes() != 0 && !end.has_passed()) {
  }
  EXPECT_EQ(writer_->staged_bytes(), 0);
}

TEST_F(CheckpointWriterTest, AFailedWriteGivesItsBytesBack) {
  ASSERT_TRUE(WriteFileAtomically(folder_.path() + "/checkpoints", "x").ok());
  Make(bytes_ - 1);

  ASSERT_TRUE(writer_->Write(PartOf(1), Soon()).ok());

  EXPECT_EQ(writer_->staged_bytes(), 0);
  EXPECT_FALSE(Told(0).error().empty()) << "a file is where its folder goes";
}

}  // namespace
}  // namespace deltapipe
