// One trial of a BoundaryDecoder with bodies that nobody vouches for.
//
//   absl::Status broken = TryBoundaryDecoder("delta(int(4))", input);
//
// Both ends take a first visit of some samples as a job would. What the second
// visit sends is damaged by `input`, or replaced by it, and sealed with the
// checksum that fits: checksums are for accidents, not for malice.
#ifndef DELTAPIPE_COMPRESSION_TESTING_BOUNDARY_TRIAL_H_
#define DELTAPIPE_COMPRESSION_TESTING_BOUNDARY_TRIAL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "compression/testing/trial_input.h"

namespace deltapipe {

/// Every stateless row of codecs.def at a boundary, as the codec of delta(...)
/// and as its `first`; the ways to store records.
std::vector<std::string> BoundarySettings();

/// The input chooses the size of samples, which visit, whether keyframes heal a
/// receiver that lost the first one, and what is damaged; an input that ends
/// there does no damage. OK if undamaged bodies decode and damaged ones decode,
/// name missing records, or are refused as INVALID_ARGUMENT or
/// FAILED_PRECONDITION; what is refused leaves the state as it was, and none
/// takes more memory than AllocationLimit of decoder_trial.h. Otherwise
/// INTERNAL says which of these is broken.
absl::Status TryBoundaryDecoder(const std::string& codec, TrialInput input);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_BOUNDARY_TRIAL_H_
