// The property that delta channels stand on: whatever happens to bodies and to
// the receiver's records, both ends hold the same state after each step, and
// the receiver's values are those of a channel where nothing happened, bit for
// bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "compression/delta/boundary_codec.h"

namespace deltapipe {
namespace {

constexpr int64_t kElements = 80;
constexpr int kNumVisits = 10000;
constexpr uint64_t kNumSamples = 300;
constexpr uint32_t kSeed = 20261121;

struct Scenario {
  const char* name;
  const char* codec;
  int64_t capacity_bytes;
  bool damages_records;
  bool is_on_disk = false;
};

/// One channel: a sender and its receiver.
class Channel {
 public:
  explicit Channel(const Scenario& scenario) {
    BoundaryOptions options;
    options.codec = scenario.codec;
    options.seed = 99;
    options.boundary_id = 1;
    options.elements_per_sample = kElements;
    options.state_capacity_bytes = scenario.capacity_bytes;
    if (scenario.is_on_disk) options.state_folder = testing::TempDir();
    encoder = BoundaryEncoder::Create(options).value();
    decoder = BoundaryDecoder::Create(options).value();
  }

  std::unique_ptr<BoundaryEncoder> encoder;
  std::unique_ptr<BoundaryDecoder> decoder;
};

class ReplicatedStateTest : public testing::TestWithParam<Scenario> {
 protected:
  ReplicatedStateTest()
      : disturbed_(GetParam()), undisturbed_(GetParam()), random_(kSeed) {}

  uint32_t Draw(uint32_t below) {
    return std::uniform_int_distribution<uint32_t>(0, below - 1)(random_);
  }

  /// The sample's activation now: it drifts, and sometimes jumps.
  void AppendActivation(uint64_t key, std::vector<float>* values) {
    std::vector<float>& activation = activations_[key];
    std::normal_distribution<float> normal;
    const bool jumps = activation.empty() || Draw(20) == 0;
    activation.resize(kElements);
    for (float& value : activation) {
      value = jumps ? normal(random_) : value + 0.1f * normal(random_);
    }
    values->insert(values->end(), activation.begin(), activation.end());
  }

  /// Destroys records of the receiver, or sets them back to a former version.
  void DamageRecords(uint32_t step) {
    StateStore* store = disturbed_.decoder->state();
    if (Draw(2) == 0) {
      const uint64_t key = Draw(kNumSamples);
      store->Stage(step, key, nullptr);
      damaged_.insert(key);
      ++num_destroyed_;
    }
    if (Draw(2) == 0 && !former_.empty()) {
      const auto& [key, record] = former_[Draw(former_.size())];
      if (const RecordPtr now = store->Read(key);
          now != nullptr && now->version > record->version) {
        store->Stage(step, key, record);
        damaged_.insert(key);
        ++num_made_stale_;
      }
    }
    const uint64_t key = Draw(kNumSamples);
    if (RecordPtr record = store->Read(key)) {
      former_.emplace_back(key, std::move(record));
      if (former_.size() > 50) former_.pop_front();
    }
  }

  /// Every damaged form of `body` must be refused with the state untouched.
  void TryDamagedBodies(uint32_t step,
                        const std::vector<BoundarySample>& samples,
                        const Buffer& body, const Buffer* keyframes) {
    const uint64_t hash = disturbed_.decoder->StateHash();
    std::vector<float> values(samples.size() * kElements);
    std::vector<uint64_t> missing;
    std::vector<uint8_t> bytes(body.span().begin(), body.span().end());
    const auto expect_refused = [&](const std::vector<uint8_t>& damaged) {
      EXPECT_EQ(disturbed_.decoder
                    ->Decode(step, samples, damaged, false,
                             absl::MakeSpan(values), &missing)
                    .code(),
                absl::StatusCode::kInvalidArgument);
      ++num_refused_;
    };
    std::vector<uint8_t> flipped = bytes;
    flipped[Draw(flipped.size())] ^= static_cast<uint8_t>(1 << Draw(8));
    expect_refused(flipped);
    expect_refused({bytes.begin(), bytes.begin() + Draw(bytes.size())});
    std::vector<uint8_t> longer = bytes;
    longer.push_back(0);
    expect_refused(longer);
    if (!last_body_.empty()) expect_refused(last_body_);
    std::vector<BoundarySample> others = samples;
    others[Draw(others.size())].key += 1;
    EXPECT_EQ(disturbed_.decoder
                  ->Decode(step, others, bytes, false, absl::MakeSpan(values),
                           &missing)
                  .code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(disturbed_.decoder
                  ->Decode(step + 1, samples, bytes, false,
                           absl::MakeSpan(values), &missing)
                  .code(),
              absl::StatusCode::kInvalidArgument);
    if (keyframes != nullptr) {
      std::vector<uint8_t> frames(keyframes->span().begin(),
                                  keyframes->span().end());
      frames[Draw(frames.size())] ^= static_cast<uint8_t>(1 << Draw(8));
      EXPECT_EQ(disturbed_.decoder
                    ->ApplyKeyframes(step, samples, bytes, frames,
                                     absl::MakeSpan(values))
                    .code(),
                absl::StatusCode::kInvalidArgument);
      ++num_refused_;
    }
    EXPECT_EQ(disturbed_.decoder->StateHash(), hash);
  }

  /// One micro-batch through both channels; the values must be equal.
  void SendMicrobatch(uint32_t step,
                      const std::vector<BoundarySample>& samples) {
    std::vector<float> values;
    for (const BoundarySample& sample : samples) {
      AppendActivation(sample.key, &values);
    }
    std::vector<float> expected(values.size());
    std::vector<float> received(values.size());
    std::vector<uint64_t> missing;
    Buffer body;
    Buffer disturbed_body;
    Buffer keyframes;
    ASSERT_TRUE(
        undisturbed_.encoder->Encode(step, samples, values, false, &body).ok());
    ASSERT_TRUE(undisturbed_.decoder
                    ->Decode(step, samples, body.span(), false,
                             absl::MakeSpan(expected), &missing)
                    .ok());
    ASSERT_THAT(missing, testing::IsEmpty());

    ASSERT_TRUE(disturbed_.encoder
                    ->Encode(step, samples, values, false, &disturbed_body)
                    .ok());
    ASSERT_EQ(disturbed_body.span(), body.span());
    if (Draw(4) == 0) TryDamagedBodies(step, samples, body, nullptr);
    ASSERT_TRUE(disturbed_.decoder
                    ->Decode(step, samples, body.span(), false,
                             absl::MakeSpan(received), &missing)
                    .ok());
    if (!missing.empty()) {
      num_healed_ += static_cast<int>(missing.size());
      ASSERT_TRUE(
          disturbed_.encoder->EncodeKeyframes(missing, &keyframes).ok());
      if (Draw(4) == 0) TryDamagedBodies(step, samples, body, &keyframes);
      ASSERT_TRUE(disturbed_.decoder
                      ->ApplyKeyframes(step, samples, body.span(),
                                       keyframes.span(),
                                       absl::MakeSpan(received))
                      .ok());
    }
    ASSERT_EQ(std::memcmp(received.data(), expected.data(),
                          received.size() * sizeof(float)),
              0);
    for (const BoundarySample& sample : samples) damaged_.erase(sample.key);
    last_body_.assign(body.span().begin(), body.span().end());
  }

  /// Every record that was not damaged since its last visit is the same at both
  /// ends, those that a keyframe healed included.
  void ExpectEqualRecords() {
    for (uint64_t key = 0; key < kNumSamples; ++key) {
      if (damaged_.count(key) != 0) continue;
      const RecordPtr sent = disturbed_.encoder->state()->Read(key);
      const RecordPtr received = disturbed_.decoder->state()->Read(key);
      ASSERT_EQ(received != nullptr, sent != nullptr) << "key " << key;
      if (sent == nullptr) continue;
      ASSERT_EQ(received->version, sent->version) << "key " << key;
      ASSERT_EQ(received->values.span(), sent->values.span()) << "key " << key;
    }
  }

  Channel disturbed_;
  Channel undisturbed_;
  std::mt19937 random_;
  std::vector<float> activations_[kNumSamples];
  std::deque<std::pair<uint64_t, RecordPtr>> former_;
  std::set<uint64_t> damaged_;  // keys of records not visited since
  std::vector<uint8_t> last_body_;
  int num_destroyed_ = 0;
  int num_made_stale_ = 0;
  int num_healed_ = 0;
  int num_refused_ = 0;
};

TEST_P(ReplicatedStateTest, SurvivesDestroyedStaleAndDamagedData) {
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  int num_visits = 0;
  for (uint32_t step = 1; num_visits < kNumVisits; ++step) {
    // Samples become known by and by: warm and cold ones mix in a micro-batch.
    const uint32_t num_known =
        std::min<uint32_t>(kNumSamples, 10 + step * 300 / 1000);
    uint32_t slot = 0;
    for (int microbatch = 0; microbatch < 2; ++microbatch) {
      std::vector<BoundarySample> samples(1 + Draw(7));
      for (BoundarySample& sample : samples) {
        sample = {Draw(num_known), slot++};
      }
      if (Draw(10) == 0) samples.back().key = samples.front().key;
      if (GetParam().damages_records) DamageRecords(step);
      SendMicrobatch(step, samples);
      if (HasFatalFailure()) FAIL() << "step " << step;
      num_visits += static_cast<int>(samples.size());
    }
    ASSERT_EQ(undisturbed_.encoder->StateHash(),
              undisturbed_.decoder->StateHash())
        << "step " << step;
    ASSERT_EQ(disturbed_.encoder->StateHash(),
              undisturbed_.encoder->StateHash())
        << "step " << step;
    if (damaged_.empty()) {
      ASSERT_EQ(disturbed_.decoder->StateHash(),
                undisturbed_.decoder->StateHash())
          << "step " << step;
    }
    ExpectEqualRecords();
    if (HasFatalFailure()) FAIL() << "step " << step;
    for (Channel* channel : {&disturbed_, &undisturbed_}) {
      channel->encoder->CommitStep(step);
      channel->decoder->CommitStep(step);
    }
  }
  // The faults did happen.
  EXPECT_GT(num_refused_, 1000);
  if (GetParam().damages_records) {
    EXPECT_GT(num_destroyed_, 100);
    EXPECT_GT(num_made_stale_, 50);
    EXPECT_GT(num_healed_, 100);
  } else {
    EXPECT_EQ(num_healed_, 0);
  }
  const BoundaryCounters counters = disturbed_.decoder->counters();
  EXPECT_GT(counters.delta_rows, 1000);
  EXPECT_GT(counters.value_rows, 300);
  EXPECT_GE(counters.keyframe_rows, num_healed_);
  EXPECT_EQ(counters.samples, num_visits);
}

INSTANTIATE_TEST_SUITE_P(
    Channels, ReplicatedStateTest,
    testing::Values(
        Scenario{"Bf16", "delta(int(4),first=int(8))", INT64_MAX, true},
        Scenario{"OnlyBodies", "delta(int(4),first=int(8))", INT64_MAX, false},
        Scenario{"Evicting", "delta(int(4),first=int(8))", 120 * 2 * kElements,
                 true},
        Scenario{"Stochastic", "delta(int(3,round=stochastic),first=int(8))",
                 INT64_MAX, true},
        Scenario{"Fp32", "delta(sign,first=cast(bf16),store=fp32)",
                 100 * 4 * kElements, true},
        Scenario{"OnDisk", "delta(int(4),first=int(8))", 120 * 2 * kElements,
                 true, true},
        Scenario{"Int8", "delta(int(4),first=int(8),store=int(8))", INT64_MAX,
                 true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace deltapipe
