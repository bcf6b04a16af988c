#include "worker/checkpoint/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/safetensors.h"
#include "base/tensor_view.h"
#include "base/thread.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

void Append(const std::string& name, const Shape& shape, ModelShard* shard) {
  ParameterSegment segment;
  segment.name = name;
  segment.shape = shape;
  segment.offset = shard->layout.num_elements;
  segment.num_elements = NumElements(shape);
  shard->layout.num_elements += segment.num_elements;
  shard->layout.segments.push_back(std::move(segment));
}

/// A model of five tensors whose values tell their names, cut after every
/// tensor where a stage ends.
std::vector<ModelShard> Shards(int num_stages) {
  const std::pair<const char*, Shape> tensors[] = {{"block0.weight", {3, 4}},
                                                   {"block1.bias", {4}},
                                                   {"block2.weight", {2, 2, 2}},
                                                   {"block3.scale", {}},
                                                   {"head.weight", {5, 7}}};
  std::vector<ModelShard> shards(static_cast<size_t>(num_stages));
  for (size_t i = 0; i < 5; ++i) {
    ModelShard& shard = shards[i * shards.size() / 5];
    Append(tensors[i].first, tensors[i].second, &shard);
    for (int64_t j = 0; j < NumElements(tensors[i].second); ++j) {
      shard.weights.push_back(static_cast<float>(100 * i) +
                              static_cast<float>(j));
    }
  }
  return shards;
}

std::string Path(const std::string& name) {
  const char* const folder = std::getenv("TEST_TMPDIR");
  return absl::StrCat(folder != nullptr ? folder : "/tmp", "/", name);
}

class ModelFileTest : public ::testing::Test {
 protected:
  ModelFileTest() {
    auto ends = CreateLoopbackChannelPair(int64_t{8} << 20, int64_t{1} << 30,
                                          "writer (test)", "stage (test)");
    stage_ = FrameChannel::Create(std::move(ends.first), {}).value();
    writer_ = FrameChannel::Create(std::move(ends.second), {}).value();
  }
  /// The same shard after its way over a channel.
  absl::StatusOr<ModelShard> Transfer(const ModelShard& shard) {
    absl::Status sent;
    Thread sender("sender", [&] {
      sent = SendShard(stage_.get(), FrameHeader(), shard.layout, shard.weights,
                       Soon());
    });
    absl::StatusOr<ModelShard> received = ReceiveShard(writer_.get(), Soon());
    sender.Join();
    EXPECT_TRUE(sent.ok()) << sent;
    return received;
  }
  absl::Status ReceiveText(const std::string& text,
                           FrameKind kind = FrameKind::kWeights) {
    FrameHeader header;
    header.kind = kind;
    const ByteSpan bytes(reinterpret_cast<const uint8_t*>(text.data()),
                         text.size());
    EXPECT_TRUE(stage_->Send(header, {bytes}, Soon()).ok());
    return ReceiveShard(writer_.get(), Soon()).status();
  }

  std::unique_ptr<FrameChannel> stage_;
  std::unique_ptr<FrameChannel> writer_;
};

TEST_F(ModelFileTest, FileIsTheSameForAnyNumberOfStages) {
  for (const int num_stages : {1, 2, 4}) {
    std::vector<ModelShard> received;
    for (const ModelShard& shard : Shards(num_stages)) {
      auto arrived = Transfer(shard);
      ASSERT_TRUE(arrived.ok()) << arrived.status();
      EXPECT_EQ(arrived->weights, shard.weights);
      received.push_back(*std::move(arrived));
    }
    const std::string path = Path(absl::StrCat("model-", num_stages));

    const absl::Status written =
        WriteModelFile(path, &received, {{"step", "9"}});

    ASSERT_TRUE(written.ok()) << written;
    const auto file = SafetensorsFile::Read(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->metadata().at("step"), "9");
    std::vector<std::string> tensors;
    for (const SafetensorsFile::Entry& entry : file->entries()) {
      EXPECT_EQ(entry.dtype, DType::kFloat32);
      tensors.push_back(
          absl::StrCat(entry.name, " ", ShapeString(entry.shape)));
    }
    EXPECT_THAT(tensors, ElementsAre("block0.weight 3x4", "block1.bias 4",
                                     "block2.weight 2x2x2",
                                     "block3.scale scalar", "head.weight 5x7"));
    EXPECT_THAT(*file->FloatValues("block1.bias"),
                ElementsAre(100, 101, 102, 103));
    EXPECT_THAT(*file->FloatValues("block3.scale"), ElementsAre(300));
    EXPECT_EQ(file->FloatValues("head.weight")->back(), 434);
  }
}

TEST_F(ModelFileTest, ShardOfSeveralFramesArrivesWhole) {
  ModelShard shard;
  Append("large", {(int64_t{2} << 20) + 3, 2}, &shard);
  for (int64_t i = 0; i < shard.layout.num_elements; ++i) {
    shard.weights.push_back(static_cast<float>(i % 1000));
  }

  const auto received = Transfer(shard);

  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(received->weights == shard.weights);
}

TEST_F(ModelFileTest, ShardWithoutTensorsIsEmpty) {
  const auto received = Transfer(ModelShard());

  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_TRUE(received->layout.segments.empty());
  EXPECT_TRUE(received->weights.empty());
}

TEST_F(ModelFileTest, DamagedLayoutsAreRefused) {
  for (const char* text :
       {"", "[", "{}", "7", "[7]", R"([{"name":"a"}])", R"([{"shape":[1]}])",
        R"([{"name":7,"shape":[1]}])", R"([{"name":"a","shape":4}])",
        R"([{"name":"a","shape":[-1]}])", R"([{"name":"a","shape":[1.5]}])",
        R"([{"name":"a","shape":["1"]}])",
        // 2^63, 2^64 - 1 and 2^64: the first two were taken for negative ones.
        R"([{"name":"a","shape":[9223372036854775808]}])",
        R"([{"name":"a","shape":[18446744073709551615]}])",
        R"([{"name":"a","shape":[0,18446744073709551615]}])",
        R"([{"name":"a","shape":[18446744073709551616]}])",
        R"([{"name":"a","shape":[1099511627777]}])",
        R"([{"name":"a","shape":[1048576,1048577]}])",
        R"([{"name":"a","shape":[1,1,1,1,1,1,1,1,1]}])",
        R"([{"name":"a","shape":[1099511627776]},{"name":"b","shape":[1]}])"}) {
    const absl::Status status = ReceiveText(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("malformed")) << text;
  }
}

TEST_F(ModelFileTest, FrameThatIsNoShardIsRefused) {
  const absl::Status status = ReceiveText("[]", FrameKind::kGradient);

  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected weights"));
}

TEST_F(ModelFileTest, WeightsOfAnotherSizeAreRefused) {
  FrameHeader header;
  header.kind = FrameKind::kWeights;
  const std::vector<uint8_t> bytes(12);
  const std::string layout = R"([{"name":"a","shape":[4]}])";
  const ByteSpan text(reinterpret_cast<const uint8_t*>(layout.data()),
                      layout.size());
  ASSERT_TRUE(stage_->Send(header, {text}, Soon()).ok());
  ASSERT_TRUE(stage_->Send(header, {ByteSpan(bytes)}, Soon()).ok());

  const auto received = ReceiveShard(writer_.get(), Soon());

  EXPECT_EQ(received.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(received.status().message()),
              HasSubstr("expected 16 bytes of weights, got 12"));
}

TEST_F(ModelFileTest, TwoTensorsOfOneNameAreRefused) {
  std::vector<ModelShard> shards = {Shards(1)[0], Shards(1)[0]};

  EXPECT_EQ(WriteModelFile(Path("twice"), &shards, {}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
