// A warm channel allocates nothing: each sample has been seen, and bodies as
// large. In steps as they are, and in steps that are rolled back and healed.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/buffer.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/held_rows.h"
#include "compression/testing/allocation_meter.h"
#include "compression/testing/codec_settings.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr char kDelta[] = "delta(int(4),first=int(8),store=bf16)";
constexpr uint64_t kNumKeys = 8;
// A body of a step visits some keys, one of them twice; the next body of the
// step visits some of those again.
constexpr size_t kRowsOfABody = 4;
constexpr uint32_t kBodiesOfAStep = 2;
// All keys have been visited, in each position, and evicted where there is a
// cap.
constexpr uint32_t kWarmStep = 3 * kNumKeys;
constexpr uint32_t kLastStep = kWarmStep + 2 * kNumKeys;

struct Setting {
  std::string codec;
  int64_t elements = 1000;
  bool is_in_file = false;
  int64_t most_records = 0;  // 0: no cap
};
std::ostream& operator<<(std::ostream& out, const Setting& setting) {
  return out << setting.codec << " of " << setting.elements
             << (setting.is_in_file ? " in a file, " : ", ")
             << setting.most_records << " records";
}

BoundaryOptions OptionsOf(const Setting& setting) {
  BoundaryOptions options;
  options.codec = setting.codec;
  options.elements_per_sample = setting.elements;
  if (setting.is_in_file) options.state_folder = testing::TempDir();
  if (setting.most_records > 0) {
    const auto bytes =
        PredictBoundaryBytes(setting.codec, 1, setting.elements).value();
    options.state_capacity_bytes =
        setting.most_records * static_cast<int64_t>(bytes.state_per_sample);
  }
  return options;
}

/// Bytes that calls have allocated, by what was called.
struct Allocated {
  int64_t by_encoder = 0;
  int64_t by_decoder = 0;
};

/// Runs `call` and returns what it allocates.
template <typename Call>
int64_t BytesOf(const Call& call) {
  const AllocationMeter meter;
  call();
  return meter.bytes();
}

class Channel {
 public:
  explicit Channel(const Setting& setting)
      : encoder_(BoundaryEncoder::Create(OptionsOf(setting)).value()),
        decoder_(BoundaryDecoder::Create(OptionsOf(setting)).value()),
        elements_(static_cast<size_t>(setting.elements)),
        samples_(kRowsOfABody),
        pattern_(elements_ + 200),
        values_(kRowsOfABody * elements_),
        received_(values_.size()) {
    for (size_t i = 0; i < pattern_.size(); ++i) {
      pattern_[i] = static_cast<float>(i % 251) - 125.0f;
    }
  }

  /// Sends one body of a step, or of an evaluation in it. What the receiver
  /// has lost is healed.
  void Send(uint32_t step, uint32_t body, bool reads_only,
            Allocated* allocated) {
    FillIn(step, body);
    absl::Status status;
    allocated->by_encoder += BytesOf([&] {
      encoder_->Prefetch(keys_);
      status = encoder_->Encode(step, samples_, values_, reads_only, &body_);
    });
    ASSERT_TRUE(status.ok()) << status;
    allocated->by_decoder += BytesOf([&] {
      decoder_->Prefetch(keys_);
      status = decoder_->Decode(step, samples_, body_.span(), reads_only,
                                absl::MakeSpan(received_), &missing_);
    });
    ASSERT_TRUE(status.ok()) << status;
    if (missing_.empty()) return;
    ++num_healed_;
    allocated->by_encoder += BytesOf(
        [&] { status = encoder_->EncodeKeyframes(missing_, &keyframes_); });
    ASSERT_TRUE(status.ok()) << status;
    allocated->by_decoder += BytesOf([&] {
      status = decoder_->ApplyKeyframes(step, samples_, body_.span(),
                                        keyframes_.span(),
                                        absl::MakeSpan(received_));
    });
    ASSERT_TRUE(status.ok()) << status;
  }

  void Commit(uint32_t step, Allocated* allocated) {
    uint64_t hash = 0;
    uint64_t other_hash = 0;
    allocated->by_encoder += BytesOf([&] {
      encoder_->CommitStep(step);
      hash = encoder_->StateHash();
    });
    allocated->by_decoder += BytesOf([&] {
      decoder_->CommitStep(step);
      other_hash = decoder_->StateHash();
    });
    ASSERT_EQ(hash, other_hash);
  }

  void RollBackTo(uint32_t step, Allocated* allocated) {
    absl::Status status;
    allocated->by_encoder +=
        BytesOf([&] { status = encoder_->RollbackTo(step); });
    ASSERT_TRUE(status.ok()) << status;
    allocated->by_decoder +=
        BytesOf([&] { status = decoder_->RollbackTo(step); });
    ASSERT_TRUE(status.ok()) << status;
  }

  /// The receiver loses a record that it needs next.
  void Lose(uint32_t step) {
    FillIn(step, 0);
    if (decoder_->state() == nullptr) return;
    decoder_->state()->Stage(step, samples_[0].key, nullptr);
  }

  std::shared_ptr<const HeldRows> Hold() {
    std::vector<BoundarySample> held = samples_;
    held.pop_back();  // the key that comes twice
    return decoder_->Hold(held);
  }

  int num_healed() const { return num_healed_; }
  BoundaryCounters counters() const { return encoder_->counters(); }

 private:
  // Samples and values of a body: values that change a little at each step.
  void FillIn(uint32_t step, uint32_t body) {
    keys_.clear();
    for (size_t row = 0; row < kRowsOfABody; ++row) {
      const size_t place = row + 1 == kRowsOfABody ? 0 : row;
      samples_[row].key = 100 + (step + 2 * body + place) % kNumKeys;
      samples_[row].slot = static_cast<uint32_t>(row);
      keys_.push_back(samples_[row].key);
      const auto sample = values_.begin() + row * elements_;
      std::copy_n(pattern_.begin() + samples_[row].key, elements_, sample);
      for (size_t i = 0; i < elements_; i += 16) {
        sample[i] += 0.01f * static_cast<float>(step);
      }
    }
  }

  const std::unique_ptr<BoundaryEncoder> encoder_;
  const std::unique_ptr<BoundaryDecoder> decoder_;
  const size_t elements_;
  std::vector<BoundarySample> samples_;
  std::vector<uint64_t> keys_;
  std::vector<float> pattern_;  // samples begin at their keys
  std::vector<float> values_;
  std::vector<float> received_;
  std::vector<uint64_t> missing_;
  Buffer body_;
  Buffer keyframes_;
  int num_healed_ = 0;
};

class AllocationsTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { ASSERT_TRUE(AllocationMeter::is_counting()); }
};

TEST_P(AllocationsTest, AWarmChannelAllocatesNothing) {
  Channel channel(GetParam());
  for (uint32_t step = 1; step <= kLastStep; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    Allocated allocated;
    for (uint32_t body = 0; body < kBodiesOfAStep; ++body) {
      ASSERT_NO_FATAL_FAILURE(channel.Send(step, body, false, &allocated));
      ASSERT_NO_FATAL_FAILURE(channel.Send(step, body, true, &allocated));
    }
    ASSERT_NO_FATAL_FAILURE(channel.Commit(step, &allocated));
    if (step == 1) {
      ASSERT_GT(allocated.by_encoder, 0) << "nothing counts";
    }
    if (step <= kWarmStep) continue;
    EXPECT_EQ(allocated.by_encoder, 0);
    EXPECT_EQ(allocated.by_decoder, 0);
  }
  if (GetParam().most_records > 0) {
    EXPECT_GT(channel.counters().evictions, 0);
  }
}

TEST_P(AllocationsTest, NorDoesOneThatRollsBackAndHeals) {
  Channel channel(GetParam());
  for (uint32_t step = 1; step <= kLastStep; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    Allocated allocated;
    ASSERT_NO_FATAL_FAILURE(channel.Send(step, 0, false, &allocated));
    ASSERT_NO_FATAL_FAILURE(channel.Send(step, 1, false, &allocated));
    ASSERT_NO_FATAL_FAILURE(channel.RollBackTo(step - 1, &allocated));
    channel.Lose(step);
    ASSERT_NO_FATAL_FAILURE(channel.Send(step, 0, false, &allocated));
    ASSERT_NO_FATAL_FAILURE(channel.Commit(step, &allocated));
    if (step <= kWarmStep) continue;
    EXPECT_EQ(allocated.by_encoder, 0);
    EXPECT_EQ(allocated.by_decoder, 0);
  }
  if (GetParam().codec == kDelta) {
    EXPECT_GT(channel.num_healed(), 0);
  }
}

/// Each form of record in each store; every codec as it is and in wrappers.
std::vector<Setting> AllSettings() {
  std::vector<Setting> settings;
  for (const char* store : {"bf16", "fp32", "int(8)", "int(4)"}) {
    const std::string delta =
        absl::StrCat("delta(int(4),first=int(8),store=", store, ")");
    settings.push_back({delta});
    settings.push_back({delta, 1000, /*is_in_file=*/true});
    settings.push_back({delta, 1000, /*is_in_file=*/false, 5});
    settings.push_back({delta, 1000, /*is_in_file=*/true, 5});
  }
  for (const char* store : {"fp32", "int(8)", "int(4)"}) {
    const std::string feedback = absl::StrCat("ef(int(4),store=", store, ")");
    settings.push_back({feedback});
    settings.push_back({feedback, 1000, /*is_in_file=*/true});
    settings.push_back({feedback, 1000, /*is_in_file=*/false, 5});
  }
  settings.push_back({"ef(sign(block=128,scale=mean))"});
  // Records and bodies of 256 KiB or more, which Buffer keeps.
  for (const char* codec : {"delta(int(8),first=int(8))", "ef(sign)"}) {
    settings.push_back({codec, 140'000});
    settings.push_back({codec, 140'000, /*is_in_file=*/true});
  }
  for (const std::string& codec : AllExampleCodecs()) {
    for (const std::string& wrapped :
         {codec, absl::StrCat("delta(", codec, ")"),
          absl::StrCat("delta(int(4),first=", codec, ")"),
          absl::StrCat("ef(", codec, ")")}) {
      settings.push_back({wrapped});
    }
  }
  return settings;
}

INSTANTIATE_TEST_SUITE_P(Settings, AllocationsTest,
                         ::testing::ValuesIn(AllSettings()));

TEST(HeldRowsAllocationsTest, OnlyWhoHoldsRowsAllocates) {
  Channel channel({"delta(int(4),first=int(8),store=int(8))"});
  Allocated allocated;
  channel.Send(1, 0, false, &allocated);
  std::vector<float> values(3 * 1000);
  absl::Status status = channel.Hold()->Read(absl::MakeSpan(values));
  ASSERT_TRUE(status.ok()) << status;

  const auto held = channel.Hold();
  const int64_t bytes =
      BytesOf([&] { status = held->Read(absl::MakeSpan(values)); });

  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(bytes, 0);
}

}  // namespace
}  // namespace deltapipe
