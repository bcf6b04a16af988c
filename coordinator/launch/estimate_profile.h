// EstimateProfile: what the layers of a spec cost, by arithmetic.
//
// For coordinators without a worker program beside them, such as that of the
// container image, which has no LibTorch. Parameters, elements and saved bytes
// are exactly those that `deltapipe-worker --profile` counts; times assume a
// rate and are good for comparing layers with each other, less so with links.
// Pure.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_ESTIMATE_PROFILE_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_ESTIMATE_PROFILE_H_

#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// What a core and a GPU are taken to compute, in floating-point operations a
/// second.
inline constexpr double kAssumedCoreRate = 50e9;
inline constexpr double kAssumedGpuRate = 20e12;

/// Of a gpt or mlp with its defaults filled in; a synthetic model, whose costs
/// are in its spec, gets no layers. parallel.threads of 0 counts as one core.
v1::StageProfile EstimateProfile(const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_ESTIMATE_PROFILE_H_
