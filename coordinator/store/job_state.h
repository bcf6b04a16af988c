// What can be said of a job's state alone.
#ifndef DELTAPIPE_COORDINATOR_STORE_JOB_STATE_H_
#define DELTAPIPE_COORDINATOR_STORE_JOB_STATE_H_

#include <string>

#include "absl/strings/strip.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// Whether a job in this state has ended. It may still be started again from a
/// checkpoint.
inline bool IsFinished(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

/// Whether nothing happens to a job in this state until somebody asks for it.
inline bool IsAtRest(v1::JobState state) {
  return IsFinished(state) || state == v1::JOB_STATE_PAUSED;
}

/// "RUNNING" of JOB_STATE_RUNNING: as users see it.
inline std::string StateName(v1::JobState state) {
  return std::string(absl::StripPrefix(v1::JobState_Name(state), "JOB_STATE_"));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_JOB_STATE_H_
