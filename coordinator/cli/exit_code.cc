#include "coordinator/cli/exit_code.h"

namespace deltapipe {

const char kExitCodeHelp[] =
    "Exit codes: 0 ok, 1 job failed, 2 bad usage or spec, 3 not found, 4 "
    "wrong\n"
    "state or conflict, 5 coordinator unreachable, 6 not allowed, 7 "
    "cancelled,\n"
    "8 stopped but resumable, 130 interrupted, 143 terminated.";

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return kExitWrongState;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnreachable;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitNotAllowed;
    case absl::StatusCode::kCancelled:
      return kExitJobCancelled;
    default:
      return kExitJobFailed;
  }
}

int ExitCodeOf(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_SUCCEEDED:
      return kExitOk;
    case v1::JOB_STATE_CANCELLED:
      return kExitJobCancelled;
    case v1::JOB_STATE_PAUSED:
      return kExitResumable;
    default:
      return kExitJobFailed;
  }
}

}  // namespace deltapipe
