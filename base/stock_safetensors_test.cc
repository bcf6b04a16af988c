// What our writers write, opened by the stock safetensors of Python. Skipped
// where scripts/test_tools has not fetched it.
#include "base/stock_safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/float_cast.h"
#include "base/safetensors.h"
#include "base/safetensors_stream.h"

namespace deltapipe {
namespace {

using testing::HasSubstr;

class StockSafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoStockSafetensors();
    if (!missing.empty()) GTEST_SKIP() << missing;
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = testing::TempDir() + "/stock_" + test->name() + ".safetensors";
  }

  void Add(const std::string& name, DType dtype, Shape shape,
           const void* data) {
    tensors_.push_back({name, dtype, shape});
    const TensorView view(dtype, shape, const_cast<void*>(data));
    views_.push_back(view);
  }

  void AddOneOfEachKind() {
    Add("u8", DType::kUInt8, {3}, u8_);
    Add("bf16", DType::kBFloat16, {2, 1}, bf16_);
    Add("empty", DType::kFloat32, {0, 5}, nullptr);
    Add("f16", DType::kFloat16, {1}, f16_);
    Add("f32", DType::kFloat32, {1, 2}, f32_);
    Add("i32", DType::kInt32, {1}, i32_);
    Add("scalar", DType::kFloat32, {}, f32_);
    Add("u64", DType::kUInt64, {1}, u64_);
    Add("i64", DType::kInt64, {1}, i64_);
    Add("f64", DType::kFloat64, {}, f64_);
    Add("weights/\u00e9 \"x\"", DType::kUInt8, {1}, u8_);
  }

  std::string Read() { return StockSafetensorsText(path_); }

  void ExpectAll(const std::string& read) {
    for (const char* line :
         {"u8 U8 [3] 010203\n", "bf16 BF16 [2, 1] 404080bf\n",
          "empty F32 [0, 5] \n", "f16 F16 [1] 0038\n",
          "f32 F32 [1, 2] 0000c03f000010c0\n", "i32 I32 [1] f9ffffff\n",
          "scalar F32 [] 0000c03f\n", "u64 U64 [1] ffffffffffffffff\n",
          "i64 I64 [1] feffffffffffffff\n", "f64 F64 [] 000000000000f03f\n",
          "weights/\u00e9 \"x\" U8 [1] 01\n"}) {
      EXPECT_THAT(read, HasSubstr(line));
    }
    EXPECT_THAT(read, testing::Not(HasSubstr("failed")));
  }

  const uint8_t u8_[3] = {1, 2, 3};
  const uint16_t bf16_[2] = {FloatToBFloat16(3.0f), FloatToBFloat16(-1.0f)};
  const uint16_t f16_[1] = {FloatToFloat16(0.5f)};
  const float f32_[2] = {1.5f, -2.25f};
  const int32_t i32_[1] = {-7};
  const uint64_t u64_[1] = {UINT64_MAX};
  const int64_t i64_[1] = {-2};
  const double f64_[1] = {1.0};
  std::vector<SafetensorsDeclaration> tensors_;
  std::vector<TensorView> views_;
  std::string path_;
};

TEST_F(StockSafetensorsTest, OpensWhatTheWholeWriterWrites) {
  AddOneOfEachKind();
  SafetensorsWriter writer;
  for (size_t i = 0; i < views_.size(); ++i) {
    writer.Add(tensors_[i].name, views_[i]);
  }
  ASSERT_TRUE(writer.WriteTo(path_, {{"format", "deltapipe"}}).ok());

  ExpectAll(Read());
}

TEST_F(StockSafetensorsTest, OpensWhatTheStreamWriterWrites) {
  AddOneOfEachKind();
  auto writer = SafetensorsStreamWriter::Create(path_, tensors_,
                                                {{"format", "deltapipe"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const SafetensorsEntry& entry : writer->entries()) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].name != entry.name) continue;
      const absl::Status status = writer->Append(
          entry.name, {static_cast<const uint8_t*>(views_[i].data()),
                       static_cast<size_t>(views_[i].num_bytes())});
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  ASSERT_TRUE(writer->Finish().ok());

  ExpectAll(Read());
}

TEST_F(StockSafetensorsTest, OpensAFileOfNoTensors) {
  ASSERT_TRUE(SafetensorsWriter().WriteTo(path_, {}).ok());

  EXPECT_EQ(Read(), "");
}

}  // namespace
}  // namespace deltapipe
