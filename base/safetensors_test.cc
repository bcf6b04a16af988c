#include "base/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/float_cast.h"

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

std::vector<uint8_t> FileOf(const std::string& header, size_t data_bytes) {
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<uint8_t>(uint64_t{header.size()} >> (8 * i)));
  }
  bytes.insert(bytes.end(), header.begin(), header.end());
  for (size_t i = 0; i < data_bytes; ++i) {
    bytes.push_back(static_cast<uint8_t>(i));
  }
  return bytes;
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = testing::TempDir() + "/" + test->name() + ".safetensors";
  }
  std::string path_;
};

TEST_F(SafetensorsTest, RoundTripsTensorsOfEveryTypeAndMetadata) {
  std::vector<float> f32 = {1.5f, -2.25f, 0, 4, 5, 6};
  std::vector<double> f64 = {1e300};
  std::vector<uint16_t> f16 = {FloatToFloat16(0.5f)};
  std::vector<uint16_t> bf16 = {FloatToBFloat16(3.0f), FloatToBFloat16(-1.0f)};
  std::vector<uint8_t> u8 = {1, 2, 3};
  std::vector<int32_t> i32 = {-7};
  std::vector<int64_t> i64 = {int64_t{1} << 40};
  SafetensorsWriter writer;
  writer.Add("u8", TensorView(DType::kUInt8, {3}, u8.data()));
  writer.Add("f32", TensorView(DType::kFloat32, {2, 3}, f32.data()));
  writer.Add("bf16", TensorView(DType::kBFloat16, {2, 1}, bf16.data()));
  writer.Add("i64", TensorView(DType::kInt64, {1}, i64.data()));
  writer.Add("f16", TensorView(DType::kFloat16, {1}, f16.data()));
  writer.Add("f64", TensorView(DType::kFloat64, {}, f64.data()));
  writer.Add("i32", TensorView(DType::kInt32, {1, 1, 1}, i32.data()));
  writer.Add("empty", TensorView(DType::kFloat32, {0, 5}, nullptr));

  ASSERT_TRUE(writer.WriteTo(path_, {{"step", "900"}, {"\u00e9", "\""}}).ok());
  const SafetensorsFile file = SafetensorsFile::Read(path_).value();

  EXPECT_EQ(file.entries().size(), 8);
  EXPECT_THAT(file.metadata(),
              UnorderedElementsAre(Pair("step", "900"), Pair("\u00e9", "\"")));
  EXPECT_THAT(file.Tensor("u8")->Values<uint8_t>(), ElementsAre(1, 2, 3));
  EXPECT_EQ(file.Tensor("i32")->Values<int32_t>()[0], -7);
  EXPECT_EQ(file.Tensor("i64")->Values<int64_t>()[0], int64_t{1} << 40);
  EXPECT_EQ(file.Tensor("f64")->Values<double>()[0], 1e300);
  EXPECT_THAT(file.FloatValues("f32").value(),
              ElementsAre(1.5f, -2.25f, 0, 4, 5, 6));
  EXPECT_THAT(file.FloatValues("f16").value(), ElementsAre(0.5f));
  EXPECT_THAT(file.FloatValues("bf16").value(), ElementsAre(3.0f, -1.0f));
  EXPECT_EQ(file.Tensor("f32")->shape(), Shape({2, 3}));
  EXPECT_EQ(file.Tensor("i32")->shape(), Shape({1, 1, 1}));
  EXPECT_EQ(file.Tensor("f64")->shape(), Shape());
  EXPECT_EQ(file.Tensor("empty")->num_elements(), 0);
}

TEST_F(SafetensorsTest, SameTensorsGiveTheSameBytes) {
  std::vector<float> data = {1, 2};
  const auto write = [&] {
    SafetensorsWriter writer;
    writer.Add("b", TensorView(DType::kFloat32, {1}, &data[0]));
    writer.Add("a", TensorView(DType::kFloat32, {1}, &data[1]));
    EXPECT_TRUE(writer.WriteTo(path_, {{"k", "v"}}).ok());
    return ReadFile(path_).value();
  };

  const std::string first = write();

  EXPECT_EQ(write(), first);
  EXPECT_THAT(first.substr(8),
              testing::StartsWith(
                  R"({"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[1],)"
                  R"("data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],)"
                  R"("data_offsets":[4,8]}})"));
  EXPECT_EQ(first.size() % 8, 0);
}

TEST_F(SafetensorsTest, EmptyFileOfNoTensors) {
  ASSERT_TRUE(SafetensorsWriter().WriteTo(path_, {}).ok());

  EXPECT_TRUE(SafetensorsFile::Read(path_).value().entries().empty());
}

TEST_F(SafetensorsTest, UnalignedTensorsOfOtherWritersReadWell) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";

  const auto file = SafetensorsFile::Parse(FileOf(header, 9), "memory").value();

  const TensorView view = file.Tensor("b").value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data()) % 4, 0);
  EXPECT_EQ(FloatBits(view.Values<float>()[0]), 0x04030201u);
  EXPECT_EQ(FloatBits(view.Values<float>()[1]), 0x08070605u);
}

TEST_F(SafetensorsTest, ViewsSurviveAMoveOfTheFile) {
  const std::string header =
      R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  auto file = SafetensorsFile::Parse(FileOf(header, 8), "memory").value();
  const void* data = file.Tensor("b")->data();

  const SafetensorsFile moved = std::move(file);

  EXPECT_EQ(moved.Tensor("b")->data(), data);
}

TEST_F(SafetensorsTest, EntriesAreInTheOrderOfTheirBytes) {
  const std::string header =
      R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
      R"("z":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}}   )";

  const auto file = SafetensorsFile::Parse(FileOf(header, 5), "memory").value();

  ASSERT_EQ(file.entries().size(), 3);
  EXPECT_EQ(file.entries()[0].name, "a");
  EXPECT_EQ(file.entries()[1].name, "z");
  EXPECT_EQ(file.entries()[2].name, "b");
}

TEST_F(SafetensorsTest, MissingFileIsNotFound) {
  EXPECT_EQ(SafetensorsFile::Read(path_ + "-none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, MissingTensorAndWrongTypeAreErrors) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  const auto file = SafetensorsFile::Parse(FileOf(header, 1), "memory").value();

  EXPECT_EQ(file.Tensor("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file.FloatValues("a").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsTest, HeaderLengthsThatLieAreRefused) {
  std::vector<uint8_t> bytes = FileOf("{}", 0);
  bytes[0] = 3;
  EXPECT_THAT(Message(SafetensorsFile::Parse(bytes, "m.st").status()),
              AllOf(HasSubstr("m.st"), HasSubstr("in a file of 10")));

  bytes[3] = 6;  // 100,663,299
  EXPECT_THAT(Message(SafetensorsFile::Parse(bytes, "m.st").status()),
              HasSubstr("at most 100000000"));

  bytes[7] = 0xFF;
  EXPECT_FALSE(SafetensorsFile::Parse(bytes, "m.st").ok());
  EXPECT_FALSE(SafetensorsFile::Parse({1, 0, 0}, "m.st").ok());
  EXPECT_FALSE(SafetensorsFile::Parse({}, "m.st").ok());
}

struct BadHeader {
  const char* name;
  const char* header;
  size_t data_bytes;
  const char* message;
};

class BadHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefusedWithTheReason) {
  const auto file = SafetensorsFile::Parse(
      FileOf(GetParam().header, GetParam().data_bytes), "m.st");

  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(file.status()), AllOf(HasSubstr("m.st is not valid"),
                                            HasSubstr(GetParam().message)));
}

#define TENSOR(name, dtype, shape, offsets)                \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
  ",\"data_offsets\":" offsets "}"

INSTANTIATE_TEST_SUITE_P(
    Headers, BadHeaderTest,
    testing::Values(
        BadHeader{"Empty", "", 0, "begins with '{'"},
        BadHeader{"Array", "[]", 0, "begins with '{'"},
        BadHeader{"Cut", "{\"a\":", 0, "not JSON"},
        BadHeader{"Garbage", "{\x01\x02}", 0, "not JSON"},
        BadHeader{"Trailing", "{}x", 0, "not JSON"},
        BadHeader{"Overlap",
                  "{" TENSOR("a", "U8", "[4]",
                             "[0,4]") "," TENSOR("b", "U8", "[3]", "[2,5]") "}",
                  5, "'b': its bytes begin at 2 and overlap"},
        BadHeader{"SameBytes",
                  "{" TENSOR("a", "U8", "[4]",
                             "[0,4]") "," TENSOR("b", "U8", "[4]", "[0,4]") "}",
                  4, "overlap"},
        BadHeader{"Hole",
                  "{" TENSOR("a", "U8", "[2]",
                             "[0,2]") "," TENSOR("b", "U8", "[2]", "[3,5]") "}",
                  5, "'b': its bytes begin at 3 and leave a hole"},
        BadHeader{"HoleAtBegin", "{" TENSOR("a", "U8", "[2]", "[1,3]") "}", 3,
                  "hole"},
        BadHeader{"HoleAtEnd", "{" TENSOR("a", "U8", "[2]", "[0,2]") "}", 3,
                  "belongs to none"},
        BadHeader{"Outside", "{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 3,
                  "outside of the file's 3"},
        BadHeader{"Backwards", "{" TENSOR("a", "U8", "[0]", "[2,1]") "}", 3,
                  "outside"},
        BadHeader{"WrongSize", "{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4,
                  "expected 8 bytes for F32 2, got 4"},
        BadHeader{"UnknownType", "{" TENSOR("a", "Q4", "[2]", "[0,1]") "}", 1,
                  "got 'Q4'"},
        BadHeader{"Duplicate",
                  "{" TENSOR("a", "U8", "[1]",
                             "[0,1]") "," TENSOR("a", "U8", "[1]", "[1,2]") "}",
                  2, "tensor 'a': the name occurs twice"},
        BadHeader{"DuplicateField",
                  R"({"a":{"dtype":"U8","dtype":"F32","shape":[1],)"
                  R"("data_offsets":[0,1]}})",
                  1, "'dtype' occurs twice"},
        BadHeader{"MissingField", R"({"a":{"dtype":"U8","shape":[1]}})", 1,
                  "expected the fields"},
        BadHeader{"UnknownField", R"({"a":{"stride":[1]}})", 1,
                  "unknown field 'stride'"},
        BadHeader{"OneOffset", "{" TENSOR("a", "U8", "[1]", "[1]") "}", 1,
                  "expected 2 data_offsets, got 1"},
        BadHeader{
            "Overflow",
            "{" TENSOR("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0,
            "too many elements"},
        BadHeader{
            "HugeDimension",
            "{" TENSOR("a", "U8", "[18446744073709551615,0]", "[0,0]") "}", 0,
            "too many elements"},
        BadHeader{"RankNine",
                  "{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1,
                  "more than 8"},
        BadHeader{"Negative", "{" TENSOR("a", "U8", "[-1]", "[0,1]") "}", 1,
                  "negative number -1"},
        BadHeader{"Fraction", "{" TENSOR("a", "U8", "[1.5]", "[0,1]") "}", 1,
                  "1.5"},
        BadHeader{"NestedArray", "{" TENSOR("a", "U8", "[[1]]", "[0,1]") "}", 1,
                  "unexpected an array"},
        BadHeader{"DeepObject", R"({"a":{"shape":{"b":{}}}})", 1,
                  "unexpected an object"},
        BadHeader{"TensorIsText", R"({"a":"U8"})", 0, "unexpected a string"},
        BadHeader{"MetadataIsNumber", R"({"__metadata__":{"step":9}})", 0,
                  "number 9"}),
    [](const auto& info) { return info.param.name; });

TEST_F(SafetensorsTest, EveryTruncationIsAnError) {
  std::vector<float> data(4, 1.0f);
  SafetensorsWriter writer;
  writer.Add("a", TensorView(DType::kFloat32, {4}, data.data()));
  ASSERT_TRUE(writer.WriteTo(path_, {}).ok());
  const std::vector<uint8_t> whole = ReadFileBytes(path_).value();

  for (size_t size = 0; size < whole.size(); ++size) {
    std::vector<uint8_t> cut(whole.begin(), whole.begin() + size);
    EXPECT_FALSE(SafetensorsFile::Parse(std::move(cut), "m").ok()) << size;
  }
}

TEST_F(SafetensorsTest, WriterRefusesBadNames) {
  float value = 0;
  const TensorView view(DType::kFloat32, {1}, &value);
  SafetensorsWriter twice;
  twice.Add("a", view);
  twice.Add("a", view);
  SafetensorsWriter reserved;
  reserved.Add("__metadata__", view);
  SafetensorsWriter not_utf8;
  not_utf8.Add("\xff", view);

  EXPECT_THAT(Message(twice.WriteTo(path_, {})), HasSubstr("'a'"));
  EXPECT_EQ(reserved.WriteTo(path_, {}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(not_utf8.WriteTo(path_, {}).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsTest, WriteErrorsNameThePath) {
  const absl::Status status =
      SafetensorsWriter().WriteTo(path_ + "-none/m.safetensors", {});

  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("-none/m.safetensors"));
}

}  // namespace
}  // namespace deltapipe
