// A boundary whose tensors have several shapes, as where image sizes are mixed:
// each crosses as through a boundary of its shape alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "compression/codec_registry.h"
#include "worker/engine/boundary_end.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// [channels, pixels], whole images' first.
const std::vector<BoundaryShape> kShapes = {{4, 64}, {4, 25}, {4, 9}};
constexpr char kByColumn[] = "int(4,axis=column)";
constexpr char kStochastic[] = "int(3,round=stochastic)";
constexpr uint64_t kSeed = 7;

int64_t ElementsOf(const BoundaryShape& shape) {
  return shape.rows * shape.columns;
}

BoundaryEndOptions Options(bool is_upstream) {
  BoundaryEndOptions options;
  options.boundary = 1;
  options.is_upstream = is_upstream;
  options.peer = is_upstream ? "worker-2" : "worker-1";
  options.shapes = kShapes;
  options.activation_codec = kByColumn;
  options.gradient_codec = kStochastic;
  options.seed = kSeed;
  options.max_wait = std::chrono::seconds(20);
  return options;
}

struct Pair {
  Pair() {
    auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "down", "up");
    const auto create = [](bool is_upstream, auto channel) {
      return BoundaryEnd::Create(
                 Options(is_upstream),
                 FrameChannel::Create(std::move(channel), {}).value())
          .value();
    };
    up = create(true, std::move(ends.first));
    down = create(false, std::move(ends.second));
  }

  std::unique_ptr<BoundaryEnd> up;
  std::unique_ptr<BoundaryEnd> down;
};

std::vector<float> Values(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t bits =
        Philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {seed, 0})[0];
    values[i] = static_cast<float>(bits) * 0x1p-31f - 1;
  }
  return values;
}

TensorRef Tensor(const std::vector<float>& values) {
  auto owner = std::make_shared<std::vector<float>>(values);
  return {*owner, owner};
}

/// Two samples of a micro-batch.
std::vector<BoundarySample> Samples(uint32_t microbatch) {
  return {{100 + 2 * microbatch, 2 * microbatch},
          {101 + 2 * microbatch, 2 * microbatch + 1}};
}

/// What arrives of `values` through codecs of this shape alone.
std::vector<float> Alone(const BoundaryShape& shape, const std::string& codec,
                         uint32_t direction, uint32_t step, uint32_t microbatch,
                         const std::vector<float>& values, bool is_evaluation) {
  BoundaryOptions options;
  options.codec = *BindTensorShape(codec, {shape.rows, shape.columns});
  options.seed = kSeed;
  options.boundary_id = 1;
  options.direction = direction;
  options.elements_per_sample = ElementsOf(shape);
  Buffer body;
  EXPECT_TRUE(
      BoundaryEncoder::Create(options)
          .value()
          ->Encode(step, Samples(microbatch), values, is_evaluation, &body)
          .ok());
  std::vector<float> decoded(values.size());
  std::vector<uint64_t> missing;
  EXPECT_TRUE(BoundaryDecoder::Create(options)
                  .value()
                  ->Decode(step, Samples(microbatch), body.span(),
                           is_evaluation, absl::MakeSpan(decoded), &missing)
                  .ok());
  return decoded;
}

std::vector<float> Arrived(BoundaryEnd* end, uint32_t step, uint32_t microbatch,
                           bool is_evaluation = false) {
  const auto tensor = end->Await(step, microbatch, is_evaluation);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  if (!tensor.ok()) return {};
  return {tensor->tensor.values.begin(), tensor->tensor.values.end()};
}

/// One step of four micro-batches, of shapes 1, 0, 2 and 1, both ways.
void ExpectStepAsAlone(Pair* pair, uint32_t step,
                       const std::string& activation_codec,
                       const std::string& gradient_codec) {
  const std::vector<size_t> shapes = {1, 0, 2, 1};
  for (uint32_t mb = 0; mb < shapes.size(); ++mb) {
    const int64_t elements = ElementsOf(kShapes[shapes[mb]]);
    pair->down->Expect(step, mb, Samples(mb), false, elements);
    pair->up->Expect(step, mb, Samples(mb), false, elements);
    pair->up->Send(step, mb, Samples(mb), Tensor(Values(2 * elements, mb)),
                   false);
    pair->down->Send(step, mb, Samples(mb),
                     Tensor(Values(2 * elements, 50 + mb)), false);
  }
  for (uint32_t mb = 0; mb < shapes.size(); ++mb) {
    SCOPED_TRACE(mb);
    const BoundaryShape& shape = kShapes[shapes[mb]];
    const int64_t count = 2 * ElementsOf(shape);
    EXPECT_EQ(
        Arrived(pair->down.get(), step, mb),
        Alone(shape, activation_codec, 0, step, mb, Values(count, mb), false));
    EXPECT_EQ(Arrived(pair->up.get(), step, mb),
              Alone(shape, gradient_codec, 1, step, mb, Values(count, 50 + mb),
                    false));
  }
  pair->up->CommitStep(step);
  pair->down->CommitStep(step);
  EXPECT_TRUE(pair->up->AwaitHashes(step).ok());
  EXPECT_TRUE(pair->down->AwaitHashes(step).ok());
}

TEST(BoundaryEndShapesTest, EachTensorCrossesAsThroughABoundaryOfItsShape) {
  Pair pair;

  ExpectStepAsAlone(&pair, 0, kByColumn, kStochastic);

  const BoundaryEnd::Counters counters = pair.up->counters();
  EXPECT_EQ(counters.sent.samples, 8);
  EXPECT_EQ(counters.received.samples, 8);
  EXPECT_EQ(counters.sent.raw_bytes, 2 * 4 * 4 * (25 + 64 + 9 + 25));
  EXPECT_EQ(counters.state_bytes, 0);
  EXPECT_EQ(pair.up->outgoing_codec(), kByColumn);
}

TEST(BoundaryEndShapesTest, EvaluationHasTheFirstShapeUnlessItIsSaid) {
  Pair pair;
  const std::vector<float> values = Values(2 * 256, 1);
  pair.down->Expect(3, 0, Samples(0), true);

  pair.up->Send(3, 0, Samples(0), Tensor(values), true);

  EXPECT_EQ(Arrived(pair.down.get(), 3, 0, true),
            Alone(kShapes[0], kByColumn, 0, 3, 0, values, true));
}

TEST(BoundaryEndShapesTest, OtherCodecsHoldForAllShapes) {
  Pair pair;
  ExpectStepAsAlone(&pair, 0, kByColumn, kStochastic);

  for (BoundaryEnd* end : {pair.up.get(), pair.down.get()}) {
    const absl::Status status =
        end->SetCodecs("int(6,axis=column)", "int(2)", 1, 0);
    ASSERT_TRUE(status.ok()) << status;
  }

  ExpectStepAsAlone(&pair, 1, "int(6,axis=column)", "int(2)");
  EXPECT_EQ(pair.up->counters().sent.samples, 16);
}

TEST(BoundaryEndShapesTest, AStepMayEndBeforeATensorOfAnyShape) {
  Pair pair;
  pair.down->Expect(0, 0, Samples(0), false, ElementsOf(kShapes[2]));

  pair.up->EndStep(0, 0);

  const auto tensor = pair.down->Await(0, 0, false);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_TRUE(tensor->has_ended);
}

TEST(BoundaryEndShapesTest, ATensorOfNoShapeIsRefusedNamingThemAll) {
  Pair pair;

  pair.up->Send(0, 3, Samples(0), Tensor(Values(2 * 48, 1)), false);

  const absl::Status status = pair.up->Await(0, 3, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("send to worker-2, boundary 1, step 1, "
                              "micro-batch 3"),
                    HasSubstr("a tensor of 96 values for 2 samples, expected "
                              "256, 100 or 36 for each")));
}

TEST(BoundaryEndShapesTest, ATensorOfAnotherShapeIsRefusedNamingBoth) {
  Pair pair;
  pair.down->Expect(0, 3, Samples(0), false, ElementsOf(kShapes[2]));

  pair.up->Send(0, 3, Samples(0), Tensor(Values(2 * 100, 1)), false);

  const absl::Status status = pair.down->Await(0, 3, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("of 2 x 100 elements"),
                    HasSubstr("micro-batch 3 of 2 x 36 in")));
}

TEST(BoundaryEndShapesTest, CodecsThatRememberAreRefused) {
  Pair pair;
  for (const char* codec :
       {"delta(int(4))", "ef(int(4))", "lowrank(4)", "int(4,channel=slow)"}) {
    SCOPED_TRACE(codec);
    BoundaryEndOptions options = Options(true);
    options.activation_codec = codec;
    auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "down", "up");
    const absl::Status at_first =
        BoundaryEnd::Create(
            options, FrameChannel::Create(std::move(ends.first), {}).value())
            .status();
    const absl::Status later = pair.up->SetCodecs(codec, kStochastic, 1, 0);

    for (const absl::Status& status : {at_first, later}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(absl::StrCat("a codec that remembers nothing, such "
                                         "as int(8), got ",
                                         codec)));
    }
  }
  // They left all as it was.
  ExpectStepAsAlone(&pair, 0, kByColumn, kStochastic);
}

}  // namespace
}  // namespace deltapipe
