// The trials that boundary_decoder_fuzzer repeats, from a fixed seed: runs
// wherever the suite runs, with gcc and under all sanitizers.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "compression/testing/boundary_trial.h"
#include "compression/testing/trial_input.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(BoundaryDecoderTrialTest, ForeignBodiesDecodeOrAreRefused) {
  std::mt19937 random(30);
  for (const std::string& codec : BoundarySettings()) {
    // Every size and choice of boundary_trial.cc, then damage.
    for (uint8_t size = 0; size < 4; ++size) {
      for (uint8_t choices = 0; choices < 16; ++choices) {
        std::vector<uint8_t> input = {size, 0, choices};
        input.resize(input.size() + random() % 40);
        for (size_t i = 3; i < input.size(); ++i) {
          input[i] = static_cast<uint8_t>(random());
        }
        ASSERT_EQ(TryBoundaryDecoder(codec, TrialInput(input)),
                  absl::OkStatus())
            << codec << ", size " << int{size} << ", choices " << int{choices};
      }
    }
  }
}

TEST(BoundaryDecoderTrialTest, WhatWasEncodedIsTaken) {
  for (const std::string& codec : BoundarySettings()) {
    // The second visit as it is, and healed by keyframes.
    for (const uint8_t choices : {0, 4}) {
      const std::vector<uint8_t> input = {2, 0, choices, 7};
      EXPECT_EQ(TryBoundaryDecoder(codec, TrialInput(input)), absl::OkStatus());
    }
  }
}

}  // namespace
}  // namespace deltapipe
