// What a job spec says about data, as BatchSource takes it.
#ifndef DELTAPIPE_WORKER_ENGINE_DATA_OPTIONS_H_
#define DELTAPIPE_WORKER_ENGINE_DATA_OPTIONS_H_

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "worker/data/batch_source.h"

namespace deltapipe {

/// INVALID_ARGUMENT for a quantity that cannot be read.
absl::StatusOr<BatchSourceOptions> MakeDataOptions(const v1::JobSpec& spec,
                                                   const v1::Plan& plan);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_DATA_OPTIONS_H_
