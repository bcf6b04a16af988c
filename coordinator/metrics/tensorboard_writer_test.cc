#include "coordinator/metrics/tensorboard_writer.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/little_endian.h"
#include "base/log.h"
#include "coordinator/metrics/event_file.h"
#include "coordinator/metrics/testing/demo_job.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::vector<std::string> FilesOf(const std::string& path) {
  std::vector<std::string> names;
  DIR* const folder = opendir(path.c_str());
  if (folder == nullptr) return names;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  closedir(folder);
  return names;
}

/// The payloads of a file whose framing is right.
std::vector<std::string> Payloads(const std::string& file) {
  std::vector<std::string> payloads;
  size_t at = 0;
  while (at + 16 <= file.size()) {
    const auto size = LoadLittleEndian<uint64_t>(
        reinterpret_cast<const uint8_t*>(file.data() + at));
    const std::string payload = file.substr(at + 12, size);
    EXPECT_EQ(file.substr(at, size + 16), EventRecord(payload));
    payloads.push_back(payload);
    at += size + 16;
  }
  EXPECT_EQ(at, file.size());
  return payloads;
}

class TensorBoardWriterTest : public ::testing::Test {
 protected:
  TensorBoardWriterTest() {
    const char* const base = getenv("TEST_TMPDIR");
    folder_ = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    clock_.Advance(seconds(1700000000));
    writer_ = *TensorBoardWriter::Create(folder_, &clock_);
  }
  std::string OnlyFile(const std::string& job) const {
    const std::string folder = absl::StrCat(folder_, "/", job);
    const std::vector<std::string> names = FilesOf(folder);
    EXPECT_THAT(names, SizeIs(1));
    return names.empty() ? "" : *ReadFile(folder + "/" + names[0]);
  }

  std::string folder_;
  FakeClock clock_;
  std::unique_ptr<TensorBoardWriter> writer_;
};

TEST_F(TensorBoardWriterTest, WritesAFilePerJobWithOneEventPerReport) {
  DemoJob job("text-1", 2, 2, writer_.get());
  job.Start();
  job.Step(0.5);
  job.Checkpoint();
  ASSERT_TRUE(writer_->Flush().ok());

  EXPECT_THAT(FilesOf(folder_ + "/text-1"),
              ElementsAre(StartsWith("events.out.tfevents.1700000000.")));
  const std::vector<std::string> events = Payloads(OnlyFile("text-1"));
  // Version, two stages, the step, the checkpoint.
  ASSERT_THAT(events, SizeIs(5));
  EXPECT_EQ(events[0], VersionEvent(1700000000));
  EXPECT_THAT(events[1], HasSubstr("stage_0/compute_seconds"));
  EXPECT_THAT(events[3], HasSubstr("train/loss"));
  EXPECT_EQ(events[4], ScalarsEvent(1700000000, 1,
                                    {{"checkpoint/bytes", 38200000.f},
                                     {"checkpoint/seconds", 0.4f},
                                     {"checkpoint/stall_seconds", 0.01f}}));
}

TEST_F(TensorBoardWriterTest, WritesEveryFewSeconds) {
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();
  job.Step(0.5);
  clock_.AwaitSleepers(1);
  EXPECT_THAT(FilesOf(folder_), IsEmpty());

  clock_.Advance(milliseconds(TensorBoardWriter::kFlushMillis));
  // Asleep again: it has written.
  clock_.AwaitSleepers(1);

  EXPECT_THAT(Payloads(OnlyFile("text-1")), SizeIs(3));
}

TEST_F(TensorBoardWriterTest, WritesWhatIsWaitingWhenItEnds) {
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();
  job.Step(0.5);

  writer_.reset();

  EXPECT_THAT(Payloads(OnlyFile("text-1")), SizeIs(3));
}

TEST_F(TensorBoardWriterTest, ARestartTakesBackTheStepsAfterIt) {
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();
  job.Step(0.5);
  job.Checkpoint();
  job.Step(0.5);
  job.Restart();
  ASSERT_TRUE(writer_->Flush().ok());

  EXPECT_EQ(Payloads(OnlyFile("text-1")).back(), RestartEvent(1700000000, 2));
}

TEST_F(TensorBoardWriterTest, AnEndedJobsFileIsClosedAndANewStartMakesAnother) {
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();
  job.Change(v1::JOB_STATE_CANCELLED, "enough");
  ASSERT_TRUE(writer_->Flush().ok());
  job.Step(0.5);
  job.Start();
  ASSERT_TRUE(writer_->Flush().ok());

  EXPECT_THAT(FilesOf(folder_ + "/text-1"), SizeIs(2));
}

TEST_F(TensorBoardWriterTest, AJobsNameCannotLeaveTheFolderAndThatIsLogged) {
  DemoJob job("../../x-1", 1, 1, writer_.get());
  std::string line;
  SetLogSink([&](LogLevel, const std::string& text) { line = text; });

  job.Start();
  SetLogSink(nullptr);
  ASSERT_TRUE(writer_->Flush().ok());

  EXPECT_EQ(line,
            "refused a folder named like the job '../../x-1' for TensorBoard: "
            "it is ______x-1");

  EXPECT_THAT(FilesOf(folder_), ElementsAre("______x-1"));
}

TEST_F(TensorBoardWriterTest, ADiskThatRefusesIsAnErrorOfFlush) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/text-1", "in the way").ok());
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();

  const absl::Status status = writer_->Flush();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/text-1"));
}

TEST_F(TensorBoardWriterTest, AFolderThatCannotBeMadeIsAnError) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/file", "in the way").ok());

  const auto writer = TensorBoardWriter::Create(folder_ + "/file/x", &clock_);

  EXPECT_FALSE(writer.ok());
  EXPECT_THAT(std::string(writer.status().message()),
              StartsWith("cannot write for TensorBoard: "));
}

TEST_F(TensorBoardWriterTest, SavedActivationsAreScalarsWhereTheyArePacked) {
  DemoJob job("text-1", 1, 1, writer_.get());
  job.Start();
  job.Step(0.5);
  job.PackActivations();
  job.Step(0.5);
  ASSERT_TRUE(writer_->Flush().ok());

  const std::vector<std::string> events = Payloads(OnlyFile("text-1"));
  ASSERT_THAT(events, SizeIs(5));  // version, twice a stage and the step
  EXPECT_THAT(events[1], Not(HasSubstr("saved_")));
  EXPECT_THAT(events[3], HasSubstr("stage_0/saved_peak_bytes"));
  EXPECT_THAT(events[3], HasSubstr("stage_0/saved_ratio"));
}

}  // namespace
}  // namespace deltapipe
