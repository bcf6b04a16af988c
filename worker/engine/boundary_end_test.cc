// Two BoundaryEnds over a channel that loses, repeats, reorders and corrupts,
// and whose receiver loses records: what arrives, and the state of both ends
// after every step, is that of an undisturbed pair.
#include "worker/engine/boundary_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "worker/transport/faulty/faulty_channel.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kElements = 48;
constexpr uint32_t kSeed = 20261121;

BoundaryEndOptions Options(bool is_upstream) {
  BoundaryEndOptions options;
  options.boundary = 2;
  options.is_upstream = is_upstream;
  options.peer = is_upstream ? "worker-2 (stage 3, replica 0)"
                             : "worker-1 (stage 2, replica 0)";
  options.shapes = {{1, kElements}};
  options.activation_codec = "delta(int(4),first=int(8))";
  options.gradient_codec = "delta(int(6),first=none)";
  options.seed = 7;
  options.max_wait = std::chrono::seconds(20);
  return options;
}

FrameChannelOptions Frames() {
  FrameChannelOptions frames;
  frames.resend_after = std::chrono::milliseconds(20);
  return frames;
}

/// Stage 2 (up) and stage 3 (down) and what lies between them.
struct Pair {
  explicit Pair(const FaultOptions& faults,
                const std::string& state_folder = "") {
    auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "down", "up");
    FaultOptions other = faults;
    other.seed += 1000;
    auto below_up = FaultyChannel::Create(std::move(ends.first), faults);
    auto below_down = FaultyChannel::Create(std::move(ends.second), other);
    faults_up = below_up.get();
    faults_down = below_down.get();
    const auto create = [&](bool is_upstream, auto below) {
      BoundaryEndOptions options = Options(is_upstream);
      options.state_folder = state_folder;
      return BoundaryEnd::Create(
                 options,
                 FrameChannel::Create(std::move(below), Frames()).value())
          .value();
    };
    up = create(true, std::move(below_up));
    down = create(false, std::move(below_down));
  }

  FaultyChannel* faults_up;    // borrowed from `up`
  FaultyChannel* faults_down;  // borrowed from `down`
  std::unique_ptr<BoundaryEnd> up;
  std::unique_ptr<BoundaryEnd> down;
};

/// What a step sends: activations down and gradients up.
struct Step {
  std::vector<std::vector<BoundarySample>> microbatches;
  std::vector<std::vector<float>> activations;  // by micro-batch
  std::vector<std::vector<float>> gradients;
};

TensorRef Tensor(const std::vector<float>& values) {
  auto owner = std::make_shared<std::vector<float>>(values);
  return {*owner, owner};
}

/// Samples that become known by and by, whose tensors drift and sometimes jump.
class Visits {
 public:
  Step Next(int microbatches, int samples_each) {
    Step step;
    const uint32_t num_known = std::min<uint32_t>(kNumSamples, 20 + num_steps_);
    ++num_steps_;
    uint32_t slot = 0;
    for (int mb = 0; mb < microbatches; ++mb) {
      std::vector<BoundarySample> samples;
      std::vector<float> activations;
      std::vector<float> gradients;
      for (int i = 0; i < samples_each; ++i) {
        const uint32_t key = static_cast<uint32_t>(random_() % num_known);
        samples.push_back({key, slot++});
        Append(&activations_[key], &activations);
        Append(&gradients_[key], &gradients);
      }
      step.microbatches.push_back(std::move(samples));
      step.activations.push_back(std::move(activations));
      step.gradients.push_back(std::move(gradients));
    }
    return step;
  }

 private:
  static constexpr uint32_t kNumSamples = 250;

  void Append(std::vector<float>* tensor, std::vector<float>* to) {
    std::normal_distribution<float> normal;
    const bool jumps = tensor->empty() || random_() % 20 == 0;
    tensor->resize(kElements);
    for (float& value : *tensor) {
      value = jumps ? normal(random_) : value + 0.1f * normal(random_);
    }
    to->insert(to->end(), tensor->begin(), tensor->end());
  }

  std::mt19937 random_{kSeed};
  uint32_t num_steps_ = 0;
  std::vector<float> activations_[kNumSamples];
  std::vector<float> gradients_[kNumSamples];
};

/// What both ends took in, and their hashes after the step.
struct Outcome {
  std::vector<std::vector<float>> received;
  BoundaryHashes up;
  BoundaryHashes down;
};

std::vector<float> Values(const TensorRef& tensor) {
  return {tensor.values.begin(), tensor.values.end()};
}

Outcome RunStep(Pair* pair, uint32_t number, const Step& step) {
  const uint32_t count = static_cast<uint32_t>(step.microbatches.size());
  for (uint32_t mb = 0; mb < count; ++mb) {
    pair->down->Expect(number, mb, step.microbatches[mb], false);
    pair->up->Expect(number, mb, step.microbatches[mb], false);
    pair->up->Send(number, mb, step.microbatches[mb],
                   Tensor(step.activations[mb]), false);
    pair->down->Send(number, mb, step.microbatches[mb],
                     Tensor(step.gradients[mb]), false);
  }
  Outcome outcome;
  for (uint32_t mb = 0; mb < count; ++mb) {
    for (BoundaryEnd* end : {pair->down.get(), pair->up.get()}) {
      const auto tensor = end->Await(number, mb, false);
      EXPECT_TRUE(tensor.ok()) << tensor.status();
      if (tensor.ok()) outcome.received.push_back(Values(tensor->tensor));
    }
  }
  pair->up->CommitStep(number);
  pair->down->CommitStep(number);
  const auto up = pair->up->AwaitHashes(number);
  const auto down = pair->down->AwaitHashes(number);
  EXPECT_TRUE(up.ok()) << up.status();
  EXPECT_TRUE(down.ok()) << down.status();
  if (up.ok()) outcome.up = *up;
  if (down.ok()) outcome.down = *down;
  return outcome;
}

/// Both pairs do `step`; the disturbed one must not differ.
void ExpectSameStep(Pair* undisturbed, Pair* disturbed, uint32_t number,
                    const Step& step) {
  const Outcome expected = RunStep(undisturbed, number, step);
  const Outcome outcome = RunStep(disturbed, number, step);
  ASSERT_EQ(outcome.received, expected.received) << "step " << number;
  for (const BoundaryHashes& hashes :
       {outcome.up, BoundaryHashes{outcome.down.received, outcome.down.sent}}) {
    ASSERT_EQ(hashes.sent, expected.up.sent) << "step " << number;
    ASSERT_EQ(hashes.received, expected.up.received) << "step " << number;
  }
}

TEST(BoundaryEndTest, FaultsOfTheLinkChangeNothingIn10000Visits) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  FaultOptions faults;
  faults.seed = kSeed;
  faults.loss = 0.02;
  faults.repeat = 0.02;
  faults.reorder = 0.02;
  faults.corrupt = 0.02;
  Pair undisturbed({});
  Pair disturbed(faults);
  Visits visits;

  for (uint32_t number = 0; number < 250; ++number) {
    ExpectSameStep(&undisturbed, &disturbed, number, visits.Next(8, 5));
    if (HasFatalFailure()) return;
  }

  EXPECT_EQ(disturbed.up->counters().state_bytes,
            2 * 250 * kElements * 2);  // all samples, both directions, bf16
  EXPECT_EQ(disturbed.up->counters().sent.samples, 10000);
  EXPECT_EQ(disturbed.down->counters().sent.samples, 10000);
  EXPECT_GT(disturbed.up->counters().sent.delta_rows, 5000);
  EXPECT_GT(disturbed.up->counters().sent.value_rows, 250);
  for (FaultyChannel* channel : {disturbed.faults_up, disturbed.faults_down}) {
    const FaultCounters done = channel->fault_counters();
    EXPECT_GT(done.lost, 20);
    EXPECT_GT(done.repeated, 20);
    EXPECT_GT(done.reordered, 20);
    EXPECT_GT(done.corrupted, 20);
  }
  for (BoundaryEnd* end : {disturbed.up.get(), disturbed.down.get()}) {
    const BoundaryEnd::Counters counters = end->counters();
    EXPECT_GT(counters.frames.frames_resent, 20);
    EXPECT_GT(counters.frames.bad_checksums, 20);
    EXPECT_EQ(counters.keyframes_requested, 0);
  }
}

TEST(BoundaryEndTest, RecordsOnDiskAreThoseInMemory) {
  Pair in_memory({});
  Pair on_disk({}, testing::TempDir() + "/boundary");
  Visits visits;
  for (uint32_t number = 0; number < 30; ++number) {
    const Step step = visits.Next(4, 5);
    std::vector<uint64_t> keys;
    for (const auto& samples : step.microbatches) {
      for (const BoundarySample& sample : samples) keys.push_back(sample.key);
    }
    on_disk.up->Announce(keys);
    on_disk.down->Announce(keys);
    ExpectSameStep(&in_memory, &on_disk, number, step);
    if (HasFatalFailure()) return;
  }
  // What a checkpoint takes goes on in either.
  const BoundaryState state = in_memory.down->TakeState().value();
  Pair restored({}, testing::TempDir() + "/boundary");
  ASSERT_TRUE(restored.down->PutState(state, 29, nullptr).ok());
  ASSERT_TRUE(
      restored.up->PutState(on_disk.up->TakeState().value(), 29, nullptr).ok());
  ExpectSameStep(&in_memory, &restored, 30, visits.Next(4, 5));
}

// As in checkpoints of before the codec was named: only sizes tell.
TEST(BoundaryEndTest, RecordsThatNameNoCodecAreCheckedByTheirSize) {
  Pair first({});
  Visits visits;
  for (uint32_t number = 0; number < 5; ++number) {
    RunStep(&first, number, visits.Next(4, 5));
  }
  BoundaryState down = first.down->TakeState().value();
  BoundaryState up = first.up->TakeState().value();
  EXPECT_EQ(up.sent_codec, down.received_codec);
  for (BoundaryState* state : {&down, &up}) {
    state->sent_codec.clear();
    state->received_codec.clear();
  }
  Pair restored({});
  std::vector<std::string> left_out;
  ASSERT_TRUE(restored.down->PutState(down, 4, &left_out).ok());
  ASSERT_TRUE(restored.up->PutState(up, 4, &left_out).ok());
  ExpectSameStep(&first, &restored, 5, visits.Next(4, 5));

  BoundaryState shorter;
  shorter.received.last_version = 1;
  shorter.received.records.emplace_back(7, NewRecord(1, 3));
  Pair refusing({});
  const absl::Status status = refusing.down->PutState(shorter, 4, &left_out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_TRUE(left_out.empty());
}

TEST(BoundaryEndTest, RecordsOfAnotherFormAreForgottenAtATurn) {
  Pair pair({});
  Visits visits;
  uint32_t number = 0;
  RunStep(&pair, number++, visits.Next(4, 5));
  for (const char* store : {"bf16", "int(8)", "int(5)", "fp32", "int(5)"}) {
    SCOPED_TRACE(store);
    const std::string codec = std::string("delta(int(4),store=") + store + ")";
    for (BoundaryEnd* end : {pair.up.get(), pair.down.get()}) {
      const absl::Status status =
          end->SetCodecs(codec, "delta(int(6),first=none)", 0, number - 1);
      ASSERT_TRUE(status.ok()) << status;
    }
    for (int i = 0; i < 2; ++i) {
      const Outcome outcome = RunStep(&pair, number++, visits.Next(4, 5));
      ASSERT_EQ(outcome.up.sent, outcome.down.received);
      ASSERT_EQ(outcome.up.received, outcome.down.sent);
    }
  }
}

TEST(BoundaryEndTest, KeyframesHealRecordsThatTheReceiverLost) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  FaultOptions faults;
  faults.seed = kSeed;
  faults.loss = 0.02;
  faults.corrupt = 0.02;
  Pair undisturbed({});
  Pair disturbed(faults);
  Visits visits;
  std::mt19937 random(kSeed);
  int num_lost = 0;

  for (uint32_t number = 0; number < 100; ++number) {
    Step step = visits.Next(4, 5);
    // Records that this step is going to need vanish at either receiver.
    for (BoundaryEnd* end : {disturbed.down.get(), disturbed.up.get()}) {
      for (const auto& samples : step.microbatches) {
        const uint64_t key = samples[random() % samples.size()].key;
        if (end->received_records()->Read(key) == nullptr) continue;
        end->received_records()->Stage(number, key, nullptr);
        ++num_lost;
      }
    }
    ExpectSameStep(&undisturbed, &disturbed, number, step);
    if (HasFatalFailure()) return;
  }

  EXPECT_GT(num_lost, 400);
  // A record that the sender replaced by a whole value was not missed.
  EXPECT_GT(disturbed.down->counters().keyframes_requested, num_lost / 4);
  EXPECT_GT(disturbed.up->counters().keyframes_requested, num_lost / 4);
}

TEST(BoundaryEndTest, ATensorThatDoesNotComeNamesPeerStepAndMicrobatch) {
  auto ends = CreateLoopbackChannelPair(1 << 20, 1 << 24, "down", "up");
  BoundaryEndOptions options = Options(false);
  options.max_wait = std::chrono::milliseconds(20);
  auto down =
      BoundaryEnd::Create(
          options, FrameChannel::Create(std::move(ends.second), {}).value())
          .value();
  down->Expect(118, 5, {{1, 0}}, false);

  const auto tensor = down->Await(118, 5, false);

  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(tensor.status().ToString(),
              AllOf(HasSubstr("worker-1 (stage 2, replica 0)"),
                    HasSubstr("boundary 2, step 119, micro-batch 5")));
}

TEST(BoundaryEndTest, ATensorOutOfTurnIsRefusedAndEndsBothWaits) {
  Pair pair({});
  const std::vector<BoundarySample> samples = {{4, 0}};
  pair.down->Expect(3, 1, samples, false);
  pair.up->Send(3, 2, samples, Tensor(std::vector<float>(kElements, 1.0f)),
                false);

  const auto tensor = pair.down->Await(3, 1, false);

  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(tensor.status().ToString(),
              AllOf(HasSubstr("got activation, step 4, mb 2"),
                    HasSubstr("expected step 4, micro-batch 1"),
                    HasSubstr("worker-1 (stage 2, replica 0)")));
  EXPECT_EQ(pair.down->AwaitHashes(3).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(BoundaryEndTest, CancelWakesAWaitWithItsReason) {
  Pair pair({});
  pair.down->Expect(0, 0, {{4, 0}}, false);
  Thread cancel("cancel", [&] {
    pair.down->Cancel(absl::CancelledError("the job was cancelled"));
  });

  const auto tensor = pair.down->Await(0, 0, false);

  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(tensor.status().ToString(), HasSubstr("the job was cancelled"));
}

// END(k): in every third step the upstream end stops before a random
// micro-batch, on a link that loses, repeats and reorders. The state of both
// ends is that of an undisturbed pair which was only ever given what was done.
TEST(BoundaryEndTest, AStepThatEndsEarlyTouchesNothingOfWhatIsLeftOut) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  FaultOptions faults;
  faults.seed = kSeed;
  faults.loss = 0.02;
  faults.repeat = 0.02;
  faults.reorder = 0.02;
  faults.corrupt = 0.02;
  Pair undisturbed({});
  Pair disturbed(faults);
  Visits visits;
  std::mt19937 random(kSeed);

  for (uint32_t number = 0; number < 90; ++number) {
    Step step = visits.Next(6, 3);
    const uint32_t end = number % 3 == 0 ? 1 + random() % 5 : 6;
    for (uint32_t mb = 0; mb < 6; ++mb) {
      disturbed.down->Expect(number, mb, step.microbatches[mb], false);
      disturbed.up->Expect(number, mb, step.microbatches[mb], false);
    }
    for (uint32_t mb = 0; mb < end; ++mb) {
      disturbed.up->Send(number, mb, step.microbatches[mb],
                         Tensor(step.activations[mb]), false);
      disturbed.down->Send(number, mb, step.microbatches[mb],
                           Tensor(step.gradients[mb]), false);
    }
    if (end < 6) disturbed.up->EndStep(number, end);
    std::vector<std::vector<float>> received;
    for (uint32_t mb = 0; mb < end; ++mb) {
      for (BoundaryEnd* side : {disturbed.down.get(), disturbed.up.get()}) {
        const auto tensor = side->Await(number, mb, false);
        ASSERT_TRUE(tensor.ok()) << tensor.status();
        ASSERT_FALSE(tensor->has_ended);
        received.push_back(Values(tensor->tensor));
      }
    }
    for (uint32_t mb = end; mb < 6; ++mb) {
      const auto tensor = disturbed.down->Await(number, mb, false);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_TRUE(tensor->has_ended) << "micro-batch " << mb;
    }
    disturbed.up->CommitStep(number);
    disturbed.down->CommitStep(number);
    const auto up = disturbed.up->AwaitHashes(number);
    const auto down = disturbed.down->AwaitHashes(number);
    ASSERT_TRUE(up.ok()) << up.status();
    ASSERT_TRUE(down.ok()) << down.status();

    step.microbatches.resize(end);
    const Outcome expected = RunStep(&undisturbed, number, step);
    ASSERT_EQ(received, expected.received) << "step " << number;
    ASSERT_EQ(up->sent, expected.up.sent);
    ASSERT_EQ(up->received, expected.up.received);
    ASSERT_EQ(down->sent, expected.down.sent);
    ASSERT_EQ(down->received, expected.down.received);
  }
}

TEST(BoundaryEndTest, AnEndOfTheStepIsRefusedWhereGradientsAreExpected) {
  Pair pair({});
  pair.up->Expect(0, 0, {{1, 0}}, false);

  pair.down->EndStep(0, 0);

  const auto tensor = pair.up->Await(0, 0, false);
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(tensor.status().message()),
              testing::HasSubstr("end of its step"));
}

}  // namespace
}  // namespace deltapipe
