// Runs a test once with each vector instruction set that this machine has, so
// that the paths for lesser machines are tested too.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_VECTOR_TARGETS_FOR_TEST_H_
#define DELTAPIPE_COMPRESSION_KERNELS_VECTOR_TARGETS_FOR_TEST_H_

#include "gtest/gtest.h"
#include "hwy/highway.h"

namespace deltapipe {

template <class Function>
void ForEachVectorTarget(Function function) {
  const int64_t all = hwy::SupportedTargets();
  for (int64_t targets = all; targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    SCOPED_TRACE(hwy::TargetName(targets & -targets));
    function();
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_VECTOR_TARGETS_FOR_TEST_H_
