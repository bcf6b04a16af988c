// The knobs of a job: what it starts with, what a request makes of them, and
// how the event log tells the difference.
//
// Called by the job's actor; pure functions, thread-safe. Field paths in errors
// are those of Tuning: "boundaries[1].activations".
//
//   v1::Tuning tuning = InitialTuning(job_id, spec, plan);
//   DP_ASSIGN_OR_RETURN(v1::Tuning next,
//                       ApplyUpdate(tuning, request, spec, plan));
//   if (next.revision() == tuning.revision()) ...   // nothing changes
//   TuningDifference difference = DescribeChange(tuning, next);
#ifndef DELTAPIPE_COORDINATOR_TUNING_TUNING_STATE_H_
#define DELTAPIPE_COORDINATOR_TUNING_TUNING_STATE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// What the tuner may choose bits for unless it is told otherwise: three bits
/// of a normal distribution, not two.
inline constexpr double kDefaultErrorBudget = 0.2;

/// `codec` with the extents of the tensor that crosses `boundary`; as it is if
/// it is none, or if such tensors have several shapes (data.sizes).
std::string BindToBoundary(const std::string& codec, const v1::JobSpec& spec,
                           const v1::Plan& plan, int boundary);

/// Revision 1: the plan's codecs on all boundaries, unlimited rates, no budget,
/// no tuner.
v1::Tuning InitialTuning(const std::string& job_id, const v1::JobSpec& spec,
                         const v1::Plan& plan);

/// "3-9f86d081884c7d65": the revision and a hash of the knobs.
std::string TuningEtag(const v1::Tuning& tuning);
/// `next` as the revision after `current`: its number and etag; its first step
/// is not known yet (0).
void MakeNextRevision(const v1::Tuning& current, v1::Tuning* next);

/// What the request makes of `current` (AIP-134, AIP-161).
///
/// Without a mask, fields that are set change. With one, the fields it names:
/// those that are not set go back to what the job started with, and `*` names
/// all. Boundaries are told apart by `boundary`; those that the request does
/// not list stay as they are, except with `*`. "auto" as a codec is what the
/// job started with. Output-only fields are ignored. A request that changes
/// nothing returns `current`; any other makes the next revision.
///
/// ABORTED: the request's etag is not empty and not that of `current`.
/// INVALID_ARGUMENT: all violations at once, as details too: unknown paths of
/// the mask, boundaries that there are not, codecs, rates and policies that
/// cannot be.
absl::StatusOr<v1::Tuning> ApplyUpdate(const v1::Tuning& current,
                                       const v1::UpdateTuningRequest& request,
                                       const v1::JobSpec& spec,
                                       const v1::Plan& plan);

/// ABORTED unless `etag` is empty or that of `current`.
absl::Status CheckEtag(const v1::Tuning& current, const std::string& etag);

/// The knobs that differ, "boundaries[0].activations=int(8)" a line; both empty
/// if none does.
struct TuningDifference {
  std::string old_value;
  std::string new_value;
};
TuningDifference DescribeChange(const v1::Tuning& from, const v1::Tuning& to);

/// "off", "propose" or "apply".
std::string TunerModeWord(v1::Tuner::Mode mode);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_TUNING_STATE_H_
