// Initial weights that depend on (seed, parameter name) alone: the same for any
// partition into stages and any machine with the same libm.
#ifndef DELTAPIPE_WORKER_STAGE_INITIAL_WEIGHTS_H_
#define DELTAPIPE_WORKER_STAGE_INITIAL_WEIGHTS_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace deltapipe {

/// Fills `values` with mean + deviation * standard normals.
void FillInitialWeights(uint64_t seed, const std::string& name, double mean,
                        double deviation, absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_INITIAL_WEIGHTS_H_
