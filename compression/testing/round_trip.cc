#include "compression/testing/round_trip.h"

#include <cmath>
#include <random>
#include <utility>

#include "gtest/gtest.h"

namespace deltapipe {

std::unique_ptr<Codec> MakeForTest(const std::string& text) {
  auto codec = MakeCodec(text);
  if (!codec.ok()) {
    ADD_FAILURE() << codec.status();
    return nullptr;
  }
  return *std::move(codec);
}

std::vector<uint8_t> EncodeForTest(const Codec& codec,
                                   absl::Span<const float> in,
                                   const TestEncoding& encoding) {
  std::vector<uint8_t> payload(codec.MaxPayloadBytes(in.size()));
  const auto size =
      encoding.memory == nullptr
          ? codec.Encode(in, encoding.key, absl::MakeSpan(payload))
          : codec.EncodeNext(in, encoding.key, encoding.memory,
                             absl::MakeSpan(payload));
  EXPECT_TRUE(size.ok()) << size.status();
  payload.resize(size.value_or(0));
  return payload;
}

std::vector<uint8_t> EncodeForTest(const std::string& text,
                                   absl::Span<const float> in,
                                   const TestEncoding& encoding) {
  const auto codec = MakeForTest(text);
  if (codec == nullptr) return {};
  return EncodeForTest(*codec, in, encoding);
}

std::vector<float> DecodeForTest(const Codec& codec,
                                 absl::Span<const uint8_t> payload,
                                 size_t count) {
  // What a decoder leaves out is neither a value nor a zero.
  std::vector<float> out(count, 1e9f);
  const absl::Status status = codec.Decode(payload, absl::MakeSpan(out));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

std::vector<float> RoundTrip(const Codec& codec, absl::Span<const float> in,
                             const TestEncoding& encoding) {
  return DecodeForTest(codec, EncodeForTest(codec, in, encoding), in.size());
}

std::vector<float> RoundTrip(const std::string& text,
                             absl::Span<const float> in,
                             const TestEncoding& encoding) {
  const auto codec = MakeForTest(text);
  if (codec == nullptr) return {};
  return RoundTrip(*codec, in, encoding);
}

std::vector<float> LognormalValues(const Lognormal& distribution, size_t count,
                                   uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    const double magnitude =
        std::exp(distribution.sigma * normal(generator) + distribution.mean);
    value = static_cast<float>(generator() % 2 == 0 ? magnitude : -magnitude);
  }
  return values;
}

std::vector<float> LaplaceValues(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::exponential_distribution<double> exponential;
  std::vector<float> values(count);
  for (float& value : values) {
    const double magnitude = exponential(generator);
    value = static_cast<float>(generator() % 2 == 0 ? magnitude : -magnitude);
  }
  return values;
}

}  // namespace deltapipe
