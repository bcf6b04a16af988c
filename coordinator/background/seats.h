// Seats: which worker takes which rank of a job.
//
// Rank stage * replicas + replica. Who had a rank in the generation before
// keeps it: it has its files, perhaps on its own disk only. With
// parallel.nodes: m the replicas of a stage form m groups of neighbours that
// count as a node each, whose members should share a host, as gradients then
// cross the network once a group (docs/decisions/0015). Groups of the same
// replicas are seated together, stage after stage, so that the boundaries
// between them stay on the host, too, where it has the workers.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_SEATS_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_SEATS_H_

#include <map>
#include <string>
#include <vector>

#include "coordinator/roster/roster.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// `workers` by rank. They are stages x replicas in the roster's order, which
/// is that of ranks where parallel.nodes says nothing. `former_ranks` are by
/// worker, of as many.
std::vector<WorkerInfo> SeatWorkers(
    const v1::ParallelSpec& parallel, std::vector<WorkerInfo> workers,
    const std::map<std::string, int>& former_ranks);

/// Whether parallel.nodes is what the seats are: empty, or a sentence that
/// names the first group whose members have several hosts, and the remedy.
std::string DescribeSplitNodes(const v1::ParallelSpec& parallel,
                               const std::vector<WorkerInfo>& workers_by_rank);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_SEATS_H_
