// absl::Status over gRPC and back, with its details (coordinator/errors).
//
// Every error leaves with exactly one ErrorInfo {reason, domain "deltapipe",
// metadata}; one that has none is given the name of its code as its reason. All
// of it together stays below the 8 KiB that gRPC takes as trailers: a longer
// one would be lost whole. Pure; thread-safe.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_RICH_STATUS_H_
#define DELTAPIPE_COORDINATOR_SERVICE_RICH_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace deltapipe {

/// The same code; the message up to 4,000 bytes; the details up to 2,500, of
/// which violations go first: the metadata `omitted_violations` counts them.
grpc::Status ToGrpcStatus(const absl::Status& status);

/// The same code and message, with the details that `status` carries.
/// Unreadable ones are left out.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_RICH_STATUS_H_
