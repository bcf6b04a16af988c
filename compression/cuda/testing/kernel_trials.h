// Trials that hold a DeviceCodec to the host's codecs, bit by bit: run on the
// host by ordinary tests, and on a GPU by tests/gpu.
//
//   CheckDeltaChain("delta(int(4))", {MakeHostLaunchedCodec, memory});
//
// All add gtest failures; seeds are in their traces.
#ifndef DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_TRIALS_H_
#define DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_TRIALS_H_

#include <memory>
#include <string>
#include <vector>

#include "compression/cuda/device_memory.h"
#include "compression/cuda/testing/carried_codec.h"

namespace deltapipe {

struct TrialDevice {
  DeviceCodecMaker make;
  // Shared with the codecs that are tried.
  std::shared_ptr<DeviceMemory> memory;
};

/// Payloads and decoded values equal the host's for values of all kinds (NaN,
/// infinities, zeros, many magnitudes) at sizes 0, 1, odd and random.
void CheckPayloadsEqualTheHosts(const std::string& codec,
                                const TrialDevice& device);

/// Over many steps of values that drift, jump and at times are not finite,
/// sender and receiver of delta(...) have the host's payloads, choices, records
/// and used values.
void CheckDeltaChain(const std::string& codec, const TrialDevice& device);

/// The same of payloads and residuals of ef(`inner`).
void CheckFeedbackChain(const std::string& inner, const TrialDevice& device);

/// Texts for the two chains.
std::vector<std::string> DeltaChainCodecs();
std::vector<std::string> FeedbackChainCodecs();

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_TRIALS_H_
