// From a plan and the workers reserved for it to what each worker is told.
// Pure functions. rank = stage * replicas + replica = index into `workers`.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_ASSIGNMENTS_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_ASSIGNMENTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/path_roots.h"
#include "coordinator/roster/roster.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// Threads of every worker: what the spec says, or the cores of its machine
/// over the job's workers there, at least 1.
std::vector<int> ThreadsOfWorkers(const v1::JobSpec& spec,
                                  const std::vector<WorkerInfo>& workers);

/// The least memory that a worker has: its machine's over the job's workers
/// there. Workers that do not say are passed over; 0 if none does.
int64_t LeastWorkerMemory(const std::vector<WorkerInfo>& workers);

/// How much longer layers take on these workers than alone on the machine: all
/// of them on one host compute with more threads than it has cores. 1 for
/// workers on several hosts, on GPUs, or that do not say how many cores they
/// have.
double ComputeSlowdown(const v1::JobSpec& spec,
                       const std::vector<WorkerInfo>& workers);

/// "cpu" or "cuda" as the job's workers on `host` will compute; "auto" if none
/// is there, since another machine's device cannot be measured here.
std::string DeviceToProfile(const v1::JobSpec& spec,
                            const std::vector<WorkerInfo>& workers,
                            const std::string& host);

/// The longest wait for a peer's data: 10 x the predicted step, at least 60 s.
Nanos WaitForData(const v1::Plan& plan);

/// In which the weights of all stages have reached their writer's disk: at
/// 1 MB/s.
Nanos LongestModelWrite(const v1::Plan& plan);

/// One per rank.
std::vector<v1::Assignment> MakeAssignments(
    const v1::Job& job, const v1::Plan& plan,
    const std::vector<WorkerInfo>& workers);

/// Samples of the training split as far as they can be told from here: of the
/// emulated data set, or from the size of the file if this machine has it; 0
/// when not known. Good for predictions; the workers count them themselves.
/// Not known either if the path leads out of `roots`.
int64_t EstimateTrainSamples(const v1::JobSpec& spec,
                             const PathRoots& roots = PathRoots());

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_ASSIGNMENTS_H_
