// Exit codes of `deltapipe`, the same for every verb and part of its contract.
#ifndef DELTAPIPE_COORDINATOR_CLI_EXIT_CODE_H_
#define DELTAPIPE_COORDINATOR_CLI_EXIT_CODE_H_

#include "absl/status/status.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

inline constexpr int kExitOk = 0;
inline constexpr int kExitJobFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitWrongState = 4;
inline constexpr int kExitUnreachable = 5;
inline constexpr int kExitNotAllowed = 6;
inline constexpr int kExitJobCancelled = 7;
/// Paused or preempted: it can be resumed.
inline constexpr int kExitResumable = 8;
inline constexpr int kExitInterrupted = 130;
inline constexpr int kExitTerminated = 143;

/// The code for an error: INVALID_ARGUMENT 2, NOT_FOUND 3, FAILED_PRECONDITION
/// and its kin 4, UNAVAILABLE and DEADLINE_EXCEEDED 5, PERMISSION_DENIED and
/// UNAUTHENTICATED 6, CANCELLED 7, others 1; OK 0.
int ExitCodeOf(const absl::Status& status);

/// The code for a job that ended: 0, 1 or 7.
int ExitCodeOf(v1::JobState state);

/// The lines about exit codes that --help ends with.
extern const char kExitCodeHelp[];

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_EXIT_CODE_H_
