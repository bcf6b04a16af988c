// The codecs that have CUDA kernels, in settings that reach all of their code:
// for tests on the host and on a GPU.
#ifndef DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_SETTINGS_H_
#define DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_SETTINGS_H_

#include <string>
#include <vector>

#include "compression/testing/codec_conformance.h"

namespace deltapipe {

/// A text and its block, as codec_conformance_test.cc has them.
std::vector<ConformanceCase> KernelConformanceCases();

/// The texts alone; those whose payloads equal the host's in every bit.
std::vector<std::string> BitEqualKernels();

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_TESTING_KERNEL_SETTINGS_H_
