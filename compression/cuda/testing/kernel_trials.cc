#include "compression/cuda/testing/kernel_trials.h"

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/float_cast.h"
#include "compression/codec.h"
#include "compression/cuda/device_codec.h"
#include "compression/delta/boundary_spec.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/error_feedback.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr uint32_t kSeeds[] = {1, 20261122, 777};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> MixedValues(size_t count, std::mt19937* random) {
  static constexpr float kScales[] = {1,     1e-3f,  1e4f, 1e-42f,
                                      1e30f, 1e-30f, 0,    -0.0f};
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    // A scale for 32 values, and among them at times one of another kind.
    const size_t scale = i / 32 % 11;
    values[i] = normal(*random) * kScales[scale < 8 ? scale : 0];
    const uint32_t kind = (*random)() % 600;
    if (kind == 0) values[i] = kNaN;
    if (kind == 1) values[i] = -kInfinity;
    if (kind == 2) values[i] = FLT_MAX;
    if (kind < 20 && kind > 2) values[i] = -2.5f;
  }
  return values;
}

std::vector<uint8_t> Encode(const Codec& codec, absl::Span<const float> in,
                            const RandomKey& key) {
  std::vector<uint8_t> payload(codec.MaxPayloadBytes(in.size()), 0xEE);
  const auto size = codec.Encode(in, key, absl::MakeSpan(payload));
  EXPECT_TRUE(size.ok()) << size.status();
  payload.resize(size.value_or(0));
  return payload;
}

std::vector<uint32_t> Bits(absl::Span<const float> values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(FloatBits(value));
  return bits;
}

std::vector<uint32_t> DecodedBits(const Codec& codec,
                                  const std::vector<uint8_t>& payload,
                                  size_t count) {
  std::vector<float> values(count, 123);
  const absl::Status status = codec.Decode(payload, absl::MakeSpan(values));
  EXPECT_TRUE(status.ok()) << status;
  return Bits(values);
}

/// The sender of compression/delta/boundary_encoder.cc, for one sample.
class HostDelta {
 public:
  explicit HostDelta(const std::string& text)
      : spec_(*ParseBoundarySpec(text, 0)) {}

  bool is_float32() const {
    return spec_.store == BoundarySpec::Store::kFloat32;
  }
  bool is_delta() const { return is_delta_; }
  /// As bytes, so that records compare by their bits.
  const std::vector<uint8_t>& record() const { return record_; }

  std::vector<uint32_t> RecordValues(size_t count) const {
    std::vector<float> values(count);
    is_float32() ? LoadRecord(As<float>(), values.data(), count)
                 : LoadRecord(As<uint16_t>(), values.data(), count);
    return Bits(values);
  }

  std::vector<uint8_t> Encode(const std::vector<float>& values,
                              const RandomKey& key) {
    std::vector<float> difference(values.size()), restored(values.size());
    is_delta_ = false;
    if (!record_.empty()) {
      const SquaredNorms norms = Subtract(values, &difference);
      is_delta_ = std::isfinite(norms.value) &&
                  norms.difference <= 0.7 * 0.7 * norms.value;
    }
    const Codec& codec = is_delta_ ? *spec_.codec : *spec_.first;
    std::vector<uint8_t> payload =
        deltapipe::Encode(codec, is_delta_ ? difference : values, key);
    EXPECT_TRUE(codec.Decode(payload, absl::MakeSpan(restored)).ok());
    is_float32() ? Update<float>(restored) : Update<uint16_t>(restored);
    return payload;
  }

 private:
  SquaredNorms Subtract(const std::vector<float>& values,
                        std::vector<float>* difference) const {
    const int64_t count = values.size();
    return is_float32() ? SubtractRecord(values.data(), As<float>(),
                                         difference->data(), count)
                        : SubtractRecord(values.data(), As<uint16_t>(),
                                         difference->data(), count);
  }
  template <class Element>
  void Update(const std::vector<float>& restored) {
    std::vector<Element> next(restored.size());
    if (is_delta_) {
      AddToRecord(As<Element>(), restored.data(), next.data(), next.size());
    } else {
      StoreRecord(restored.data(), next.data(), next.size());
    }
    record_.resize(next.size() * sizeof(Element));
    std::memcpy(record_.data(), next.data(), record_.size());
  }
  template <class Element>
  const Element* As() const {
    return reinterpret_cast<const Element*>(record_.data());
  }

  const BoundarySpec spec_;
  std::vector<uint8_t> record_;
  bool is_delta_ = false;
};

/// Values that drift, now and then jump, and at times are not finite.
std::vector<float> NextValues(int step, const std::vector<float>& last,
                              std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> next = last;
  const float drift = step % 5 == 4 ? 10.0f : 0.1f;
  for (size_t i = 0; i < next.size(); ++i) {
    next[i] += drift * normal(*random) * (i / 100 % 3 == 0 ? 1e-3f : 1.0f);
  }
  float& middle = next[next.size() / 2];
  if (step == 6) middle = kNaN;
  if (step == 7) middle = 1;
  if (step == 8) next[0] = -kInfinity;
  if (step == 9) next[0] = FLT_MAX;
  if (step == 10) next[0] = 1;
  return next;
}

/// One end on the device: a codec, and a sample's values, state and payload.
class DeviceEnd {
 public:
  DeviceEnd(const std::string& text, int64_t count, const TrialDevice& device)
      : count_(count), memory_(device.memory.get()) {
    auto codec = device.make(text, count);
    EXPECT_TRUE(codec.ok()) << codec.status();
    codec_ = *std::move(codec);
    values_ = Allocate(4 * count);
    state_ = Allocate(4 * count);
    payload_ = Allocate(codec_->MaxPayloadBytes(count));
    words_ = Allocate(sizeof(cuda::EncodeOutcome));
  }

  /// The payload. The state is replaced where it lies.
  std::vector<uint8_t> Encode(bool is_feedback,
                              const std::vector<float>& values,
                              const RandomKey& key) {
    Put(values.data(), 4 * count_, *values_);
    const DeviceSample sample{values_->as<float>(), count_, Before(),
                              state_->get()};
    auto* const outcome = words_->as<cuda::EncodeOutcome>();
    uint8_t* const payload = payload_->as<uint8_t>();
    const absl::Status status =
        is_feedback
            ? codec_->EncodeFeedback(sample, key, payload, outcome, nullptr)
            : codec_->EncodeDelta(sample, key, payload, outcome, nullptr);
    EXPECT_TRUE(status.ok()) << status;
    has_state_ = true;
    cuda::EncodeOutcome result{};
    EXPECT_TRUE(memory_->CopyFromDevice(outcome, sizeof(result), &result).ok());
    is_delta_ = result.is_delta != 0;
    std::vector<uint8_t> bytes(result.payload_bytes);
    EXPECT_TRUE(
        memory_->CopyFromDevice(payload, bytes.size(), bytes.data()).ok());
    return bytes;
  }

  /// The used values.
  std::vector<uint32_t> Decode(const std::vector<uint8_t>& payload,
                               bool is_delta) {
    Put(payload.data(), payload.size(), *payload_);
    uint32_t problem = 0;
    Put(&problem, sizeof(problem), *words_);
    const absl::Status status = codec_->DecodeDelta(
        {payload_->as<uint8_t>(), static_cast<int64_t>(payload.size()),
         words_->as<uint32_t>()},
        is_delta, {nullptr, count_, Before(), state_->get()},
        values_->as<float>(), nullptr);
    EXPECT_TRUE(status.ok()) << status;
    has_state_ = true;
    EXPECT_TRUE(
        memory_->CopyFromDevice(words_->get(), sizeof(problem), &problem).ok());
    EXPECT_EQ(problem, 0u);
    std::vector<float> values(count_);
    EXPECT_TRUE(
        memory_->CopyFromDevice(values_->get(), 4 * count_, values.data())
            .ok());
    return Bits(values);
  }

  bool is_delta() const { return is_delta_; }
  std::vector<uint8_t> State(size_t bytes) {
    std::vector<uint8_t> state(bytes);
    EXPECT_TRUE(
        memory_->CopyFromDevice(state_->get(), bytes, state.data()).ok());
    return state;
  }

 private:
  std::unique_ptr<DeviceBytes> Allocate(int64_t bytes) {
    auto memory = DeviceBytes::Create(memory_, bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    return std::make_unique<DeviceBytes>(*std::move(memory));
  }
  void Put(const void* from, int64_t bytes, const DeviceBytes& to) {
    EXPECT_TRUE(memory_->CopyToDevice(from, bytes, to.get()).ok());
  }
  const void* Before() const { return has_state_ ? state_->get() : nullptr; }

  const int64_t count_;
  DeviceMemory* const memory_;
  std::unique_ptr<DeviceCodec> codec_;
  std::unique_ptr<DeviceBytes> values_, state_, payload_, words_;
  bool has_state_ = false;
  bool is_delta_ = false;
};

void CheckDeltaSteps(const std::string& codec, const TrialDevice& device,
                     uint32_t seed, size_t count) {
  constexpr int kNumSteps = 16;
  std::mt19937 random(seed);
  HostDelta host(codec);
  DeviceEnd sender(codec, count, device), receiver(codec, count, device);
  std::vector<float> values(count);
  int num_deltas = 0;
  for (int step = 0; step < kNumSteps; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    values = NextValues(step, values, &random);
    const RandomKey key{seed, 1, static_cast<uint32_t>(step), 2, 0};
    const std::vector<uint8_t> expected = host.Encode(values, key);

    const std::vector<uint8_t> payload = sender.Encode(false, values, key);
    const std::vector<uint32_t> used =
        receiver.Decode(payload, sender.is_delta());

    ASSERT_EQ(sender.is_delta(), host.is_delta());
    ASSERT_EQ(payload, expected);
    ASSERT_EQ(sender.State(host.record().size()), host.record());
    ASSERT_EQ(receiver.State(host.record().size()), host.record());
    ASSERT_EQ(used, host.RecordValues(count));
    num_deltas += host.is_delta();
  }
  if (count == 1) return;
  EXPECT_GT(num_deltas, 3);
  EXPECT_LT(num_deltas, kNumSteps - 2);
}

void CheckFeedbackSteps(const std::string& inner, const TrialDevice& device,
                        uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  const auto codec = MakeCodec(inner);
  ErrorFeedback host(codec->get(), count);
  DeviceEnd sender(absl::StrCat("ef(", inner, ")"), count, device);
  std::vector<float> residual(count), values(count);
  for (int step = 0; step < 12; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    values = NextValues(step, values, &random);
    const RandomKey key{seed, 1, static_cast<uint32_t>(step), 2, 0};
    std::vector<uint8_t> expected((*codec)->MaxPayloadBytes(count));
    const auto size =
        host.Encode(values, step == 0 ? nullptr : residual.data(), key,
                    absl::MakeSpan(expected), residual.data());
    ASSERT_TRUE(size.ok()) << size.status();
    expected.resize(*size);

    ASSERT_EQ(sender.Encode(true, values, key), expected);

    std::vector<uint8_t> expected_state(4 * count);
    std::memcpy(expected_state.data(), residual.data(), 4 * count);
    ASSERT_EQ(sender.State(4 * count), expected_state);
  }
}

}  // namespace

void CheckPayloadsEqualTheHosts(const std::string& codec,
                                const TrialDevice& device) {
  SCOPED_TRACE(codec);
  const auto host = MakeCodec(codec);
  ASSERT_TRUE(host.ok()) << host.status();
  const auto kernels = MakeCarriedCodec(codec, device.make, device.memory);
  ASSERT_TRUE(kernels.ok()) << kernels.status();
  for (const uint32_t seed : kSeeds) {
    std::mt19937 random(seed);
    std::vector<size_t> sizes = {0, 1, 15, 16, 63, 64, 65, 129, 4096};
    for (int i = 0; i < 3; ++i) sizes.push_back(random() % 9000);
    for (const size_t size : sizes) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", size ", size));
      const std::vector<float> values = MixedValues(size, &random);
      const RandomKey key{seed, 3, static_cast<uint32_t>(size), 5, 1};

      const std::vector<uint8_t> expected = Encode(**host, values, key);

      ASSERT_EQ(Encode(**kernels, values, key), expected);
      ASSERT_EQ(DecodedBits(**kernels, expected, size),
                DecodedBits(**host, expected, size));
    }
  }
}

void CheckDeltaChain(const std::string& codec, const TrialDevice& device) {
  SCOPED_TRACE(codec);
  for (const uint32_t seed : kSeeds) {
    for (const size_t count : {1, 63, 2085}) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", count ", count));
      CheckDeltaSteps(codec, device, seed, count);
    }
  }
  // Norms in more runs than are summed at once.
  if (codec == DeltaChainCodecs().front()) {
    CheckDeltaSteps(codec, device, kSeeds[0], 300'001);
  }
}

void CheckFeedbackChain(const std::string& inner, const TrialDevice& device) {
  SCOPED_TRACE(inner);
  for (const uint32_t seed : kSeeds) {
    for (const size_t count : {1, 777, 5000}) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, ", count ", count));
      CheckFeedbackSteps(inner, device, seed, count);
    }
  }
}

std::vector<std::string> DeltaChainCodecs() {
  return {"delta(int(4))",
          "delta(int(4),store=fp32)",
          "delta(int(4,block=256,round=stochastic,levels=affine,scale=bf16))",
          "delta(int(3,clip=minmax,levels=affine,scale=fp32),first=int(8))",
          "delta(int(2,round=stochastic),first=cast(bf16))",
          "delta(int(4,block=128),first=int(8))",
          "delta(int(3,block=16,clip=minmax),first=int(6,block=16))",
          "delta(luq)",
          "delta(luq(block=0,samples=2),store=fp32)",
          "delta(fp(2,1),first=none)",
          "delta(sign(scale=mean))",
          "delta(rowwise4(row=37),first=rowwise4(row=50))",
          "delta(aqsgd(4,row=21),first=aqsgd(8))",
          "delta(cast(fp16),first=int(8,block=32))",
          "delta(int(4),first=prune(0.5))"};
}

std::vector<std::string> FeedbackChainCodecs() {
  return {"sign", "sign(block=64,scale=mean)", "int(4)",   "int(2,block=48)",
          "luq",  "fp(3,0,block=0)",           "rowwise4", "prune(0.85)"};
}

}  // namespace deltapipe
