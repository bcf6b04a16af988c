// What a job that is resumed can take over of an earlier one's checkpoint: a
// mistake that is found before anything is started, rather than by the worker
// that reads a tensor of another shape. Pure, thread-safe.
#ifndef DELTAPIPE_COORDINATOR_SPEC_CARRIED_STATE_H_
#define DELTAPIPE_COORDINATOR_SPEC_CARRIED_STATE_H_

#include <optional>
#include <string>
#include <vector>

#include "coordinator/spec/job_spec.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// Whether workers of `spec` take a checkpoint whose job was `former`, so far
/// as the cut into stages goes: one of another number of stages, or of another
/// given cut of as many layers, is passed over, and they begin anew.
bool TakesCutOf(const v1::JobSpec& former, const v1::JobSpec& spec);

/// The fields that keep a job of `spec` from going on with the weights, the
/// optimizer's state, and the records and residuals of boundaries of
/// `checkpoint` (a name, for the messages), whose job was `former`, with the
/// value of then and that of now. `tuning` says which codecs its boundaries had
/// (if it names none, they are those of `former`). Both specs are valid, with
/// their defaults filled in. Empty: all of it can be carried over, if need be
/// to another number of replicas.
std::vector<SpecViolation> FindUncarried(const v1::JobSpec& former,
                                         const v1::JobSpec& spec,
                                         const v1::Tuning& tuning,
                                         const std::string& checkpoint);

/// A checkpoint that a job could go on from.
struct FormerCheckpoint {
  std::string name;
  /// Of the job that wrote it, with the layers that each stage had as its
  /// partition; absent: this build cannot read it.
  std::optional<v1::JobSpec> spec;
  /// Which codecs its boundaries had; names none where they are the spec's, or
  /// are not known.
  v1::Tuning tuning = {};
};

/// Cuts the layers as those of the newest of `checkpoints` (newest first) are,
/// unless the spec says how: measured anew they might be cut otherwise, and
/// stages fit no other cut.
void KeepCut(const std::vector<FormerCheckpoint>& checkpoints,
             v1::JobSpec* spec);

/// What keeps the job from going on with the one that its workers would take of
/// `checkpoints` (newest first). Empty where there is none, or none that can be
/// read: workers tell of those.
std::vector<SpecViolation> FindUncarried(
    const std::vector<FormerCheckpoint>& checkpoints, const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_CARRIED_STATE_H_
