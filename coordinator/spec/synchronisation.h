// What a job spec says of how gradients are synchronised, in one place for
// validation, planning and the command line.
#ifndef DELTAPIPE_COORDINATOR_SPEC_SYNCHRONISATION_H_
#define DELTAPIPE_COORDINATOR_SPEC_SYNCHRONISATION_H_

#include <cstdint>
#include <string>

#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// Whether gradients travel as they are, or rounded, in every step with this
/// codec: an optimizer that compresses never does so then.
bool IsPlainGradientCodec(const std::string& codec);

/// The steps before compression of a valid spec; INT64_MAX for auto.
int64_t CompressAfterStep(const v1::TrainSpec& train);

/// "from step 200 on", "from step 200 (20%) on", "once it has settled (auto)",
/// "never in a run this short".
std::string CompressionBegins(const v1::TrainSpec& train);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_SYNCHRONISATION_H_
