#include "compression/delta/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kRecordBytes = 1000;

std::shared_ptr<RecordFile> NewFile(int64_t record_bytes = kRecordBytes) {
  return RecordFile::Create(testing::TempDir() + "/records", record_bytes)
      .value();
}

void Fill(Record* record, uint8_t content) {
  std::memset(record->values.data(), content,
              static_cast<size_t>(record->values.size()));
}

bool Holds(const Record& record, uint8_t content) {
  for (const uint8_t byte : record.values.span()) {
    if (byte != content) return false;
  }
  return true;
}

TEST(RecordFileTest, RecordsKeepWhatIsWrittenWhileOthersComeAndGo) {
  const auto file = NewFile();
  std::mt19937 random(3);
  std::vector<std::pair<uint8_t, std::shared_ptr<Record>>> held;
  for (uint32_t version = 1; version < 5000; ++version) {
    auto record = file->New(version);
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_EQ((*record)->version, version);
    EXPECT_EQ((*record)->values.size(), kRecordBytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*record)->values.data()) % 64, 0u);
    const auto content = static_cast<uint8_t>(random());
    Fill(record->get(), content);
    held.emplace_back(content, *std::move(record));
    if (held.size() > 200) {
      const size_t index = random() % held.size();
      ASSERT_TRUE(Holds(*held[index].second, held[index].first));
      held.erase(held.begin() + static_cast<long>(index));
    }
  }
  for (const auto& [content, record] : held) {
    file->Prefetch(*record);
    EXPECT_TRUE(Holds(*record, content));
  }
  // 200 records at a time fit one chunk, and places are used again.
  EXPECT_LE(file->bytes(), int64_t{16} << 20);
}

TEST(RecordFileTest, GrowsByChunksAndKeepsWhatIsThere) {
  const auto file = NewFile(int64_t{1} << 20);
  std::vector<std::shared_ptr<Record>> held;
  for (uint8_t i = 0; i < 40; ++i) {
    held.push_back(*file->New(i + 1));
    Fill(held.back().get(), i);
  }

  EXPECT_EQ(file->bytes(), int64_t{48} << 20);
  for (uint8_t i = 0; i < 40; ++i) EXPECT_TRUE(Holds(*held[i], i));
}

TEST(RecordFileTest, OneRecordMayBeLargerThanAChunk) {
  const auto file = NewFile((int64_t{16} << 20) + 1);
  const auto record = *file->New(1);
  Fill(record.get(), 7);
  EXPECT_TRUE(Holds(*record, 7));
}

TEST(RecordFileTest, ARecordOutlivesWhoMadeTheFile) {
  auto file = NewFile();
  const auto record = *file->New(1);
  Fill(record.get(), 9);
  file.reset();
  EXPECT_TRUE(Holds(*record, 9));
}

TEST(RecordFileTest, LeavesNoNameBehind) {
  const std::string folder = testing::TempDir() + "/nameless";
  const auto file = RecordFile::Create(folder, kRecordBytes);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->New(1).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(RecordFileTest, AFullDiskIsAnErrorWithTheRemedy) {
  const auto file = NewFile();
  const auto kept = *file->New(1);
  Fill(kept.get(), 5);
  // A process that may not make files this large sees what a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit former = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former), 0);
  rlimit low = former;
  low.rlim_cur = rlim_t{20} << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
  std::vector<std::shared_ptr<Record>> held;
  absl::Status status;
  while (status.ok() && held.size() < 100000) {
    auto record = file->New(2);
    status = record.status();
    if (record.ok()) held.push_back(*std::move(record));
  }
  setrlimit(RLIMIT_FSIZE, &former);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("/records"),
                    HasSubstr("lower compression.state_memory")));
  EXPECT_TRUE(Holds(*kept, 5));
  // Places that are free again need no disk.
  held.pop_back();
  EXPECT_TRUE(file->New(3).ok());
}

TEST(RecordFileTest, AFolderThatCannotBeIsNamed) {
  const auto file = RecordFile::Create("/proc/nothing/here", kRecordBytes);
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(std::string(file.status().message()),
              HasSubstr("/proc/nothing/here"));
  EXPECT_EQ(RecordFile::Create(testing::TempDir(), 0).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
