// Who left first: for ranks whose collective has failed.
//
// A rank that finds a channel broken fails, and breaks its own channels, so
// that nobody waits for it. Others may notice that before they notice who began
// it, and would name the messenger. So whoever fails first says why:
//
//   const int first = FindDeparted(status, group);
//   if (first >= 0) TellOfDeparture(group, first);
//   group->Cancel(status);
//
// Called by the thread that runs the collective, after its error; never waits
// for longer than kTellingPatience.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_DEPARTURE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_DEPARTURE_H_

#include <chrono>

#include "absl/status/status.h"
#include "worker/collective/rank_group.h"
#include "worker/transport/frame.h"

namespace deltapipe {

inline constexpr std::chrono::milliseconds kTellingPatience{200};

/// UNAVAILABLE if `frame` is the message of TellOfDeparture; OK of any other.
/// For whoever reads channels of a group: collectives and gathers of scalars.
absl::Status CheckIsNoDeparture(const Frame& frame);

/// The rank of `group` that another one has said to have left: in `status`,
/// which is that of the collective, or in what had come and was not read. Or
/// else the only one whose channel is broken. -1: nobody, or it cannot be told
/// (several are: this rank itself may have been cancelled).
int FindDeparted(const absl::Status& status, RankGroup* group);

/// Says to all ranks but `departed` that it has left, and waits until they have
/// heard it. What cannot be sent in time is not.
void TellOfDeparture(RankGroup* group, int departed);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_DEPARTURE_H_
