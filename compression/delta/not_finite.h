// How many values of a tensor are NaN or infinite: what reports count.
#ifndef DELTAPIPE_COMPRESSION_DELTA_NOT_FINITE_H_
#define DELTAPIPE_COMPRESSION_DELTA_NOT_FINITE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

/// NaNs and infinities among `values`, any number of them at any alignment, by
/// the machine's best vector instructions: one read of the memory.
int64_t CountNotFinite(absl::Span<const float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_NOT_FINITE_H_
