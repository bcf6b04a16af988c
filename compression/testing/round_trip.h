// A codec's text and values in, payloads and values out: what the tests of
// codecs begin with. Whatever fails on the way is a failure of the running
// test.
//
//   const std::vector<float> y = RoundTrip("int(4)", x);
//   std::vector<float> memory;
//   RoundTrip("lowrank(4)", x, {RandomKey(), &memory});
//
// Used from tests only.
#ifndef DELTAPIPE_COMPRESSION_TESTING_ROUND_TRIP_H_
#define DELTAPIPE_COMPRESSION_TESTING_ROUND_TRIP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/codec.h"

namespace deltapipe {

/// How a test encodes: under which key and, for EncodeNext, with which memory.
struct TestEncoding {
  RandomKey key;
  /// Null: Encode is called.
  std::vector<float>* memory = nullptr;
};

/// Null after an error.
std::unique_ptr<Codec> MakeForTest(const std::string& text);

/// The payload, of the size that was written; empty after an error.
std::vector<uint8_t> EncodeForTest(const Codec& codec,
                                   absl::Span<const float> in,
                                   const TestEncoding& encoding = {});
std::vector<uint8_t> EncodeForTest(const std::string& text,
                                   absl::Span<const float> in,
                                   const TestEncoding& encoding = {});

/// `count` values; unspecified ones after an error.
std::vector<float> DecodeForTest(const Codec& codec,
                                 absl::Span<const uint8_t> payload,
                                 size_t count);

/// As many values as `in` has; none where `text` makes no codec.
std::vector<float> RoundTrip(const Codec& codec, absl::Span<const float> in,
                             const TestEncoding& encoding = {});
std::vector<float> RoundTrip(const std::string& text,
                             absl::Span<const float> in,
                             const TestEncoding& encoding = {});

/// exp(mean + sigma * z), z standard normal, of either sign: what gradients are
/// nearly.
struct Lognormal {
  double sigma = 1;
  double mean = 0;
};
std::vector<float> LognormalValues(const Lognormal& distribution, size_t count,
                                   uint32_t seed);

/// Of mean 0 and scale 1.
std::vector<float> LaplaceValues(size_t count, uint32_t seed);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_ROUND_TRIP_H_
