#include "base/safetensors_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/file.h"
#include "base/safetensors.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

struct Tensor {
  SafetensorsDeclaration declaration;
  std::vector<uint8_t> bytes;
};

class SafetensorsStreamTest : public testing::Test {
 protected:
  SafetensorsStreamTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/safetensors_stream_test_" + test->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    path_ = folder_ + "/x.safetensors";
  }
  ~SafetensorsStreamTest() override { fs::remove_all(folder_); }

  int NumFiles() {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_), {}));
  }

  static std::vector<Tensor> Tensors() {
    std::vector<Tensor> tensors = {{{"empty0", DType::kFloat32, {0, 5}}, {}},
                                   {{"u8", DType::kUInt8, {3}}, {}},
                                   {{"bf16", DType::kBFloat16, {2, 1}}, {}},
                                   {{"f32", DType::kFloat32, {1000, 700}}, {}},
                                   {{"scalar", DType::kFloat32, {}}, {}},
                                   {{"u64", DType::kUInt64, {2}}, {}},
                                   {{"f64", DType::kFloat64, {1}}, {}},
                                   {{"empty1", DType::kUInt8, {0}}, {}}};
    uint8_t next = 1;
    for (Tensor& tensor : tensors) {
      tensor.bytes.resize(
          static_cast<size_t>(NumElements(tensor.declaration.shape) *
                              DTypeBytes(tensor.declaration.dtype)));
      std::iota(tensor.bytes.begin(), tensor.bytes.end(), next++);
    }
    return tensors;
  }

  /// Writes them in pieces of `piece_bytes`.
  absl::StatusOr<WrittenSafetensors> WriteStream(
      const std::string& path, const std::vector<Tensor>& tensors,
      size_t piece_bytes) {
    std::vector<SafetensorsDeclaration> declarations;
    for (const Tensor& tensor : tensors) {
      declarations.push_back(tensor.declaration);
    }
    auto writer =
        SafetensorsStreamWriter::Create(path, declarations, {{"step", "9"}});
    if (!writer.ok()) return writer.status();
    for (const SafetensorsEntry& entry : writer->entries()) {
      const auto found = std::find_if(
          tensors.begin(), tensors.end(), [&](const Tensor& tensor) {
            return tensor.declaration.name == entry.name;
          });
      absl::Span<const uint8_t> rest = found->bytes;
      while (!rest.empty()) {
        const absl::Status status =
            writer->Append(entry.name, rest.subspan(0, piece_bytes));
        if (!status.ok()) return status;
        rest.remove_prefix(std::min(piece_bytes, rest.size()));
      }
    }
    return writer->Finish();
  }

  std::string folder_;
  std::string path_;
};

TEST_F(SafetensorsStreamTest, WritesTheBytesOfTheWholeWriter) {
  std::vector<Tensor> tensors = Tensors();
  SafetensorsWriter whole;
  for (Tensor& tensor : tensors) {
    whole.Add(tensor.declaration.name,
              TensorView(tensor.declaration.dtype, tensor.declaration.shape,
                         tensor.bytes.data()));
  }
  ASSERT_TRUE(whole.WriteTo(path_, {{"step", "9"}}).ok());
  const std::vector<uint8_t> expected = ReadFileBytes(path_).value();

  for (const size_t piece_bytes : {size_t{1000}, size_t{100000000}}) {
    const std::string path = folder_ + "/stream.safetensors";
    const auto written = WriteStream(path, tensors, piece_bytes);

    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_TRUE(ReadFileBytes(path).value() == expected);
    EXPECT_EQ(written->bytes, static_cast<int64_t>(expected.size()));
    EXPECT_EQ(written->digest, Checksum(expected));
  }
  EXPECT_EQ(NumFiles(), 2) << "no temporary file stays";
}

TEST_F(SafetensorsStreamTest, ReaderGivesTheTensorsBack) {
  const std::vector<Tensor> tensors = Tensors();
  ASSERT_TRUE(WriteStream(path_, tensors, 12345).ok());

  const auto reader = SafetensorsReader::Open(path_);

  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->entries().size(), tensors.size());
  EXPECT_EQ(reader->metadata().at("step"), "9");
  for (const Tensor& tensor : tensors) {
    const SafetensorsEntry* entry =
        reader->Find(tensor.declaration.name).value();
    EXPECT_EQ(entry->dtype, tensor.declaration.dtype);
    EXPECT_EQ(entry->shape, tensor.declaration.shape);
    std::vector<uint8_t> bytes(tensor.bytes.size());
    const absl::Status status =
        reader->ReadTensor(entry->name, absl::MakeSpan(bytes));
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(bytes == tensor.bytes) << entry->name;
  }
}

TEST_F(SafetensorsStreamTest, ReaderGivesPartsOfATensor) {
  const std::vector<Tensor> tensors = Tensors();
  ASSERT_TRUE(WriteStream(path_, tensors, 12345).ok());
  const auto reader = SafetensorsReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const SafetensorsEntry* entry = reader->Find("u64").value();
  std::vector<uint8_t> bytes(5);

  ASSERT_TRUE(reader->ReadPart(*entry, 11, absl::MakeSpan(bytes)).ok());

  EXPECT_THAT(bytes, ElementsAre(17, 18, 19, 20, 21));
  EXPECT_EQ(reader->ReadPart(*entry, 12, absl::MakeSpan(bytes)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(reader->ReadPart(*entry, -1, absl::MakeSpan(bytes)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsStreamTest, ReaderNamesMissingTensorsAndWrongSizes) {
  ASSERT_TRUE(WriteStream(path_, Tensors(), 12345).ok());
  const auto reader = SafetensorsReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<uint8_t> bytes(5);

  EXPECT_EQ(reader->Find("none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(reader->ReadTensor("u64", absl::MakeSpan(bytes))),
              AllOf(HasSubstr(path_), HasSubstr("'u64' has 16 bytes (U64 2)"),
                    HasSubstr("expected 5")));
}

TEST_F(SafetensorsStreamTest, VerifyTellsWholeFromDamaged) {
  const auto written = WriteStream(path_, Tensors(), 12345);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_TRUE(SafetensorsReader::Open(path_)->Verify(*written).ok());
  std::string text = ReadFile(path_).value();
  text.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path_, text).ok());

  const absl::Status status = SafetensorsReader::Open(path_)->Verify(*written);

  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(path_), HasSubstr("is damaged: expected")));
}

TEST_F(SafetensorsStreamTest, AFileThatShrinksIsDataLoss) {
  ASSERT_TRUE(WriteStream(path_, Tensors(), 12345).ok());
  const auto reader = SafetensorsReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  fs::resize_file(path_, 2000);
  std::vector<uint8_t> bytes(2800000);

  EXPECT_EQ(reader->ReadTensor("f32", absl::MakeSpan(bytes)).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsStreamTest, ReaderRefusesWhatTheWholeReaderDoes) {
  ASSERT_TRUE(WriteStream(path_, {Tensors()[1]}, 12345).ok());
  const std::string whole = ReadFile(path_).value();

  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_TRUE(WriteFileAtomically(path_, whole.substr(0, size)).ok());
    const absl::Status status = SafetensorsReader::Open(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_EQ(status, SafetensorsFile::Read(path_).status());
  }
}

TEST_F(SafetensorsStreamTest, ReaderRefusesWhatIsNoFile) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);

  EXPECT_EQ(SafetensorsReader::Open(path_).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsReader::Open(folder_).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SafetensorsReader::Open(folder_ + "/none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsStreamTest, AWriterThatStopsLeavesTheFormerFile) {
  ASSERT_TRUE(WriteFileAtomically(path_, "former").ok());
  {
    auto writer =
        SafetensorsStreamWriter::Create(path_, {{"a", DType::kUInt8, {3}}}, {});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(writer->Append("a", {1, 2}).ok());
    EXPECT_EQ(NumFiles(), 2);
  }

  EXPECT_EQ(ReadFile(path_).value(), "former");
  EXPECT_EQ(NumFiles(), 1);
}

TEST_F(SafetensorsStreamTest, MissingBytesAreNamedAndLeaveNoFile) {
  auto writer = SafetensorsStreamWriter::Create(
      path_, {{"a", DType::kUInt8, {3}}, {"b", DType::kUInt8, {1}}}, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("a", {1, 2}).ok());

  const absl::Status status = writer->Finish().status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(path_), HasSubstr("1 more bytes of tensor 'a'")));
  EXPECT_EQ(writer->Append("a", {3}), status) << "every further call fails";
  EXPECT_FALSE(fs::exists(path_));
}

TEST_F(SafetensorsStreamTest, BytesOfAnotherTensorAreRefused) {
  auto writer = SafetensorsStreamWriter::Create(
      path_, {{"a", DType::kUInt8, {3}}, {"b", DType::kUInt8, {1}}}, {});
  ASSERT_TRUE(writer.ok()) << writer.status();

  const absl::Status status = writer->Append("b", {1});

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      Message(status),
      HasSubstr("expected at most 3 bytes of tensor 'a', got 1 of 'b'"));
}

TEST_F(SafetensorsStreamTest, TooManyBytesAreRefused) {
  auto writer =
      SafetensorsStreamWriter::Create(path_, {{"a", DType::kUInt8, {3}}}, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("a", {1, 2, 3}).ok());

  EXPECT_THAT(Message(writer->Append("a", {4})),
              HasSubstr("after those of the last one"));
}

TEST_F(SafetensorsStreamTest, AFinishedWriterTakesNothingMore) {
  auto writer = SafetensorsStreamWriter::Create(path_, {}, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Finish().ok());

  EXPECT_EQ(writer->Finish().status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(SafetensorsReader::Open(path_)->entries().empty());
}

TEST_F(SafetensorsStreamTest, BadDeclarationsAreRefused) {
  const std::vector<std::vector<SafetensorsDeclaration>> bad = {
      {{"a", DType::kUInt8, {1}}, {"a", DType::kUInt8, {1}}},
      {{"__metadata__", DType::kUInt8, {1}}},
      {{"\xff", DType::kUInt8, {1}}},
      {{"a", DType::kUInt8, {-1}}},
      {{"a", DType::kFloat32, {int64_t{1} << 62, 4}}},
      {{"a", DType::kUInt8, {1, 1, 1, 1, 1, 1, 1, 1, 1}}}};

  for (const auto& declarations : bad) {
    const absl::Status status =
        SafetensorsStreamWriter::Create(path_, declarations, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr(path_));
  }
  EXPECT_EQ(NumFiles(), 0);
}

TEST_F(SafetensorsStreamTest, AFullDiskLeavesTheFormerFileAndSaysSo) {
  ASSERT_TRUE(WriteFileAtomically(path_, "former").ok());
  // A limit on file sizes fails the write half-way, as a full disk does.
  struct rlimit former_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former_limit), 0);
  auto* former_handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = former_limit;
  limit.rlim_cur = 1000000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);

  const absl::Status status = WriteStream(path_, Tensors(), 10000).status();

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &former_limit), 0);
  signal(SIGXFSZ, former_handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr(path_));
  EXPECT_EQ(ReadFile(path_).value(), "former");
  EXPECT_EQ(NumFiles(), 1) << "the temporary file is removed";
}

}  // namespace
}  // namespace deltapipe
